"""SQLite behind `dataset`: opened safely, written with known columns only, used by one thread at a time.

The only module that imports `dataset`. `synchronous=FULL`: what was committed is on the disk (0.45 ms a commit).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dataset

from mini_core.errors import ConfigError, Unavailable
from mini_core.store.migrations import MIGRATIONS, SCHEMA

Row = dict[str, Any]

BUSY_TIMEOUT = 10_000
"""Milliseconds to wait for somebody else's lock, such as a backup's."""

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT}",
)


def _plain(row: Mapping[str, Any]) -> Row:
    return {str(name): item for name, item in row.items()}


class Database:
    """Tables and transactions. All calls are serialised by one lock, which a transaction holds to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db = dataset.connect(f"sqlite:///{path}", on_connect_statements=list(PRAGMAS))
        self._columns: dict[str, frozenset[str]] = {}

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; may be nested, then the outermost decides. Reads run in one too, which frees their
        connection."""
        with self._lock, self._db:
            yield

    def insert(self, table: str, row: Row) -> Any:
        """The new row's key. Raises ValueError for a column that the table lacks, sqlite errors for the rest."""
        self._check(table, row)
        with self.transaction():
            return self._db[table].insert(row, ensure=False)

    def update(self, table: str, row: Row, *keys: str) -> int:
        """Changes the rows whose `keys` equal those in `row`; how many there were."""
        self._check(table, row)
        with self.transaction():
            return int(self._db[table].update(row, list(keys), ensure=False, return_count=True))

    def upsert(self, table: str, row: Row, *keys: str) -> None:
        with self.transaction():
            if not self.update(table, row, *keys):
                self.insert(table, row)

    def delete(self, table: str, **where: Any) -> None:
        self._check(table, where)
        with self.transaction():
            self._db[table].delete(**where)

    def find(self, table: str, *, order: str | Sequence[str] = (), **where: Any) -> list[Row]:
        self._check(table, where)
        with self.transaction():
            return [_plain(row) for row in self._db[table].find(order_by=order or None, **where)]

    def one(self, table: str, **where: Any) -> Row | None:
        self._check(table, where)
        with self.transaction():
            row = self._db[table].find_one(**where)
            return _plain(row) if row else None

    def query(self, sql: str, **values: Any) -> list[Row]:
        with self.transaction():
            return [_plain(row) for row in self._db.query(sql, **values)]

    def execute(self, sql: str, **values: Any) -> int:
        """Runs a statement that changes something; how many rows it changed."""
        with self.transaction():
            self._db.query(sql, **values)
            return int(self.query("SELECT changes() AS n")[0]["n"])

    def _check(self, table: str, row: Row) -> None:
        known = self._columns.get(table)
        if known is None:
            with self.transaction():
                known = self._columns[table] = frozenset(self._db[table].columns)
        if unknown := set(row) - known:
            raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}")


def migrate(path: Path) -> None:
    """Brings the file to this program's schema, after a copy of it. Raises ConfigError for a newer one."""
    with closing(_connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise ConfigError(
                f"{path} was written by a newer mini (schema {version}, this one knows {SCHEMA}).",
                hint=f"Upgrade mini, or put back a copy from before the upgrade ({path.name}.before-*).",
            )
        if version == SCHEMA:
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if version:
            _copy(connection, path.with_name(f"{path.name}.before-{version + 1}-{int(time.time())}"))
        for number in range(version, SCHEMA):
            _apply(connection, number + 1)


def snapshot(path: Path, target: Path) -> None:
    """A consistent copy of a database that may be in use, for its owner alone."""
    with closing(sqlite3.connect(path)) as connection:
        _copy(connection, target)


def schema_of(path: Path) -> int:
    """The schema that the file has. Raises Unavailable for a file that is no database."""
    with closing(_connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def settle(path: Path) -> None:
    """Brings all that was written into the file itself, so that it can be moved. Nobody may have it open."""
    with closing(_connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA user_version")
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"{path} cannot be opened: {error}.", hint="Restore it from a backup.") from None
    path.chmod(0o600)
    return connection


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    target.touch(0o600)
    with closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)


def _apply(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in MIGRATIONS[number - 1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
