"""API keys: 256 random bits each, of which only the SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from mini_core.api import KeyInfo, NewKey
from mini_core.errors import Conflict, Denied, NotFound
from mini_core.store.database import Database, Row

USED_EVERY = 60.0
"""Seconds; when a key was used is not written down more often."""


def _info(row: Row) -> KeyInfo:
    return KeyInfo(
        name=row["name"],
        created_at=row["created_at"],
        app=row["app"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, request: NewKey) -> str:
        """The key, which is not to be had again."""
        key = "mini_" + secrets.token_urlsafe(32)
        now = time.time()
        with self._db.transaction():
            if self._db.one("keys", name=request.name):
                raise Conflict(f"There is a key {request.name} already.", hint="Choose another name, or revoke it.")
            expires = None if request.expires_in is None else now + request.expires_in
            row = {"name": request.name, "hash": _hash(key), "app": request.app}
            self._db.insert("keys", row | {"created_at": now, "expires_at": expires})
        return key

    def check(self, key: str) -> KeyInfo:
        """Whose key it is. Raises Denied. All hashes are compared, each in constant time."""
        wanted, now = _hash(key), time.time()
        found: Row | None = None
        for row in self._db.find("keys"):
            if hmac.compare_digest(row["hash"], wanted):
                found = row
        if found is None or (found["expires_at"] is not None and found["expires_at"] <= now):
            why = "The key has expired." if found else "The key is not valid here."
            raise Denied(why, hint="mini config set-api-key, with a key from mini keys create.")
        if found["used_at"] is None or abs(now - found["used_at"]) >= USED_EVERY:
            self._db.update("keys", {"name": found["name"], "used_at": now}, "name")
        return _info(found)

    def list(self) -> tuple[KeyInfo, ...]:
        return tuple(_info(row) for row in self._db.find("keys", order="created_at"))

    def revoke(self, name: str) -> None:
        with self._db.transaction():
            if not self._db.one("keys", name=name):
                raise NotFound(f"There is no key {name}.", hint="mini keys lists them.")
            self._db.delete("keys", name=name)

    def copy_to(self, other: Keys, name: str) -> None:
        """The key as it is here, instead of one of the same name there; nothing happens where there is none."""
        row = self._db.one("keys", name=name, app="")
        if row is not None:
            with other._db.transaction():
                other._db.delete("keys", hash=row["hash"])
                other._db.upsert("keys", row, "name")

    def rename_app(self, old: str, new: str) -> None:
        self._db.execute("UPDATE keys SET app = :new WHERE app = :old", old=old, new=new)
