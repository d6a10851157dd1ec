"""Which Python: every file that may say so, the strongest first.

`[build.env]` PYTHON_VERSION > .python-version > .tool-versions > mise.toml > runtime.txt > Pipfile >
`requires-python` or Poetry's python > what old pins leave over > the default.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from mini_buildpacks.python.project import PYLOCK, PYPROJECT, Dependency, Project, read_toml, table
from mini_core.errors import ConfigError, PlanError
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Toolchain
from mini_core.versions import satisfies

DEFAULT = "3.13"

_VERSION = re.compile(r"(?:(?:python|cpython)-?\s*@?)?\s*v?(\d+(?:\.\d+){0,2}(?:(?:a|b|rc)\d+)?(?:-dev)?)")
_RUNTIME = re.compile(r"(?:python-)?(\d+(?:\.\d+){0,2})")
_DEPLOYED = ("PYTHON_VERSION", ".python-version", "runtime.txt")
"""Files that say what the app runs on; a developer's own tools (asdf, mise) may lag behind the project."""

_MISE = ("mise.toml", ".mise.toml", "mise/config.toml", ".config/mise.toml", ".mise/config.toml")

FIRST_FOR: dict[str, tuple[str, str, str]] = {
    # name: the first version for 3.11, 3.12, 3.13
    "aiohttp": ("3.8.3", "3.9.0", "3.10.6"),
    "asyncpg": ("0.27.0", "0.29.0", "0.30.0"),
    "django": ("3.0", "4.0", "4.2"),
    "cffi": ("0", "0", "1.17.0"),
    "contourpy": ("1.0.6", "1.1.1", "1.3.0"),
    "fiona": ("1.9.0", "1.9.5", "1.10.1"),
    "gevent": ("22.10.1", "23.9.1", "24.10.1"),
    "greenlet": ("2.0.0", "3.0.0", "3.1.0"),
    "grpcio": ("1.49.1", "1.59.0", "1.66.2"),
    "h5py": ("3.8.0", "3.10.0", "3.12.0"),
    "llvmlite": ("0.40.0", "0.42.0", "0.44.0"),
    "lxml": ("4.9.1", "4.9.3", "5.3.0"),
    "matplotlib": ("3.6.1", "3.8.0", "3.9.2"),
    "numba": ("0.57.0", "0.59.0", "0.61.0"),
    "numpy": ("1.23.2", "1.26.0", "2.1.0"),
    "onnxruntime": ("1.15.0", "1.17.0", "1.20.0"),
    "orjson": ("3.8.1", "3.9.5", "3.10.7"),
    "pandas": ("1.5.1", "2.1.1", "2.2.3"),
    "pillow": ("9.3.0", "10.1.0", "10.4.0"),
    "psycopg2": ("0", "0", "2.9.10"),
    "psycopg2-binary": ("0", "0", "2.9.10"),
    "pyarrow": ("10.0.1", "14.0.0", "18.0.0"),
    "pydantic": ("1.8.0", "1.10.16", "1.10.19"),
    "pydantic-core": ("0.1.0", "2.4.0", "2.20.0"),
    "pyyaml": ("6.0", "6.0.1", "6.0.1"),
    "pyproj": ("3.4.1", "3.6.1", "3.7.0"),
    "rasterio": ("1.3.5", "1.3.9", "1.4.1"),
    "scikit-learn": ("1.1.3", "1.3.1", "1.5.2"),
    "scipy": ("1.9.2", "1.11.2", "1.14.1"),
    "setuptools": ("0", "66.1.0", "66.1.0"),
    "shapely": ("1.8.5", "2.0.2", "2.0.6"),
    "statsmodels": ("0.13.3", "0.14.0", "0.14.4"),
    "tensorflow": ("2.12.0", "2.16.1", "2.20.0"),
    "tiktoken": ("0.3.0", "0.5.2", "0.8.0"),
    "tokenizers": ("0.13.2", "0.15.0", "0.20.1"),
    "torch": ("2.0.0", "2.2.0", "2.6.0"),
    "uwsgi": ("2.0.21", "2.0.23", "2.0.28"),
    "wrapt": ("1.14.0", "1.14.0", "1.14.0"),
}
"""Packages that are hard to build from source, and those that need what later Pythons removed (distutils in 3.12,
cgi in 3.13). A pin that is older needs an older Python, where none was asked for; from each project's files on PyPI
and its release notes."""


@dataclass(frozen=True)
class Wanted:
    """A version or a range of it, and the file that says so."""

    version: str
    source: str


