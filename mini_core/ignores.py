"""Which files of a folder travel with a deploy.

    .git and the like                     never
    .env*                                 never, unless git tracks the file
    .dockerignore                         Docker's rules: anchored at the root, the last match wins
    .gitignore, DEFAULTS                  git's rules, nested files too; what git tracks travels all the same
    .miniignore                           git's rules, the last word: `!dist/` brings back what .gitignore left out

The files that mini itself reads (`KEPT`) and Dockerfiles travel even where .dockerignore names them, as with Docker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_core.git import Repository
from mini_core.types import Value, replace

if TYPE_CHECKING:  # imported where there are patterns
    from pathspec import GitIgnoreSpec, PathSpec

NEVER = frozenset({".git", ".hg", ".svn", ".bzr", ".jj"})
KEPT = frozenset({"Dockerfile", ".dockerignore", "mini.toml", "Procfile", "app.json"})
DEFAULTS = frozenset(
    {
        "node_modules/",
        ".venv/",
        "__pycache__/",
        ".tox/",
        ".nox/",
        ".mypy_cache/",
        ".pytest_cache/",
        ".ruff_cache/",
        ".DS_Store",
        "Thumbs.db",
    }
)
"""Names of folders (with "/") and files. Compiled Python modules belong to them, too."""


class Scope(Value):
    """The patterns of one ignore file. A path below the root is seen from there without `drop`, behind `add`."""

    spec: GitIgnoreSpec
    drop: str = ""
    add: str = ""

    def ignores(self, path: str) -> bool | None:
        """None where no pattern speaks of the path. A folder's path ends with "/"."""
        return self.spec.check_file(self.add + path.removeprefix(self.drop)).include


class Rules(Value):
    """What holds in one folder. scopes: outermost first. docker: number of the pattern of .dockerignore that
    decided about the folder, -1 for none. ignored: only what git tracks travels from here."""

    scopes: tuple[Scope, ...] = ()
    docker: int = -1
    ignored: bool = False

    def ignores(self, path: str) -> bool:
        for scope in reversed(self.scopes):
            answer = scope.ignores(path)
            if answer is not None:
                return answer
        return _by_default(path)


class Ignores:
    """Decides, folder by folder from the root down."""

    def __init__(self, root: Path, repository: Repository | None) -> None:
        self._root = root
        self._tracked = repository.tracked if repository else {}
        self._tracked_folders = {parent for path in self._tracked for parent in _parents(path)}
        patterns = list(_docker_patterns(root / ".dockerignore"))
        self._docker = _docker_spec(patterns)
        self._docker_exceptions = [pattern[2:].split("/") for pattern in patterns if pattern.startswith("!")]
        self._mini = next(_scopes(root / ".miniignore"), None)
        self._mini_may_return = self._mini is not None and any(
            pattern.include is False for pattern in self._mini.spec.patterns
        )
        self._outer = tuple(_outer_scopes(repository)) if repository else ()

    def top(self) -> Rules:
        """The rules of the root folder."""
        return self._with_own(Rules(scopes=self._outer), "")

    def file(self, path: str, name: str, rules: Rules) -> bool:
        """Whether the file or link at `path` (relative to the root, with "/") travels."""
        if name in NEVER or (is_env(name) and path not in self._tracked):
            return False
        if self._docker_excludes(self._docker_match(path, rules)) and not _kept(path):
            return False
        mini = self._mini.ignores(path) if self._mini else None
        if mini is not None:
            return not mini
        return path in self._tracked or not (rules.ignored or rules.ignores(path))

    def folder(self, path: str, name: str, rules: Rules) -> Rules | None:
        """The rules of the folder at `path`, or None where nothing in it can travel."""
        docker = self._docker_match(path, rules)
        if name in NEVER or (self._docker_excludes(docker) and not self._docker_may_return(path)):
            return None
        mini = self._mini.ignores(path + "/") if self._mini else None
        if mini and not self._mini_may_return:
            return None
        ignored = (rules.ignored or rules.ignores(path + "/")) if mini is None else mini
        ignored = ignored or is_env(name)
        if ignored and path not in self._tracked_folders and not mini:
            return None
        return self._with_own(Rules(scopes=rules.scopes, docker=docker, ignored=ignored), path + "/")

    def _with_own(self, rules: Rules, prefix: str) -> Rules:
        own = tuple(_scopes(self._root / prefix / ".gitignore", drop=prefix))
        return replace(rules, scopes=(*rules.scopes, *own)) if own else rules

    def _docker_match(self, path: str, rules: Rules) -> int:
        """Docker looks at a path and at all above it, and takes the last pattern that matches any of them."""
        index = self._docker.check_file(path).index if self._docker else None
        return max(rules.docker, -1 if index is None else index)

    def _docker_excludes(self, index: int) -> bool:
        return self._docker is not None and index >= 0 and bool(self._docker.patterns[index].include)

    def _docker_may_return(self, folder: str) -> bool:
        """Whether a `!pattern` may name something below the folder."""
        return any(_reaches_below(pattern, folder.split("/")) for pattern in self._docker_exceptions)


def _reaches_below(pattern: list[str], folder: list[str]) -> bool:
    for wanted, part in zip(pattern, folder, strict=False):
        if wanted == "**":
            return True
        if not fnmatchcase(part, wanted):
            return False
    return len(pattern) > len(folder)


def _kept(path: str) -> bool:
    return path in KEPT or (path.startswith("Dockerfile") and "/" not in path)


def is_env(name: str) -> bool:
    return name.startswith(".env")


def _outer_scopes(repository: Repository) -> Iterator[Scope]:
    """What git reads from outside the root: .git/info/exclude and the .gitignore files from the top down to it."""
    add = repository.prefix
    yield from _scopes(repository.folder / "info" / "exclude", add=add)
    parts = [part for part in add.split("/") if part]
    for depth in range(len(parts)):
        folder = repository.top.joinpath(*parts[:depth])
        yield from _scopes(folder / ".gitignore", add="/".join(parts[depth:]) + "/")


def _scopes(file: Path, *, drop: str = "", add: str = "") -> Iterator[Scope]:
    """The scope of an ignore file, where there is one that says anything."""
    lines = [line for line in _lines(file) if line.strip() and not line.startswith("#")]
    if lines:
        from pathspec import GitIgnoreSpec

        yield Scope(spec=GitIgnoreSpec.from_lines(lines), drop=drop, add=add)


def _by_default(path: str) -> bool:
    name = path.removesuffix("/").rpartition("/")[2]
    is_folder = path.endswith("/")
    return name in DEFAULTS or (is_folder and f"{name}/" in DEFAULTS) or name.endswith((".pyc", ".pyo"))


def _docker_spec(patterns: Sequence[str]) -> PathSpec[Any] | None:
    if not patterns:
        return None
    from pathspec import PathSpec

    return PathSpec.from_lines("gitignore", patterns)


def _docker_patterns(file: Path) -> Iterator[str]:
    """The patterns of a .dockerignore as gitignore patterns: anchored, an exception as "!/…"."""
    for line in _lines(file):
        text = line.strip()
        if line.startswith("#") or not text:
            continue
        parts = [part for part in text.removeprefix("!").strip().split("/") if part not in ("", ".")]
        if parts:
            yield ("!/" if text.startswith("!") else "/") + "/".join(parts)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig", "replace").splitlines()
    except OSError:
        return []


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
