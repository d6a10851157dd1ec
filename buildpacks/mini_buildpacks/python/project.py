"""What a Python project says about itself: its package manager, its dependencies, what its lock file pinned."""

from __future__ import annotations

import ast
import configparser
import json
import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.types import Evidence

PYPROJECT = "pyproject.toml"
PYLOCK = "pylock.toml"
"""The lock file of no tool in particular: https://packaging.python.org/en/latest/specifications/pylock-toml/."""

LOCKS = {"uv.lock": "uv", "poetry.lock": "poetry", "pdm.lock": "pdm", "Pipfile.lock": "pipenv"}

_REQUIREMENTS = (
    "requirements.txt",
    "requirements/production.txt",
    "requirements/prod.txt",
    "requirements/requirements.txt",
    "requirements/base.txt",
    "requirements/common.txt",
    "requirements/main.txt",
    "requirements-prod.txt",
    "requirements-production.txt",
    "requirements.prod.txt",
    "requirement.txt",
    "deps.txt",
)
"""Files of pip requirements, in order of preference; the first that exists is installed."""

_OPTION = re.compile(r"^(-r|--requirement|-c|--constraint|-e|--editable)(?:\s+|=)?(.+)$")
_EGG = re.compile(r"#(?:.*&)?egg=([A-Za-z0-9._-]+)")
_MAX_INCLUDES = 50


@dataclass(frozen=True)
class Dependency:
    """One dependency as it was asked for. spec: PEP 440 specifiers. version: what a lock file pinned, if any."""

    name: str
    extras: frozenset[str] = frozenset()
    spec: str = ""
    file: str = ""
    line: int | None = None
    version: str = ""
    git: bool = False
    markers: str = ""
    url: str = ""

    def requirement(self) -> str:
        """As pip takes it on its command line (PEP 508)."""
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        where = f" @ {self.url} " if self.url else self.spec
        return f"{self.name}{extras}{where}" + (f"; {self.markers}" if self.markers else "")

    def pinned(self) -> str:
        """The exact version, where there is only one that can be."""
        if self.version:
            return self.version
        match = re.fullmatch(r"={2,3}\s*v?([0-9][^,*]*)", self.spec.strip())
        return match[1].strip() if match else ""


@dataclass(frozen=True)
class Project:
    """manager: "pip", "uv", "poetry", "pdm", "pipenv", or "" for bare scripts. manifest, lock: the files it goes by.
    files: all that installing the dependencies reads. local: they include folders of the repository. portable: any
    installer understands them, not only the manager."""

    manager: str = ""
    manifest: str = ""
    lock: str = ""
    dependencies: Mapping[str, Dependency] = field(default_factory=dict)
    pyproject: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    local: bool = False
    portable: bool = True
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    pipfile: Mapping[str, Any] = field(default_factory=dict)

    def get(self, *names: str) -> Dependency | None:
        """The first of the named dependencies that the project has, directly or through its lock file."""
        return next((self.dependencies[name] for name in names if name in self.dependencies), None)

    def has(self, *names: str) -> bool:
        return self.get(*names) is not None

    def table(self, *path: str) -> Mapping[str, Any]:
        return table(self.pyproject, *path)