def python_toolchain(source: Source, settings: BuildSettings, project: Project) -> tuple[Toolchain, tuple[str, ...]]:
    """The toolchain, and warnings. Raises ConfigError for a file that is wrong or that contradicts another."""
    found = list(_all(source, settings, project))
    warnings = tuple(_misspelt(source))
    if not found:
        return _from_pins(project, Wanted("", "default")), warnings
    chosen = found[0]
    _check_range(chosen)
    if project.manager in ("uv", "poetry", "pdm", "pipenv") and chosen.source in _DEPLOYED:
        _check_agreement(chosen, found[1:])
    if not _exact(chosen.version):
        return _from_pins(project, chosen), warnings
    others = [f"{item.source} ({item.version})" for item in found[1:] if _differ(item.version, chosen.version)]
    if others:
        warnings = (*warnings, f"Python {chosen.version} from {chosen.source}; not used: {', '.join(others)}")
    elif source.has("runtime.txt") and chosen.source != "runtime.txt":
        warnings = (*warnings, f"runtime.txt is not needed: {chosen.source} says which Python")
    return Toolchain(name="python", version=chosen.version, source=chosen.source), warnings


def _all(source: Source, settings: BuildSettings, project: Project) -> Iterator[Wanted]:
    given = settings.env.get("PYTHON_VERSION", "").strip()
    if given:
        yield Wanted(given.removeprefix("python-"), "PYTHON_VERSION")
    for wanted in (
        _python_version_file(source),
        _tool_versions(source),
        _mise(source),
        _runtime_txt(source),
        _pipfile(source, project),
        _pyproject(project) or _pylock(source, project),
    ):
        if wanted is not None:
            yield wanted


def _python_version_file(source: Source) -> Wanted | None:
    """pyenv's and uv's file: one version, `#` comments, `python-` or `cpython-` allowed in front."""
    name = ".python-version"
    data = source.read(name)
    if data is None:
        return None
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{name}: begins with a byte-order mark", hint="Save it as plain UTF-8.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name}: not UTF-8 text", hint=f"Save it as plain UTF-8, with a version such as {DEFAULT}."
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    versions = [line for line in lines if line and not line.startswith("#")]
    if not versions:
        raise ConfigError(f"{name}: no version in it", hint=f"Write one, such as {DEFAULT}, or remove the file.")
    if len(versions) > 1:
        shown = ", ".join(repr(line)[1:-1] for line in versions)
        raise ConfigError(f"{name}: several versions in it: {shown}", hint="Keep the one that the app is to run on.")
    if versions[0].lower() in ("latest", "system"):
        return None
    match = _VERSION.fullmatch(versions[0])
    if not match:
        shown = repr(versions[0])[1:-1]
        raise ConfigError(f"{name}: expected a version such as {DEFAULT}, got {shown}", hint="Correct it.")
    return Wanted(match[1].removesuffix("-dev"), name)


def _misspelt(source: Source) -> Iterator[str]:
    for path in source.files():
        if "/" not in path and path != ".python-version" and re.fullmatch(r"\.?python[-_. ]?version(\.txt)?\s*", path):
            yield f"{path!r} is not read: the file's name is .python-version"


def _tool_versions(source: Source) -> Wanted | None:
    for line in (source.text(".tool-versions") or "").splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and words[0] == "python" and re.match(r"\d", words[1]):
            return Wanted(words[1], ".tool-versions")
    return None


def _mise(source: Source) -> Wanted | None:
    """mise's `[tools]`; for "latest", the version in its lock file."""
    for name in _MISE:
        given = table(_lenient_toml(source, name), "tools").get("python")
        if isinstance(given, list):
            given = given[0] if given else None
        if isinstance(given, dict):
            given = given.get("version")
        if given is None:
            continue
        if re.match(r"\d", str(given)):
            return Wanted(str(given), name)
        locked = table(_lenient_toml(source, "mise.lock"), "tools").get("python")
        first = locked[0] if isinstance(locked, list) and locked else locked
        version = first.get("version") if isinstance(first, dict) else None
        if isinstance(version, str) and re.match(r"\d", version):
            return Wanted(version, "mise.lock")
    return None


def _lenient_toml(source: Source, name: str) -> dict[str, object]:
    try:
        return tomllib.loads(source.text(name) or "")
    except tomllib.TOMLDecodeError:
        return {}


def _runtime_txt(source: Source) -> Wanted | None:
    """Heroku's file: `python-3.12.4`."""
    name = "runtime.txt"
    text = source.text(name)
    if text is None:
        return None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or (len(lines) == 1 and not lines[0].startswith("python") and not re.match(r"\d", lines[0])):
        if lines and re.search(r"python", lines[0], re.IGNORECASE):
            raise ConfigError(f"{name}: expected python-{DEFAULT}, got {lines[0]!r}", hint="Correct it.")
        return None  # another language's
    match = _RUNTIME.fullmatch(lines[0])
    if not match or len(lines) > 1:
        shown = " ".join(repr(line)[1:-1] for line in lines)
        raise ConfigError(f"{name}: expected one version such as python-{DEFAULT}, got {shown}", hint="Correct it.")
    return Wanted(match[1], name)


def _pipfile(source: Source, project: Project) -> Wanted | None:
    if project.manager != "pipenv":
        return None
    requires = table(project.pipfile, "requires")
    name = "Pipfile"
    if not requires and project.lock:
        requires, name = _pipfile_lock_requires(source), project.lock
    for key in ("python_full_version", "python_version"):
        given = requires.get(key)
        if not isinstance(given, str) or given.strip() in ("", "*"):
            continue
        if not re.fullmatch(r"\d+(?:\.\d+){0,2}", given.strip()):
            raise ConfigError(f"{name}: {key}: expected a version such as {DEFAULT}, got {given}", hint="Correct it.")
        return Wanted(given.strip(), f"{name} {key}")
    return None


