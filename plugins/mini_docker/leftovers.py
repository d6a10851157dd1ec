"""Which records of BuildKit's cache are this platform's, and which of them are too many. Pure.

Records of the cache carry no labels. What is known of a build is when each of its steps ran, by the engine's own
clock (see `buildkit`), and of a record when it was made and by what. A record that was made while a step of ours ran,
in the way that step works, is ours; where the engine made more of such records meanwhile than we ran steps, somebody
else built at the same time, and only those are taken for ours that are based on one that surely is.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mini_core.types import Value
from mini_docker.buildkit import Vertex

NEWEST = 2
"""Results of the same step of the same app that are kept: the one in use, and the one before it."""

_SLACK = 0.001
"""Seconds by which the engine's own times of one event may differ: they are rounded differently."""

_STAGE = re.compile(r"^\[[^\]]*\]\s*")
_EXEC = re.compile(r"(?:cached )?mount \S+ from exec (.*)", re.DOTALL)
_SHELL = re.compile(r" -\w*c ")
_VARIABLE = re.compile(r"\$\{[^}]*\}|\$\w+")
_SHARED_MOUNT = "cached mount /cache/"
"""The caches of package managers, which all apps of a platform share (see `dockerfile`)."""


class Ran(Value):
    """A step that a build of ours ran. begun, ended: seconds since 1970, by the engine's clock."""

    app: str
    name: str
    begun: float
    ended: float


class Ours(Value):
    """A record that is this platform's. app: "" where all apps share it. step: what made it, as BuildKit names it."""

    id: str
    app: str
    step: str


class Record(Value):
    """A record of the cache. shared: an image has the same layer, so that it takes no room of its own."""

    id: str
    parents: tuple[str, ...]
    kind: str
    description: str
    shared: bool
    size: int
    created: float
    used: float


class Limits(Value):
    """size: bytes of all records together. age: seconds without a use."""

    size: int
    age: float


def records(usage: Iterable[Mapping[str, Any]]) -> list[Record]:
    """What `GET /system/df` says as BuildCache."""
    return [_record(item) for item in usage]


def ran(app: str, vertex: Vertex) -> Ran | None:
    """None for what leaves nothing behind: a cached step, one that failed or has not ended."""
    if vertex.cached or vertex.error or not vertex.completed or not _kind_of_step(vertex.name):
        return None
    return Ran(app=app, name=vertex.name, begun=vertex.started, ended=vertex.completed)


def attribute(steps: Collection[Ran], found: Collection[Record], known: Collection[str] = ()) -> list[Ours]:
    """Which records these steps made. known: ids of records that are ours already."""
    ours: list[Ours] = []
    for kind in ("command", "mount", "files", "source"):
        of_kind = [item for item in found if _kind_of_record(item.description) == kind]
        wanted = [step for step in steps if _kind_of_step(step.name) == ("command" if kind == "mount" else kind)]
        for together in _overlapping(wanted):
            made = [(item, fit) for item in of_kind if (fit := [step for step in together if _made(step, item)])]
            if kind != "mount" and len(made) > len(together):
                sure = {*known, *(item.id for item in ours)}
                made = [(item, fit) for item, fit in made if not sure.isdisjoint(item.parents)]
            ours += [_ours(item, fit) for item, fit in made]
    return ours


def surplus(found: Collection[Record], ours: Mapping[str, Ours], apps: Collection[str], limits: Limits) -> list[str]:
    """Ids of what is to go, the newest first, so that a record comes before the one that it is based on: all of apps
    that are gone, all but the newest results of each step, what was not used for long, and, oldest first, what is
    too much."""
    mine = sorted((item for item in found if item.id in ours), key=lambda item: item.used, reverse=True)
    results: dict[tuple[str, str], int] = defaultdict(int)
    oldest, room, gone = time.time() - limits.age, limits.size, []
    for item in mine:
        owner = ours[item.id]
        results[owner.app, owner.step] += 1
        room -= 0 if item.shared else item.size
        there = owner.app in apps if owner.app else bool(apps)
        spare = item.kind == "regular" and results[owner.app, owner.step] > NEWEST
        if not there or spare or item.used < oldest or room < 0:
            room += 0 if item.shared else item.size
            gone.append(item)
    return [item.id for item in sorted(gone, key=lambda item: item.created, reverse=True)]


# --- which record is whose ---------------------------------------------------------------------------------------


def _made(step: Ran, item: Record) -> bool:
    if not step.begun - _SLACK <= item.created <= step.ended + _SLACK:
        return False
    match = _EXEC.match(item.description)
    return match is None or any(_within(text, step.name) for text in (match[1], *_SHELL.split(match[1], 1)[1:]))


def _within(command: str, name: str) -> bool:
    """Whether a step's name, in which variables were replaced, quotes dropped and blanks changed, has the command."""
    rest = _plain(name)
    for part in map(_plain, _VARIABLE.split(command)):
        start = rest.find(part)
        if start < 0:
            return False
        rest = rest[start + len(part) :]
    return True


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _overlapping(steps: Collection[Ran]) -> Iterator[list[Ran]]:
    """Groups of steps that ran at the same time."""
    group: list[Ran] = []
    for step in sorted(steps, key=lambda step: step.begun):
        if group and step.begun > max(item.ended for item in group) + _SLACK:
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def _ours(item: Record, fit: Sequence[Ran]) -> Ours:
    step = min(fit, key=lambda step: step.ended)
    shared = item.description.startswith(_SHARED_MOUNT)
    return Ours(id=item.id, app="" if shared else step.app, step=step.name)


def _kind_of_step(name: str) -> str:
    if name.startswith(("[internal] load build", "[internal] load .dockerignore")):
        return "source"
    word = _STAGE.sub("", name, count=1).split(" ", 1)[0]
    return {"RUN": "command", "COPY": "files", "ADD": "files", "WORKDIR": "files", "copy": "files"}.get(word, "")


def _kind_of_record(description: str) -> str:
    for start, kind in (("mount ", "command"), ("cached mount ", "mount"), ("local source for ", "source")):
        if description.startswith(start):
            return kind
    return "files" if description.startswith(("fileop ", "merge ", "diff ")) else ""


def _record(item: Mapping[str, Any]) -> Record:
    created = _seconds(item.get("CreatedAt"))
    return Record(
        id=str(item["ID"]),
        parents=_parents(item),
        kind=str(item.get("Type") or "regular"),
        description=str(item.get("Description") or ""),
        shared=bool(item.get("Shared")),
        size=int(item.get("Size") or 0),
        created=created,
        used=_seconds(item.get("LastUsedAt")) or created,
    )


def _parents(item: Mapping[str, Any]) -> tuple[str, ...]:
    """API 1.42 has "Parents" instead of "Parent", and for some versions with a blank in front."""
    named = item.get("Parents") or item.get(" Parents") or [item.get("Parent")]
    return tuple(str(name) for name in named if name)


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
