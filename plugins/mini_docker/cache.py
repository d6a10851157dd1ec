"""Keeps what this platform's builds leave in BuildKit's cache bounded.

While a build runs, its steps are noted in a file of the platform's; afterwards the records that they made are looked
up (see `leftovers`) and noted, too. What is not noted there is never removed. The engine removes a record only when
no other is based on it, and leaves those whose layer an image has: they take no room of their own.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from mini_core.errors import Unavailable
from mini_core.types import Value
from mini_docker.buildkit import Vertex
from mini_docker.engine import Client, Engine
from mini_docker.leftovers import Limits, Ours, Ran, Record, attribute, ran, records, surplus

log = logging.getLogger(__name__)

SIZE, AGE = 10, 14
"""GB, and days: `cache_gb` and `cache_days` of `[plugins.docker]`."""

EVERY = 3600.0
"""Seconds between two looks while nothing is built and no app goes: engines before 23 measure all volumes for it."""

LONG, SHORT = 600.0, 30.0
"""Seconds that such a look, or a removal, may take: while nobody waits, and while somebody does."""

BATCH = 200
"""Records that are removed by one call: the engine builds nothing meanwhile."""

NEWEST_API = (1, 51)
"""Of the engine's API, whose later versions say it differently."""


class Usage(Value):
    """Bytes of the cache: this platform's, and all others'. records: how many are this platform's."""

    ours: int
    others: int
    records: int


class BuildCache:
    """settings: `[plugins.docker]`. folder: the plugin's own."""

    def __init__(self, engine: Engine, folder: Path, settings: Mapping[str, Any]) -> None:
        self._engine = engine
        self._ledger = Ledger(folder / "cache.jsonl")
        size, days = float(settings.get("cache_gb", SIZE)), float(settings.get("cache_days", AGE))
        self.limits = Limits(size=int(size * 1e9), age=days * 86400)
        self._due = 0.0

    def noting(self, app: str) -> Callable[[Vertex], None]:
        """What is to be told of every step of a build of the app."""
        noted: set[Ran] = set()

        def note(vertex: Vertex) -> None:
            step = ran(app, vertex)
            if step and step not in noted:
                noted.add(step)
                self._ledger.add(step)

        return note

    def prune(self, apps: Collection[str]) -> int:
        """Removes what is too much, and all of what other apps left. Returns the bytes freed."""
        steps = self._ledger.steps()
        if not steps and time.monotonic() < self._due and self._ledger.apps() <= set(apps):
            return 0
        self._due = time.monotonic() + EVERY
        if self._ledger.is_empty() or not self._engine.has_buildkit():
            return 0
        found = self._records(LONG)
        ours = self._ledger.settle(found, steps)
        gone, freed = surplus(found, ours, apps, self.limits), 0
        for start in range(0, len(gone), BATCH):
            freed += self._remove(gone[start : start + BATCH])
        return freed

    def usage(self) -> Usage:
        found = self._records(SHORT)
        ours = self._ledger.known(found)
        alone = [item for item in found if not item.shared]
        mine = sum(item.size for item in alone if item.id in ours)
        return Usage(ours=mine, others=sum(item.size for item in alone) - mine, records=len(ours))

    def _records(self, timeout: float) -> list[Record]:
        with self._asking(timeout) as api:
            version = min(tuple(int(part) for part in api.api_version.split(".")), NEWEST_API)
            url = f"{api.base_url}/v{'.'.join(map(str, version))}/system/df"
            usage = api._result(api._get(url, params={"type": "build-cache"}), json=True)
        return records(usage.get("BuildCache") or ())

    def _remove(self, ids: Collection[str]) -> int:
        """ids: with those that are based on others of them, whatever their order."""
        filters = json.dumps({"id": [f"^({'|'.join(ids)})$"]})
        with self._asking(LONG) as api:
            said = api._result(api._post(api._url("/build/prune"), params={"filters": filters}), json=True)
        return int(said.get("SpaceReclaimed") or 0)

    @contextmanager
    def _asking(self, timeout: float) -> Iterator[Client]:
        import docker.errors

        try:
            with closing(self._engine.connect(timeout)) as client, self._engine.reached():
                yield client
        except docker.errors.APIError as error:
            raise Unavailable(f"Docker's build cache: {error.explanation or error}") from error


class _Line(msgspec.Struct, omit_defaults=True):
    ran: Ran | None = None
    ours: Ours | None = None


class Ledger:
    """The file: a line for each step that ran and each record that is ours. A torn line, of a controller that was
    killed, is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._ran: list[Ran] = []
        self._ours: dict[str, Ours] = {}
        self._read = False

    def add(self, step: Ran) -> None:
        with self._lock:
            self._load()
            self._ran.append(step)
            with _as_far_as_there_is_room():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.write(b"\n" + msgspec.json.encode(_Line(ran=step)))

    def apps(self) -> set[str]:
        """Whose records there are."""
        with self._lock:
            self._load()
            return {item.app for item in self._ours.values() if item.app}

    def is_empty(self) -> bool:
        with self._lock:
            self._load()
            return not self._ran and not self._ours

    def steps(self) -> list[Ran]:
        """Those whose records were not looked for yet."""
        with self._lock:
            self._load()
            return list(self._ran)

    def known(self, found: Collection[Record]) -> dict[str, Ours]:
        """Which of these records are ours."""
        with self._lock:
            self._load()
            return self._known(found, self._ran)

    def settle(self, found: Collection[Record], steps: Collection[Ran]) -> dict[str, Ours]:
        """Notes the records that these steps made, while no build runs that might have made one of them, and forgets
        records that are gone. Returns all that are ours."""
        with self._lock:
            self._load()
            before, self._ours = self._ours, self._known(found, steps)
            self._ran = [step for step in self._ran if step not in steps]
            if steps or self._ours.keys() != before.keys():
                self._save()
            return dict(self._ours)

    def _known(self, found: Collection[Record], steps: Collection[Ran]) -> dict[str, Ours]:
        unknown = [item for item in found if item.id not in self._ours]
        noted = {item.id: self._ours[item.id] for item in found if item.id in self._ours}
        return noted | {item.id: item for item in attribute(steps, unknown, noted)}

    def _load(self) -> None:
        if self._read:
            return
        self._read = True
        for line in self._path.read_bytes().splitlines() if self._path.exists() else ():
            with suppress(msgspec.DecodeError):
                item = msgspec.json.decode(line, type=_Line)
                if item.ran:
                    self._ran.append(item.ran)
                if item.ours:
                    self._ours[item.ours.id] = item.ours

    def _save(self) -> None:
        lines = [*(_Line(ours=item) for item in self._ours.values()), *(_Line(ran=step) for step in self._ran)]
        draft = self._path.with_suffix(".new")
        with _as_far_as_there_is_room():
            draft.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
            draft.replace(self._path)


@contextmanager
def _as_far_as_there_is_room() -> Iterator[None]:
    """Neither a build nor the removal of what fills a disk fails for a note that cannot be written."""
    try:
        yield
    except OSError as error:
        log.warning("what the build cache holds could not be noted: %s", error)