def _pipfile_lock_requires(source: Source) -> Mapping[str, object]:
    try:
        data = json.loads(source.text("Pipfile.lock") or "{}")
    except ValueError:
        return {}
    return table(data, "_meta", "requires") if isinstance(data, dict) else {}


def _pyproject(project: Project) -> Wanted | None:
    given = project.table("project").get("requires-python")
    if isinstance(given, str) and given.strip():
        return Wanted(given.strip(), f"{PYPROJECT} requires-python")
    poetry = project.table("tool", "poetry", "dependencies").get("python")
    if isinstance(poetry, dict):
        poetry = poetry.get("version")
    if isinstance(poetry, str) and poetry.strip() not in ("", "*"):
        return Wanted(poetry.strip(), f"{PYPROJECT} tool.poetry.dependencies.python")
    return None


def _pylock(source: Source, project: Project) -> Wanted | None:
    given = read_toml(source, PYLOCK).get("requires-python") if project.lock == PYLOCK else None
    return Wanted(given.strip(), f"{PYLOCK} requires-python") if isinstance(given, str) and given.strip() else None


def _check_range(wanted: Wanted) -> None:
    try:
        satisfies(DEFAULT, wanted.version, tool="python")
    except PlanError as error:
        raise ConfigError(f"{wanted.source}: {error.message}", hint=error.hint) from error


def _check_agreement(chosen: Wanted, others: list[Wanted]) -> None:
    """A tool that enforces the project's own range would fail late and unclearly: say it now."""
    minor = _minor(chosen.version)
    for other in others:
        if not other.source.startswith(("Pipfile", PYPROJECT)) or not minor:
            continue
        wanted = _minor(other.version) if other.source.endswith("full_version") else other.version
        try:
            fits = satisfies(minor, wanted, tool="python")
        except PlanError:
            continue
        if not fits:
            raise ConfigError(
                f"{chosen.source} asks for Python {chosen.version}, {other.source} for {other.version}",
                hint="Make both say the same.",
                code="versions-disagree",
            )


def _exact(version: str) -> bool:
    return bool(re.fullmatch(r"[\d.]+(?:(?:a|b|rc)\d+)?", version))


def _minor(version: str) -> str:
    match = re.match(r"(\d+\.\d+)", version)
    return match[1] if match and _exact(version) else ""


def _differ(one: str, chosen: str) -> bool:
    try:
        return not satisfies(chosen, one, tool="python")
    except PlanError:
        return True


def _from_pins(project: Project, wanted: Wanted) -> Toolchain:
    """Where no exact version is asked for, old pins of packages with native code set an upper limit."""
    limit, culprit = "", ""
    for name, firsts in FIRST_FOR.items():
        dependency = project.dependencies.get(name)
        for minor, first in zip(("3.11", "3.12", "3.13"), firsts, strict=True):
            if dependency and _older(dependency, first):
                if not limit or Version(minor) < Version(limit):
                    limit, culprit = minor, f"{dependency.file}: {name} {dependency.pinned() or dependency.spec}"
                break
    if not limit:
        return Toolchain(name="python", version=wanted.version or DEFAULT, source=wanted.source)
    bound = f"<{limit}"
    if not wanted.version:
        return Toolchain(name="python", version=bound, source=culprit)
    combined = wanted.version if "||" in wanted.version else _as_specifiers(f"{wanted.version},{bound}")
    possible = any(satisfies(f"3.{minor}", combined, tool="python") for minor in range(6, 20))
    return Toolchain(name="python", version=combined if possible else wanted.version, source=wanted.source)


def _as_specifiers(text: str) -> str:
    """A caret in front of another bound, as PEP 440."""
    match = re.match(r"\^(\d+)([\d.]*),(.*)", text)
    return f">={match[1]}{match[2]},<{int(match[1]) + 1},{match[3]}" if match else text


def _older(dependency: Dependency, version: str) -> bool:
    """Whether nothing as new as `version` can be installed: by a pin, or by an upper bound."""
    limit = Version(version)
    try:
        if dependency.pinned():
            return Version(dependency.pinned()) < limit
        bounds = [_upper_bound(item) for item in SpecifierSet(dependency.spec)]
    except (InvalidVersion, InvalidSpecifier):
        return False
    return any(bound is not None and (bound <= limit if exclusive else bound < limit) for bound, exclusive in bounds)


def _upper_bound(specifier: Specifier) -> tuple[Version | None, bool]:
    """(the highest version that a specifier allows, whether that one is left out itself)."""
    text = specifier.version
    match specifier.operator:
        case "<" | "<=":
            return Version(text), specifier.operator == "<"
        case "==" if text.endswith(".*"):
            release = Version(text[:-2]).release
        case "~=":
            release = Version(text).release[:-1]
        case _:
            return None, False
    return Version(".".join(map(str, (*release[:-1], release[-1] + 1)))), True
