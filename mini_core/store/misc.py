"""Small tables: the platform's own values, plugins' data, durable jobs, cron runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from mini_core.store.crypto import Cipher
from mini_core.store.database import Database, Row
from mini_core.store.records import Work
from mini_core.types import decode, encode, from_data


class Meta:
    """The platform's own values: its id, the runtime and port it chose, the generation of its routes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, key: str, default: str = "") -> str:
        row = self._db.one("meta", key=key)
        return str(row["value"]) if row else default

    def set(self, key: str, item: str) -> None:
        self._db.upsert("meta", {"key": key, "value": item}, "key")

    def next_generation(self) -> int:
        with self._db.transaction():
            number = int(self.get("generation", "0")) + 1
            self.set("generation", str(number))
            return number

    @property
    def generation(self) -> int:
        return int(self.get("generation", "0"))


class PluginData:
    """JSON values of plugins about apps, all encrypted alike; they go when the app goes."""

    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._cipher = cipher

    def get(self, plugin: str, app: int, key: str) -> Any:
        row = self._db.one("plugin_data", plugin=plugin, app=app, key=key)
        return self._cipher.open(dict[str, Any], row["value"], f"{plugin}:{app}:{key}")["value"] if row else None

    def set(self, plugin: str, app: int, key: str, item: Any) -> None:
        sealed = self._cipher.seal({"value": item}, f"{plugin}:{app}:{key}")
        row = {"plugin": plugin, "app": app, "key": key, "value": sealed}
        self._db.upsert("plugin_data", row, "plugin", "app", "key")

    def delete(self, plugin: str, app: int, key: str) -> None:
        self._db.delete("plugin_data", plugin=plugin, app=app, key=key)

    def keys(self, plugin: str, app: int) -> tuple[str, ...]:
        return tuple(row["key"] for row in self._db.find("plugin_data", plugin=plugin, app=app, order="key"))


def _work(row: Row) -> Work:
    return from_data(Work, row | {"data": decode(dict[str, Any], row["data"])})


class Jobs:
    """Work that is retried until it is done."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, kind: str, app: str, plugin: str = "", data: Mapping[str, Any] | None = None) -> int:
        row = {"kind": kind, "app": app, "plugin": plugin, "data": encode(data or {}).decode()}
        return int(self._db.insert("jobs", row | {"created_at": time.time()}))

    def all(self, app: str = "") -> tuple[Work, ...]:
        """Oldest first."""
        rows = self._db.find("jobs", order="id", app=app) if app else self._db.find("jobs", order="id")
        return tuple(_work(row) for row in rows)

    def failed(self, job: Work, error: str, next_try: float) -> None:
        row = {"id": job.id, "attempts": job.attempts + 1, "next_try": next_try, "error": error}
        self._db.update("jobs", row, "id")

    def keep(self, kind: str) -> None:
        """Forgets all but those of a kind."""
        self._db.execute("DELETE FROM jobs WHERE kind != :kind", kind=kind)

    def done(self, job: Work) -> None:
        self._db.delete("jobs", id=job.id)


KEPT = 7 * 86400.0
"""Seconds for which the runs of a cron entry are kept."""


class CronRuns:
    """Which slots of an app's cron entries were taken: a run is written down before it starts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, app: int, entry: str, slot: float, instance: str) -> bool:
        """False where the slot was taken before."""
        try:
            self._db.insert("cron_runs", {"app": app, "entry": entry, "slot": slot, "instance": instance})
        except IntegrityError:
            return False
        sql = "DELETE FROM cron_runs WHERE app = :app AND entry = :entry AND slot < :old"
        self._db.execute(sql, app=app, entry=entry, old=slot - KEPT)
        return True

    def last(self, app: int, entry: str, now: float) -> float | None:
        """The last slot until now. There are later ones where the clock was set back."""
        sql = "SELECT MAX(slot) AS slot FROM cron_runs WHERE app = :app AND entry = :entry AND slot <= :now"
        slot = self._db.query(sql, app=app, entry=entry, now=now)[0]["slot"]
        return None if slot is None else float(slot)
