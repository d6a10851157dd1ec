"""Instances: written down, address and all, before anything is made of them."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.exc import IntegrityError

from mini_core.errors import NotFound
from mini_core.store.database import Database, Row
from mini_core.store.records import Instance
from mini_core.types import Endpoint, from_data


class Taken(Exception):
    """The id or the address belongs to another instance."""


def _instance(row: Row) -> Instance:
    data = dict(row)
    data["index"] = data.pop("position")
    data["endpoint"] = _endpoint(data.pop("host"), data.pop("port"))
    data["found"] = _endpoint(data.pop("found_host"), data.pop("found_port"))
    data |= {name: bool(row[name]) for name in ("routed", "healthy", "oom", "attached")}
    return from_data(Instance, {name: item for name, item in data.items() if item is not None})


def _endpoint(host: str | None, port: int | None) -> dict[str, Any] | None:
    return {"host": host, "port": port} if host and port else None


class Instances:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, item: Instance) -> None:
        """Raises Taken."""
        row = {
            "id": item.id,
            "app": item.app,
            "release": item.release,
            "process": item.process,
            "position": item.index,
            "kind": item.kind,
            "deploy": item.deploy,
            "phase": item.phase,
            "host": item.endpoint.host if item.endpoint else None,
            "port": item.endpoint.port if item.endpoint else None,
            "created_at": item.created_at or time.time(),
            "command": item.command,
            "attached": int(item.attached),
        }
        try:
            self._db.insert("instances", row)
        except IntegrityError:
            raise Taken(f"{item.id} or {item.endpoint} is taken") from None

    def get(self, name: str) -> Instance:
        row = self._db.one("instances", id=name)
        if row is None:
            raise NotFound(f"There is no instance {name}.", code="no-instance")
        return _instance(row)

    def find(self, **where: Any) -> tuple[Instance, ...]:
        """In the order of process type and number."""
        rows = self._db.find("instances", order=["process", "position", "created_at"], **where)
        return tuple(_instance(row) for row in rows)

    def standing(self, app: int) -> tuple[Instance, ...]:
        """The live instances of an app's process types: not the commands that run once, which no deploy ends."""
        return tuple(item for item in self.find(app=app, phase="live") if item.kind in ("web", "worker"))

    def endpoints(self) -> frozenset[Endpoint]:
        """Every address that is given away."""
        return frozenset(item.endpoint for item in self.find() if item.endpoint)

    def change(self, name: str, **columns: Any) -> None:
        self._db.update("instances", {"id": name, **columns}, "id")

    def set_found(self, name: str, found: Endpoint | None) -> None:
        self.change(name, found_host=found.host if found else None, found_port=found.port if found else None)

    def clear(self) -> None:
        """None of them is here: the store is from another platform."""
        self._db.execute("DELETE FROM instances")

    def delete(self, name: str) -> None:
        self._db.delete("instances", id=name)
