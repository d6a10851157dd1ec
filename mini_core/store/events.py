"""Who did what when, and how far each plugin has been told."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from mini_core.store.database import Database, Row
from mini_core.types import Event, decode, encode


def _event(row: Row) -> Event:
    return Event(
        id=row["id"],
        at=row["at"],
        kind=row["kind"],
        actor=row["actor"],
        app=row["app"],
        data=decode(dict[str, Any], row["data"]),
    )


class Events:
    """`wait` returns when there may be events newer than those that were read before `count` was."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._added = threading.Condition()
        self.count = 0

    def add(self, kind: str, actor: str, app: str = "", data: Mapping[str, Any] | None = None) -> None:
        row = {"at": time.time(), "kind": kind, "actor": actor, "app": app, "data": encode(data or {}).decode()}
        self._db.insert("events", row)
        self._db.when_committed(self.wake)

    def wake(self) -> None:
        """Lets everyone who waits look again."""
        with self._added:
            self.count += 1
            self._added.notify_all()

    def wait(self, count: int, timeout: float) -> None:
        """Until something was added since `count` was read, or the time is over."""
        with self._added:
            self._added.wait_for(lambda: self.count != count, timeout)

    def after(self, number: int, *, app: str = "", limit: int = 100) -> tuple[Event, ...]:
        """Oldest first."""
        rows = self._db.query(
            "SELECT * FROM events WHERE id > :after AND (:app = '' OR app = :app) ORDER BY id LIMIT :limit",
            after=number,
            app=app,
            limit=limit,
        )
        return tuple(_event(row) for row in rows)

    def last(self, *, app: str = "", limit: int = 100) -> tuple[Event, ...]:
        """The newest ones, oldest first."""
        rows = self._db.query(
            "SELECT * FROM events WHERE :app = '' OR app = :app ORDER BY id DESC LIMIT :limit", app=app, limit=limit
        )
        return tuple(_event(row) for row in reversed(rows))

    def prune(self, keep: int) -> None:
        self._db.execute("DELETE FROM events WHERE id <= (SELECT COALESCE(MAX(id), 0) - :keep FROM events)", keep=keep)

    def cursor(self, plugin: str) -> int:
        """The last event that the plugin has seen; one that is new here starts with the events to come."""
        with self._db.transaction():
            row = self._db.one("cursors", plugin=plugin)
            if row is None:
                top = int(self._db.query("SELECT COALESCE(MAX(id), 0) AS top FROM events")[0]["top"])
                self._db.insert("cursors", {"plugin": plugin, "event": top})
                return top
            return int(row["event"])

    def set_cursor(self, plugin: str, event: int) -> None:
        self._db.upsert("cursors", {"plugin": plugin, "event": event}, "plugin")
