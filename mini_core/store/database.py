"""SQLite behind `dataset`: opened safely, written with known columns only, by one thread at a time.

The only module that imports `dataset`. `synchronous=FULL`: what was committed is on the disk (0.45 ms a commit). Who
only reads waits for nobody: with write-ahead logging it sees what was committed last (sqlite.org/wal.html).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import dataset
from sqlalchemy import CursorResult, text

from mini_core.errors import ConfigError, Unavailable
from mini_core.store.migrations import MIGRATIONS, SCHEMA

Row = dict[str, Any]

BUSY_TIMEOUT = 10_000
"""Milliseconds to wait for somebody else's lock, such as a backup's."""

READERS_PATIENCE = 5.0
"""Seconds that closing waits for those who read."""

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT}",
)

_statement = lru_cache(maxsize=512)(text)


def _plain(row: Mapping[str, Any]) -> Row:
    return {str(name): item for name, item in row.items()}


def _matching(where: Mapping[str, Any]) -> str:
    """The condition that the columns have these values, None included."""
    return " AND ".join(f"{name} IS :{name}" for name in where) or "1"


def _ordered(order: str | Sequence[str]) -> str:
    """By these columns; "-" in front of one is the other way round."""
    names = [order] if isinstance(order, str) else order
    keys = ", ".join(f"{name[1:]} DESC" if name.startswith("-") else name for name in names if name)
    return f" ORDER BY {keys}" if keys else ""


class Database:
    """Tables and transactions. A lock, which a transaction holds to its end, serialises those who write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._committed = threading.local()
        self._gate = threading.Condition()
        self._readers = 0
        self._closed = False
        self._db = dataset.connect(
            f"sqlite:///{path}", on_connect_statements=list(PRAGMAS), engine_kwargs={"max_overflow": -1}
        )
        self._columns: dict[str, frozenset[str]] = {}

    def close(self) -> None:
        with self._lock:
            with self._gate:
                self._closed = True
                self._gate.wait_for(lambda: not self._readers, READERS_PATIENCE)
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; may be nested, then the outermost decides. Nobody else writes meanwhile."""
        if self._db.in_transaction:
            yield
            return
        self._committed.calls = []
        with self._lock, self._whole():
            yield
        for call in self._committed.calls:
            call()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """One transaction. What cannot be committed, such as on a full disk, is undone by closing the connection:
        `dataset` would leave this thread one on which no other can begin."""
        complete = False
        try:
            with self._db:
                yield
                complete = True
        except BaseException:
            if complete:
                connection = self._db.executable
                connection.invalidate()
                connection.rollback()
            raise

    def when_committed(self, call: Callable[[], None]) -> None:
        """Calls once what this thread has written can be seen by others; never, if that is undone."""
        if self._db.in_transaction:
            self._committed.calls.append(call)
        else:
            call()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A part of this thread's transaction, if it is in one."""
        if self._db.in_transaction:
            yield
            return
        with self._gate:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._readers += 1
        try:
            with self._whole():
                yield
        finally:
            with self._gate:
                self._readers -= 1
                self._gate.notify_all()

    def insert(self, table: str, row: Row) -> Any:
        """The new row's number. Raises ValueError for a column that the table lacks, sqlite errors for the rest."""
        self._check(table, row)
        values = ", ".join(f":{name}" for name in row)
        return self._changed(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", row).lastrowid

    def update(self, table: str, row: Row, *keys: str) -> int:
        """Changes the rows whose `keys` equal those in `row`; how many there were."""
        self._check(table, row)
        changes = ", ".join(f"{name} = :{name}" for name in row if name not in keys)
        where = _matching(dict.fromkeys(keys))
        return self._changed(f"UPDATE {table} SET {changes} WHERE {where}", row).rowcount

    def upsert(self, table: str, row: Row, *keys: str) -> None:
        with self.transaction():
            if not self.update(table, row, *keys):
                self.insert(table, row)

    def delete(self, table: str, **where: Any) -> None:
        self._check(table, where)
        self._changed(f"DELETE FROM {table} WHERE {_matching(where)}", where)

    def find(self, table: str, *, order: str | Sequence[str] = (), **where: Any) -> list[Row]:
        self._check(table, where)
        return self.query(f"SELECT * FROM {table} WHERE {_matching(where)}{_ordered(order)}", **where)

    def one(self, table: str, **where: Any) -> Row | None:
        self._check(table, where)
        rows = self.query(f"SELECT * FROM {table} WHERE {_matching(where)} LIMIT 1", **where)
        return rows[0] if rows else None

    def query(self, sql: str, **values: Any) -> list[Row]:
        with self._reading():
            return [_plain(row) for row in self._db.query(_statement(sql), **values)]

    def execute(self, sql: str, **values: Any) -> int:
        """Runs a statement that changes something; how many rows it changed."""
        return self._changed(sql, values).rowcount

    def _changed(self, sql: str, values: Row) -> CursorResult[Any]:
        with self.transaction():
            return self._db.executable.execute(_statement(sql), values)

    def _check(self, table: str, row: Row) -> None:
        known = self._columns.get(table)
        if known is None:
            found = self.query("SELECT name FROM pragma_table_info(:name)", name=table)
            known = self._columns[table] = frozenset(item["name"] for item in found)
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
