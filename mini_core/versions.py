"""Version ranges, as the files of the languages write them: PEP 440, Poetry, npm, Go and plain pins. Pure.

Every range is turned into PEP 440 specifier sets, joined by "or"; `packaging` compares. What differs between
languages is said by `tool`, a toolchain's name ("python", "node", "go"; "" guesses):

    3.13, 3.13.x, 3.13.*      that minor, any patch; 3.13.2 is exactly that one
    ~=3.11  >=3.10,<4  !=3.9.*    PEP 440
    ^3.11  ~3.11  || |        Poetry and npm: below the next major; below the next minor; either
    20 - 22  >=18 <23  >20    npm (node-semver): a partial bound covers all that it stands for, so >20 is >=21
    lts/*  lts/iron  latest   nvm's aliases (node only)
    1.22  1.22.3              with tool="go", the least version (go.mod's `go` line)

An available version may be partial too, such as an image's tag: "3.13" stands for its newest patch release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from mini_core.errors import PlanError

_ANY = {"", "*", "x", "any", "latest", "current", "stable", "node", "default"}
_LTS_NAMES = (
    "argon",
    "boron",
    "carbon",
    "dubnium",
    "erbium",
    "fermium",
    "gallium",
    "hydrogen",
    "iron",
    "jod",
    "krypton",
)
_LTS = {name: str(4 + 2 * index) for index, name in enumerate(_LTS_NAMES)}  # argon is Node 4, every second major
_EVERY_MAJOR_IS_LTS_FROM = 27  # Node's release schedule since October 2026: one major a year, each with LTS
_NEWEST = 99999
_TOKEN = re.compile(r"(?P<op>~=|===|==|!=|>=|<=|=>|=<|[\^~<>=])?\s*(?P<version>[^\s,<>=!~^|]+)\s*,?\s*")
_PREFIX = re.compile(r"^(?:python|cpython|node|nodejs|go|v)[-@]?(?=\d)", re.IGNORECASE)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")


def satisfies(version: str, range: str, *, tool: str = "") -> bool:  # noqa: A002
    """Whether a version is in a range. Raises PlanError for a range that is not understood; a version that is
    none (a tag such as "bookworm") is in no range."""
    try:
        candidate = _complete(version)
    except InvalidVersion:
        return False
    return any(_contains(one, candidate) for one in _alternatives(range, tool)) and _is_lts(candidate, range)


def best(range: str, available: Sequence[str], *, tool: str = "") -> str | None:  # noqa: A002
    """The newest of the available versions that is in the range, finished releases before pre-releases; None
    where there is none. Raises PlanError for a range that is not understood."""
    fitting = [version for version in available if satisfies(version, range, tool=tool)]
    return max(fitting, key=lambda item: (not _complete(item).is_prerelease, _complete(item)), default=None)


def relax(range: str, *, tool: str = "") -> str:  # noqa: A002
    """An exact pin without its last parts: what does as well where exactly that one is not to be had.

    "3.11.9" → "3.11"; with tool="node" "20.11.1" → "20", for Node promises compatibility within a major. Other
    ranges come back unchanged, and so does Go's minimum.
    """
    pin = re.fullmatch(r"(?:===?|=)?(\d+)\.(\d+)\.\d+", _PREFIX.sub("", range.strip().lstrip("=")))
    if not pin or tool == "go":
        return range
    return pin[1] if tool == "node" else f"{pin[1]}.{pin[2]}"


def order(version: str) -> Version:
    """A sort key: partial versions stand for their newest patch release. Raises packaging's InvalidVersion."""
    return _complete(version)


def _complete(version: str) -> Version:
    parsed = Version(_PREFIX.sub("", version.strip()))
    missing = 3 - len(parsed.release)
    if missing <= 0 or parsed.is_prerelease:
        return parsed
    return Version(".".join(map(str, (*parsed.release, *[_NEWEST] * missing))))


def _contains(specifiers: SpecifierSet, candidate: Version) -> bool:
    return specifiers.contains(candidate, prereleases=True)


def _is_lts(candidate: Version, wanted: str) -> bool:
    if wanted.strip().lower() not in {"lts", "lts/*", "--lts"}:
        return True
    return candidate.major % 2 == 0 or candidate.major >= _EVERY_MAJOR_IS_LTS_FROM


def _alternatives(wanted: str, tool: str) -> tuple[SpecifierSet, ...]:
    try:
        return tuple(_one(part.strip(), tool) for part in re.split(r"\|\|?", wanted))
    except (InvalidSpecifier, InvalidVersion, ValueError) as error:
        raise PlanError(
            f'version range "{wanted}" is not understood', hint='Write it like "3.13", ">=3.10,<4" or "^20".'
        ) from error


def _one(wanted: str, tool: str) -> SpecifierSet:
    lowered = wanted.lower()
    name = lowered.removeprefix("lts/")
    if lowered in _ANY or name in {"*", "lts", "--lts"}:
        return SpecifierSet("")
    if name in _LTS:
        return SpecifierSet(f"=={_LTS[name]}.*")
    dialect = tool or ("python" if re.search(r",|[=!~]=", wanted.replace(">=", "").replace("<=", "")) else "node")
    return SpecifierSet(",".join(_specifiers(wanted, dialect)))


def _specifiers(wanted: str, tool: str) -> Iterator[str]:
    hyphen = _HYPHEN.fullmatch(wanted)
    if hyphen:
        yield from _compare(">=", hyphen[1], tool)
        yield from _compare("<=", hyphen[2], "node")
        return
    position = 0
    while position < len(wanted):
        token = _TOKEN.match(wanted, position)
        if not token:
            raise ValueError(wanted)
        yield from _compare(token["op"] or "", token["version"], tool)
        position = token.end()


def _compare(operator: str, text: str, tool: str) -> Iterator[str]:
    """One comparison as PEP 440 specifiers; none for a version that says nothing (`>=*`)."""
    operator = {"=>": ">=", "=<": "<=", "=": "=="}.get(operator, operator)
    bare = re.sub(r"(?:\.[xX*])+$", "", _PREFIX.sub("", text.strip("'\"")))
    if bare.lower() in {"x", "*", ""}:
        return
    version = Version(bare)
    release = version.release
    match operator:
        case "^":
            yield from (f">={version}", f"<{_after_caret(release)}")
        case "~":
            yield from (f">={version}", f"<{_next(release[:2])}")
        case "" if tool == "go" and bare == _PREFIX.sub("", text):
            yield f">={version}"
        case "" | "==" if len(release) < 3:
            yield f"=={version}.*"
        case "!=" if len(release) < 3 or bare != text:
            yield f"!={version}.*"
        case ">" if tool == "node" and len(release) < 3:
            yield f">={_next(release)}"
        case "<=" if tool == "node" and len(release) < 3:
            yield f"<{_next(release)}"
        case ">" | "<=" | ">=" | "<" | "==" | "~=" | "===" | "!=" | "":
            yield f"{operator or '=='}{version}"
        case _:
            raise ValueError(operator)


def _next(release: tuple[int, ...]) -> str:
    return ".".join(map(str, (*release[:-1], release[-1] + 1)))


def _after_caret(release: tuple[int, ...]) -> str:
    """The first version that a caret excludes: the next of its leftmost part that is not 0 (node-semver)."""
    for index, part in enumerate(release):
        if part:
            return _next(release[: index + 1])
    return _next(release)
