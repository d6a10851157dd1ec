"""Apps and what belongs to each: domains, environment, formation, volumes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mini_core.errors import Conflict, NotFound
from mini_core.store.crypto import Cipher
from mini_core.store.database import Database, Row
from mini_core.store.records import App
from mini_core.types import Limits, Secret, Volume, encode, from_data


def _app(row: Row) -> App:
    flags = {name: bool(row[name]) for name in ("asleep", "maintenance", "hold")}
    return from_data(App, row | flags | {"limits": msgspec.json.decode(row["limits"])})


class Apps:
    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._cipher = cipher

    def create(self, name: str, actor: str) -> App:
        """Raises Conflict where the name is taken."""
        with self._db.transaction():
            if self._db.one("apps", name=name):
                raise Conflict(f"The name {name} is taken.", hint="Choose another one.", code="name-taken")
            row = {"name": name, "handle": self._free_handle(name), "created_at": time.time(), "created_by": actor}
            self._db.insert("apps", row)
            return self.get(name)

    def _free_handle(self, name: str) -> str:
        handle, number = name, 1
        while self._db.one("apps", handle=handle):
            number += 1
            handle = f"{name}-{number}"
        return handle

    def get(self, name: str) -> App:
        """Raises NotFound, also for an app that is being destroyed."""
        row = self._db.one("apps", name=name)
        if row is None or row["state"] == "destroying":
            raise NotFound(f"There is no app {name}.", hint="mini apps lists them.", code="no-app")
        return _app(row)

    def by_id(self, number: int) -> App:
        row = self._db.one("apps", id=number)
        if row is None:
            raise NotFound("The app is gone.", code="no-app")
        return _app(row)

    def all(self, *, destroying: bool = False) -> tuple[App, ...]:
        rows = self._db.find("apps", order="name")
        return tuple(_app(row) for row in rows if destroying or row["state"] != "destroying")

    def names(self) -> frozenset[str]:
        """Every name in use, those of apps that are being destroyed too."""
        return frozenset(row["name"] for row in self._db.query("SELECT name FROM apps"))

    def change(self, app: int, **columns: Any) -> None:
        self._db.update("apps", {"id": app, **columns}, "id")

    def set_limits(self, app: int, limits: Mapping[str, Limits]) -> None:
        self.change(app, limits=encode(limits).decode())

    def rename(self, app: int, name: str) -> None:
        with self._db.transaction():
            if self._db.one("apps", name=name):
                raise Conflict(f"The name {name} is taken.", hint="Choose another one.", code="name-taken")
            self.change(app, name=name)

    def delete(self, app: int) -> None:
        self._db.delete("apps", id=app)

    # --- domains

    def domains(self, app: int) -> tuple[str, ...]:
        return tuple(row["domain"] for row in self._db.find("domains", app=app, order="domain"))

    def all_domains(self) -> dict[int, tuple[str, ...]]:
        """By their apps; those without any are left out."""
        found: dict[int, tuple[str, ...]] = {}
        for row in self._db.find("domains", order="domain"):
            found[row["app"]] = (*found.get(row["app"], ()), row["domain"])
        return found

    def add_domain(self, app: int, domain: str) -> None:
        """Raises Conflict where another app has it; again for the same app is no change."""
        with self._db.transaction():
            row = self._db.one("domains", domain=domain)
            if row and row["app"] != app:
                owner = self.by_id(row["app"]).name
                raise Conflict(f"{domain} belongs to {owner}.", hint=f"mini domains remove {domain} -a {owner}")
            if not row:
                self._db.insert("domains", {"domain": domain, "app": app, "added_at": time.time()})

    def remove_domain(self, app: int, domain: str) -> None:
        with self._db.transaction():
            if not self._db.one("domains", app=app, domain=domain):
                raise NotFound(f"The app has no domain {domain}.", hint="mini domains lists them.")
            self._db.delete("domains", app=app, domain=domain)

    # --- environment

    def env(self, app: int, *, build: bool = False) -> dict[str, Secret]:
        rows = self._db.find("env", app=app, build=int(build), order="name")
        return {row["name"]: Secret(self._cipher.open(str, row["value"], self._label(app, row))) for row in rows}

    def set_env(self, app: int, env: Mapping[str, Secret], *, build: bool = False) -> None:
        for name, secret in env.items():
            row: Row = {"app": app, "name": name, "build": int(build), "set_at": time.time()}
            row["value"] = self._cipher.seal(secret, self._label(app, row))
            self._db.upsert("env", row, "app", "build", "name")

    def unset_env(self, app: int, names: Iterable[str], *, build: bool = False) -> None:
        for name in names:
            self._db.delete("env", app=app, build=int(build), name=name)

    def replace_env(self, app: int, env: Mapping[str, Secret]) -> None:
        """The environment of running processes becomes exactly this."""
        with self._db.transaction():
            current = self.env(app)
            self.unset_env(app, current.keys() - env.keys())
            self.set_env(app, {name: item for name, item in env.items() if current.get(name) != item})

    @staticmethod
    def _label(app: int, row: Row) -> str:
        return f"env:{app}:{row['build']}:{row['name']}"

    # --- formation and volumes

    def formation(self, app: int) -> dict[str, int]:
        return {row["process"]: row["quantity"] for row in self._db.find("formation", app=app, order="process")}

    def set_formation(self, app: int, quantities: Mapping[str, int]) -> None:
        for process, quantity in quantities.items():
            row = {"app": app, "process": process, "quantity": quantity}
            self._db.upsert("formation", row, "app", "process")

    def volumes(self, app: int) -> tuple[Volume, ...]:
        rows = self._db.find("volumes", app=app, order="target")
        return tuple(Volume(name=row["name"], target=row["target"]) for row in rows)

    def replace_volumes(self, app: int, volumes: Iterable[Volume]) -> None:
        with self._db.transaction():
            self._db.delete("volumes", app=app)
            for item in volumes:
                self._db.insert("volumes", {"app": app, "target": item.target, "name": item.name})