def table(data: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A table inside of a TOML document, empty where there is none."""
    for key in path:
        inner = data.get(key)
        if not isinstance(inner, dict):
            return {}
        data = inner
    return data


def read_project(source: Source) -> Project:
    """The project in a source; `manager` is "" where no manifest is there. Raises ConfigError for a broken one."""
    pyproject = read_toml(source, PYPROJECT)
    managers = tuple(_managers(source, pyproject))
    if not managers:
        return Project(pyproject=pyproject)
    manager, manifest, lock = managers[0]
    read = {"pip": _pip, "uv": _uv, "poetry": _poetry, "pdm": _pdm, "pipenv": _pipenv}[manager]
    found = read(source, pyproject, manifest, lock)
    others = sorted({other for _, other, _ in managers[1:] if other != manifest} | _other_locks(source, lock))
    warnings = found.warnings
    if others and (lock or manager != "pip"):
        warnings = (*warnings, f"{lock or manifest} is installed by {manager}; not used: {', '.join(others)}")
    return Project(
        manager=manager,
        manifest=manifest,
        lock=lock,
        dependencies=found.dependencies,
        pyproject=pyproject,
        files=found.files,
        local=found.local,
        portable=found.portable,
        evidence=tuple(_evidence(manager, manifest, lock, found)),
        warnings=warnings,
        pipfile=found.pipfile,
    )


def _managers(source: Source, pyproject: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(manager, manifest, lock file) of each way to install the project, the most certain first: lock files, then
    requirements, then manifests without a lock."""
    for lock, manager in LOCKS.items():
        manifest = "Pipfile" if manager == "pipenv" else PYPROJECT
        if source.read(lock) is not None and source.read(manifest) is not None:
            yield manager, manifest, lock
    if source.read(PYLOCK) is not None:
        yield "pip", PYLOCK, PYLOCK
    for name in _REQUIREMENTS:
        if source.read(name) is not None:
            yield "pip", name, ""
            break
    if source.read("Pipfile") is not None:
        yield "pipenv", "Pipfile", ""
    if source.read(PYPROJECT) is not None:
        yield _pyproject_manager(pyproject), PYPROJECT, ""
    for name in ("setup.py", "setup.cfg"):
        if source.read(name) is not None:
            yield "pip", name, ""


def _pyproject_manager(pyproject: Mapping[str, Any]) -> str:
    """Which tool a pyproject.toml without a lock file is written for; pip where it is nobody's in particular."""
    tool = table(pyproject, "tool")
    backend = str(table(pyproject, "build-system").get("build-backend", ""))
    if "poetry" in tool or "poetry" in backend:
        return "poetry"
    if "pdm" in tool or backend.startswith("pdm."):
        return "pdm"
    if "uv" in tool or backend == "uv_build":
        return "uv"
    return "pip"


def _other_locks(source: Source, lock: str) -> set[str]:
    return {name for name in LOCKS if name != lock and source.read(name) is not None}


def _evidence(manager: str, manifest: str, lock: str, project: Project) -> Iterator[Evidence]:
    if lock:
        yield Evidence(file=lock, detail="locked" if lock == PYLOCK else f"locked by {manager}")
    count = len({item.name for item in project.dependencies.values() if item.file == manifest})
    yield Evidence(file=manifest, detail=f"{count} dependenc{'y' if count == 1 else 'ies'}")


def read_toml(source: Source, name: str) -> dict[str, Any]:
    """A TOML file, empty where there is none. Raises ConfigError with the line."""
    text = source.text(name)
    if text is None:
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        raise ConfigError(f"{name}: {message[:1].lower()}{message[1:]}", hint=f"Mend {name}.") from error


# --- pip -------------------------------------------------------------------------------------------------------


def _pip(source: Source, pyproject: Mapping[str, Any], manifest: str, lock: str) -> Project:  # noqa: ARG001
    if manifest == PYLOCK:
        return _pylock(source)
    if manifest == PYPROJECT:
        return Project(dependencies=_pep621(pyproject), files=(PYPROJECT,))
    if manifest in ("setup.py", "setup.cfg"):
        return Project(dependencies=_setuptools(source), files=(), local=True)
    reader = _Requirements(source)
    reader.read(manifest)
    return Project(
        dependencies=reader.found, files=tuple(reader.files), local=reader.local, warnings=tuple(reader.warnings)
    )


def _pylock(source: Source) -> Project:
    """PEP 751: what is locked, and whether folders of the repository are among it."""
    packages = [item for item in read_toml(source, PYLOCK).get("packages", []) if isinstance(item, dict)]
    found: dict[str, Dependency] = {
        canonicalize_name(str(item["name"])): Dependency(
            canonicalize_name(str(item["name"])), file=PYLOCK, version=str(item.get("version", "")), git="vcs" in item
        )
        for item in packages
        if "name" in item
    }
    return Project(dependencies=found, files=(PYLOCK,), local=any("directory" in item for item in packages))


class _Requirements:
    """Reads a requirements file and those that it includes.

    The format: https://pip.pypa.io/en/stable/reference/requirements-file-format/.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.found: dict[str, Dependency] = {}
        self.files: list[str] = []
        self.local = False
        self.warnings: list[str] = []

    def read(self, path: str) -> None:
        if path in self.files or len(self.files) > _MAX_INCLUDES:
            return
        text = self._source.text(path)
        if text is None:
            self.warnings.append(f"{self.files[-1]} includes {path}, which is not there")
            return
        self.files.append(path)
        for number, line in _logical_lines(text):
            self._line(path, number, line)

    def _line(self, path: str, number: int, line: str) -> None:
        option = _OPTION.match(line)
        if option and option[1] in ("-r", "--requirement", "-c", "--constraint"):
            target = option[2].strip().strip("\"'")
            if "://" not in target:
                self.read(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
            return
        text = option[2].strip() if option else line
        if text.startswith("-"):
            return
        if text.startswith((".", "/", "file:")) or (option and "://" not in text):
            self.local = True
            return
        dependency = parse_requirement(text, path, number)
        if dependency is not None:
            self.found.setdefault(dependency.name, dependency)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) without comments, hashes and blank lines; lines ending in a backslash are joined."""
    pending, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(?:^|\s)#.*$", "", raw).strip()
        start = start or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        joined = re.split(r"\s--hash[=\s]", pending + line)[0].strip()
        if joined:
            yield start, joined
        pending, start = "", 0


def parse_requirement(text: str, file: str, line: int | None = None) -> Dependency | None:
    """A PEP 508 requirement or a version control address with `#egg=`; None for what is neither."""
    git = "git+" in text
    try:
        parsed = Requirement(text)
    except InvalidRequirement:
        egg = _EGG.search(text)
        match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", "" if "://" in text else text)
        name = egg[1] if egg else match[0] if match else ""
        return Dependency(canonicalize_name(name), file=file, line=line, git=git) if name else None
    return Dependency(
        name=canonicalize_name(parsed.name),
        extras=frozenset(parsed.extras),
        spec=str(parsed.specifier),
        file=file,
        line=line,
        git=git,
        markers=str(parsed.marker or ""),
        url=parsed.url or "",
    )


def _pep621(pyproject: Mapping[str, Any]) -> dict[str, Dependency]:
    found: dict[str, Dependency] = {}
    for text in listed(table(pyproject, "project").get("dependencies")):
        dependency = parse_requirement(text, PYPROJECT)
        if dependency is not None:
            found[dependency.name] = dependency
    return found


def listed(item: object) -> list[str]:
    """The strings of a list; empty for anything else."""
    return [text for text in item if isinstance(text, str)] if isinstance(item, list) else []


def _setuptools(source: Source) -> dict[str, Dependency]:
    """What setup.cfg and setup.py list literally; what they compute is not known before they run."""
    lines: list[tuple[str, str]] = []
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read_string(source.text("setup.cfg") or "")
        lines += [("setup.cfg", text) for text in config.get("options", "install_requires", fallback="").splitlines()]
    except configparser.Error:
        pass
    lines += [("setup.py", text) for text in _install_requires(source.text("setup.py") or "")]
    lines += [
        (path, line) for path in source.glob("requirements/*.txt") for line in (source.text(path) or "").splitlines()
    ]
    found: dict[str, Dependency] = {}
    for file, text in lines:
        dependency = parse_requirement(re.sub(r"#.*", "", text).strip(), file) if text.strip() else None
        if dependency is not None:
            found.setdefault(dependency.name, dependency)
    return found


def _install_requires(text: str) -> list[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lists = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            given = lists.get(node.value.id) if isinstance(node.value, ast.Name) else node.value
            if isinstance(given, ast.List | ast.Tuple):
                return [
                    item.value for item in given.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)
                ]
    return []


# --- the others ------------------------------------------------------------------------------------------------


def _uv(source: Source, pyproject: Mapping[str, Any], manifest: str, lock: str) -> Project:
    sources = table(pyproject, "tool", "uv", "sources")
    local = any(isinstance(item, dict) and "path" in item for item in sources.values())
    members = _member_manifests(source) if lock and "workspace" in table(pyproject, "tool", "uv") else ()
    files = tuple(dict.fromkeys((manifest, *([lock] if lock else []), *members)))
    dependencies = _with_lock(_pep621(pyproject), _locked_packages(source, lock), lock)
    return Project(dependencies=dependencies, files=files, local=local)


def _member_manifests(source: Source) -> tuple[str, ...]:
    skipped = re.compile(r"(?:^|/)(?:\.|node_modules/|site-packages/)")
    return tuple(path for path in source.glob(f"**/{PYPROJECT}") if not skipped.search(path))


def _poetry(source: Source, pyproject: Mapping[str, Any], manifest: str, lock: str) -> Project:
    found = _pep621(pyproject)
    local, portable = False, True
    for name, given in table(pyproject, "tool", "poetry", "dependencies").items():
        details = given if isinstance(given, dict) else {"version": given}
        if name.lower() == "python" or (details.get("optional") is True and not lock):
            continue
        version = details.get("version", "")
        spec = poetry_spec(version) if isinstance(version, str) else ""
        local = local or "path" in details
        others = set(details) - {"version", "extras", "optional"}
        portable = portable and not others and (bool(spec) or version in ("", "*"))
        key = canonicalize_name(name)
        found[key] = Dependency(key, frozenset(listed(details.get("extras"))), spec, manifest, git="git" in details)
    dependencies = _with_lock(found, _locked_packages(source, lock), lock)
    files = (manifest, *([lock] if lock else []))
    return Project(dependencies=dependencies, files=files, local=local, portable=portable)


def poetry_spec(text: str) -> str:
    """Poetry's caret and tilde as PEP 440, for those that fit in one specifier set; "" for the others."""
    text = text.strip()
    match = re.fullmatch(r"([\^~])\s*([0-9][0-9.]*)", text)
    if match:
        release = [int(part) for part in match[2].split(".") if part]
        index = 0 if match[1] == "^" else min(1, len(release) - 1)
        if match[1] == "^":
            index = next((number for number, part in enumerate(release) if part), len(release) - 1)
        upper = [*release[:index], release[index] + 1]
        return f">={match[2]},<{'.'.join(map(str, upper))}"
    if re.fullmatch(r"[0-9][0-9A-Za-z.]*", text):
        return f"=={text}"
    try:
        return str(SpecifierSet(text)) if text != "*" else ""
    except InvalidSpecifier:
        return ""


def _pdm(source: Source, pyproject: Mapping[str, Any], manifest: str, lock: str) -> Project:
    dependencies = _with_lock(_pep621(pyproject), _locked_packages(source, lock), lock)
    return Project(dependencies=dependencies, files=(manifest, *([lock] if lock else [])))


def _pipenv(source: Source, pyproject: Mapping[str, Any], manifest: str, lock: str) -> Project:  # noqa: ARG001
    pipfile = read_toml(source, manifest)
    found: dict[str, Dependency] = {}
    local = False
    for name, given in table(pipfile, "packages").items():
        details = given if isinstance(given, dict) else {"version": given}
        local = local or "path" in details or "file" in details
        spec = poetry_spec(str(details.get("version", "")))
        key = canonicalize_name(name)
        found[key] = Dependency(key, frozenset(listed(details.get("extras"))), spec, manifest, git="git" in details)
    dependencies = _with_lock(found, _locked_by_pipenv(source, lock), lock)
    return Project(dependencies=dependencies, files=(manifest, *([lock] if lock else [])), local=local, pipfile=pipfile)


def _locked_packages(source: Source, lock: str) -> dict[str, str]:
    """name → version of uv's, Poetry's and PDM's lock files, which share the shape of `[[package]]`."""
    if not lock:
        return {}
    packages = read_toml(source, lock).get("package", [])
    return {
        canonicalize_name(str(item["name"])): str(item.get("version", ""))
        for item in (packages if isinstance(packages, list) else [])
        if isinstance(item, dict) and "name" in item and "virtual" not in item.get("source", {})
    }


def _locked_by_pipenv(source: Source, lock: str) -> dict[str, str]:
    if not lock:
        return {}
    text = source.text(lock) or ""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"{lock}{line}: not valid JSON", hint="Make it anew: pipenv lock") from error
    default = data.get("default", {}) if isinstance(data, dict) else {}
    return {
        canonicalize_name(name): str(item.get("version", "")).lstrip("=")
        for name, item in default.items()
        if isinstance(item, dict)
    }


def _with_lock(asked: dict[str, Dependency], locked: Mapping[str, str], lock: str) -> dict[str, Dependency]:
    """Direct dependencies with the versions that the lock file pinned, and the indirect ones."""
    found = dict(asked)
    for name, version in locked.items():
        base = found.get(name) or Dependency(name, file=lock)
        found[name] = Dependency(base.name, base.extras, base.spec, base.file, base.line, version, base.git)
    return found
