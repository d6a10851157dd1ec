"""Deploys, written ahead of what they do, and their event logs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError

from mini_core.api import DeployEvent, DeployState, Failure
from mini_core.errors import Cancelled, NotFound
from mini_core.store.crypto import Cipher
from mini_core.store.database import Database, Row
from mini_core.store.records import Deploy, Request
from mini_core.types import decode, encode, from_data

FINISHED: tuple[DeployState, ...] = ("done", "failed", "cancelled")


def _deploy(row: Row) -> Deploy:
    data = {name: item for name, item in row.items() if name != "request"}
    data["failure"] = msgspec.json.decode(row["failure"]) if row["failure"] else None
    data |= {name: bool(row[name]) for name in ("unchanged", "cancelled")}
    return from_data(Deploy, data)


class Deploys:
    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._cipher = cipher

    def add(self, app: int, kind: str, request: Request, actor: str, **columns: Any) -> Deploy:
        """A new one, waiting."""
        row: Row = {
            "app": app,
            "kind": kind,
            "state": "waiting",
            "step": "received",
            "actor": actor,
            "reason": kind,
            "created_at": time.time(),
            "timeout": request.options.timeout,
            "request": self._cipher.seal(request, f"deploy:{app}"),
            **columns,
        }
        return self.get(self._db.insert("deploys", row))

    def get(self, number: int) -> Deploy:
        row = self._db.one("deploys", id=number)
        if row is None:
            raise NotFound(f"There is no deploy {number}.", hint="mini deploys lists them.", code="no-deploy")
        return _deploy(row)

    def request(self, number: int) -> Request:
        row = self._db.one("deploys", id=number)
        if row is None:
            raise NotFound(f"There is no deploy {number}.", code="no-deploy")
        return self._cipher.open(Request, row["request"], f"deploy:{row['app']}")

    def list(self, app: int | None = None, *, limit: int = 50) -> tuple[Deploy, ...]:
        """Newest first."""
        where = "" if app is None else "WHERE app = :app"
        values = {"limit": limit} | ({} if app is None else {"app": app})
        rows = self._db.query(f"SELECT * FROM deploys {where} ORDER BY id DESC LIMIT :limit", **values)
        return tuple(_deploy(row) for row in rows)

    def unfinished(self, app: int | None = None) -> tuple[Deploy, ...]:
        """Running and waiting ones, oldest first."""
        rows = self._db.query("SELECT * FROM deploys WHERE state IN ('running', 'waiting') ORDER BY id")
        return tuple(_deploy(row) for row in rows if app is None or row["app"] == app)

    def running(self, app: int) -> Deploy | None:
        row = self._db.one("deploys", app=app, state="running")
        return _deploy(row) if row else None

    def claim(self, app: int) -> Deploy | None:
        """The oldest waiting deploy of the app, running from now on; None where there is none or one runs."""
        try:
            with self._db.transaction():
                rows = self._db.query(
                    "SELECT id FROM deploys WHERE app = :app AND state = 'waiting' ORDER BY id LIMIT 1", app=app
                )
                if not rows:
                    return None
                self.change(rows[0]["id"], state="running", started_at=time.time())
                return self.get(rows[0]["id"])
        except (IntegrityError, sqlite3.IntegrityError):
            return None

    def change(self, number: int, **columns: Any) -> None:
        self._db.update("deploys", {"id": number, **columns}, "id")

    def advance(self, number: int, step: str, **columns: Any) -> None:
        """Writes the step down; it counts as reached from here on. Raises Cancelled for a deploy that was ended
        meanwhile, so that whoever still works on it stops."""
        row = {"id": number, "state": "running", "step": step, **columns}
        if not self._db.update("deploys", row, "id", "state"):
            raise Cancelled("The deploy has ended already.", code="timeout")

    def finish(self, number: int, state: DeployState, *, failure: Failure | None = None, **columns: Any) -> None:
        """Ends it, not before it began, even where the clock was set back, and forgets the secrets of its request."""
        deploy = self.get(number)
        self.change(
            number,
            state=state,
            finished_at=max(time.time(), deploy.started_at or deploy.created_at),
            failure=encode(failure).decode() if failure else None,
            request=self._cipher.seal(Request(), f"deploy:{deploy.app}"),
            **columns,
        )

    # --- events

    def add_events(self, events: Sequence[tuple[int, DeployEvent]]) -> None:
        with self._db.transaction():
            for deploy, item in events:
                row = {"deploy": deploy, "seq": item.seq, "at": item.at, "kind": item.kind, "text": item.text}
                self._db.insert("deploy_events", row | {"data": encode(item.data).decode()})

    def events(self, number: int, *, after: int = 0, limit: int = 1000) -> tuple[DeployEvent, ...]:
        rows = self._db.query(
            "SELECT * FROM deploy_events WHERE deploy = :deploy AND seq > :after ORDER BY seq LIMIT :limit",
            deploy=number,
            after=after,
            limit=limit,
        )
        return tuple(_event(row) for row in rows)

    def last_seq(self, number: int) -> int:
        rows = self._db.query("SELECT COALESCE(MAX(seq), 0) AS top FROM deploy_events WHERE deploy = :n", n=number)
        return int(rows[0]["top"])

    def lines_after(self, number: int, text: str) -> int:
        """How many lines of a tool were written down since mini last said this."""
        rows = self._db.query(
            "SELECT COUNT(*) AS count FROM deploy_events WHERE deploy = :deploy AND kind = 'output' AND seq > "
            "(SELECT MAX(seq) FROM deploy_events WHERE deploy = :deploy AND kind = 'info' AND text = :text)",
            deploy=number,
            text=text,
        )
        return int(rows[0]["count"])

    def prune(self, app: int, keep: int) -> None:
        """Drops all but the app's newest `keep` finished deploys, with their logs."""
        self._db.execute(
            "DELETE FROM deploys WHERE app = :app AND state IN ('done', 'failed', 'cancelled') AND id NOT IN "
            "(SELECT id FROM deploys WHERE app = :app ORDER BY id DESC LIMIT :keep)",
            app=app,
            keep=keep,
        )


def _event(row: Row) -> DeployEvent:
    data = decode(dict[str, Any], row["data"])
    return DeployEvent(seq=row["seq"], at=row["at"], kind=row["kind"], text=row["text"], data=data)
