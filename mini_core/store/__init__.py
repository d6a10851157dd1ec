"""What the platform knows, kept in SQLite. Rows come out as values (`records.py`); nobody else sees a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mini_core.store.apps import Apps
from mini_core.store.crypto import Cipher, load_key
from mini_core.store.database import Database, migrate
from mini_core.store.deploys import Deploys
from mini_core.store.events import Events
from mini_core.store.instances import Instances
from mini_core.store.keys import Keys
from mini_core.store.misc import CronRuns, Jobs, Meta, PluginData
from mini_core.store.releases import Releases

__all__ = ["Store", "open_store"]


class Store:
    """Thread-safe. What belongs together is written in one `transaction()`."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self.meta = Meta(db)
        self.apps = Apps(db, cipher)
        self.releases = Releases(db, cipher)
        self.deploys = Deploys(db, cipher)
        self.instances = Instances(db)
        self.keys = Keys(db)
        self.events = Events(db)
        self.plugin_data = PluginData(db, cipher)
        self.jobs = Jobs(db)
        self.cron = CronRuns(db)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on the disk when it ends; others wait meanwhile, so nothing slow belongs in one."""
        with self._db.transaction():
            yield

    def close(self) -> None:
        self._db.close()


def open_store(database: Path, key_file: Path) -> Store:
    """The store in the file, made or migrated where that is needed.

    Raises ConfigError for a file of a newer mini and for a damaged key file, Unavailable for a damaged database.
    """
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate(database)
    return Store(Database(database), Cipher(load_key(key_file)))
