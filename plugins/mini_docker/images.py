"""The one table of base images: which public image each toolchain's version becomes. Pure.

To take up a new release, add its version to `versions` (and move `default` when it has settled). `[images]` in
server.toml overrides one version (`"python:3.12" = "registry.example/python:3.12"`) or all of a toolchain
(`python = …`). A toolchain that is not in the table becomes the public image NAME:VERSION.

Build stages use the full image, which has compilers and git; what runs gets the slim one. Where only the slim one
is to be had, it stands in for the full one with `tools` installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from packaging.version import InvalidVersion

from mini_core import versions
from mini_core.types import Plan, Toolchain, Value
from mini_docker.dockerfile import Base

BARE = "debian:bookworm-slim"
"""What runs apps that need no toolchain, and what serves static sites."""


class Family(Value):
    """A toolchain's images. versions: newest first; "3.13" stands for its newest patch release. build, run: image
    names with the version as `{}`. oldest_first: prefer the version that is asked for to newer ones that do."""

    versions: tuple[str, ...]
    default: str
    build: str
    run: str
    tools: tuple[str, ...] = ()
    oldest_first: bool = False


FAMILIES: Mapping[str, Family] = {
    "python": Family(
        versions=("3.15", "3.14", "3.13", "3.12", "3.11", "3.10", "3.9", "3.8", "3.7"),
        default="3.13",
        build="python:{}",
        run="python:{}-slim",
        tools=("build-essential", "git", "pkg-config"),
    ),
    "node": Family(
        versions=("26", "25", "24", "23", "22", "21", "20", "19", "18", "16", "14"),
        default="24",
        build="node:{}",
        run="node:{}-slim",
        tools=("build-essential", "git", "pkg-config", "python3"),
    ),
    "go": Family(
        versions=("1.27", "1.26", "1.25", "1.24", "1.23", "1.22", "1.21", "1.20"),
        default="1.27",
        build="golang:{}-bookworm",
        run=BARE,
        oldest_first=True,
    ),
    "debian": Family(versions=("bookworm", "trixie"), default="bookworm", build="debian:{}-slim", run="debian:{}-slim"),
    "static": Family(versions=("bookworm",), default="bookworm", build=BARE, run=BARE),
}


class Candidate(Value):
    """One way to satisfy a toolchain: images in order of preference. exact: it is what was asked for; otherwise
    the nearest that can be expected to do."""

    version: str
    build: str
    run: str
    tools: tuple[str, ...] = ()
    exact: bool = True


def candidates(toolchain: Toolchain, overrides: Mapping[str, str], local: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """What would do for the toolchain, best first. local: image names that are there, which extend the table.

    Raises PlanError for a version range that is not understood.
    """
    family = FAMILIES.get(toolchain.name)
    if toolchain.name in overrides:
        image = overrides[toolchain.name]
        return (Candidate(version=toolchain.version, build=image, run=image),)
    if family is None:
        image = f"{toolchain.name}:{toolchain.version or 'latest'}"
        image = overrides.get(image, image)
        return (Candidate(version=toolchain.version, build=image, run=image),)
    found = dict.fromkeys(_versions(toolchain, family, local))
    return tuple(_candidate(toolchain.name, family, version, exact, overrides) for version, exact in found)


def offline(plan: Plan, overrides: Mapping[str, str]) -> dict[str, Base]:
    """The plan's images by the table alone, whatever is there: the first choice for each."""
    bases = {"": Base(build=overrides.get("debian", BARE), run=overrides.get("debian", BARE))}
    for toolchain in plan.toolchains:
        first = candidates(toolchain, overrides)[0]
        bases[toolchain.name] = Base(build=first.build, run=first.run)
    return bases


def _candidate(name: str, family: Family, version: str, exact: bool, overrides: Mapping[str, str]) -> Candidate:
    own = overrides.get(f"{name}:{version}")
    build, run = (own, own) if own else (family.build.format(version), family.run.format(version))
    return Candidate(version=version, build=build, run=run, tools=() if own else family.tools, exact=exact)


def _versions(toolchain: Toolchain, family: Family, local: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """(version, exact) in order of preference."""
    name, wanted = toolchain.name, toolchain.version.strip()
    if not wanted:
        yield family.default, True
        rest = [version for version in family.versions if version != family.default]
        yield from ((version, True) for version in rest if _number(version))
        return
    numbers = {*filter(_number, family.versions), *_local_versions(family, local)}
    known = sorted(numbers, key=versions.order)
    fitting = [version for version in known if versions.satisfies(version, wanted, tool=name)]
    if not family.oldest_first:
        fitting.reverse()
        fitting.sort(key=lambda version: version != family.default)
    yield from ((version, True) for version in fitting)
    if not fitting:
        yield from _nearest(toolchain, known)


def _nearest(toolchain: Toolchain, known: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """For a pin that the table does not have: its own tag, then what promises to be compatible with it."""
    name, wanted = toolchain.name, toolchain.version
    number = re.search(r"\d+(?:\.\d+){0,2}", wanted)
    if not number:
        yield wanted, True  # a name, such as a Debian release
        return
    pin = number[0]
    for tag in (pin, ".".join(pin.split(".")[:2])):
        if versions.satisfies(tag, wanted, tool=name):
            yield tag, True
    relaxed = versions.relax(pin, tool=name)
    if relaxed == pin and name == "node":
        relaxed = pin.split(".")[0]
    yield from ((v, False) for v in reversed(known) if versions.satisfies(v, relaxed, tool=name))


def _local_versions(family: Family, local: Sequence[str]) -> set[str]:
    name = family.run if "{}" in family.run else family.build
    pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+(?:\.\d+){0,2})"))
    return {match[1] for name in local if (match := pattern.fullmatch(name))}


def _number(version: str) -> bool:
    try:
        versions.order(version)
    except InvalidVersion:
        return False
    return True
