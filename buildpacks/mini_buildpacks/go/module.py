"""go.mod, go.work and vendor/modules.txt, read as the Go reference describes them (https://go.dev/ref/mod)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.types import Value

_DIRECTIVE = re.compile(r"^([a-z]+)\b\s*(.*)$")
_HEROKU = re.compile(r"(?m)^\s*//\s*\+heroku\s+(\w+)\s+(.+?)\s*$")
_REPLACE = re.compile(r"(\S+)(?:\s+\S+)?\s*=>\s*(\S+)(?:\s+\S+)?")


class Module(Value):
    """One go.mod. folder: where it is ("" is the root). requires: module path → version. local: module path →
    folder in the repository, from `replace`. heroku: Heroku's `// +heroku NAME TEXT` lines."""

    folder: str = ""
    path: str = ""
    go: str = ""
    toolchain: str = ""
    requires: Mapping[str, str] = {}
    local: Mapping[str, str] = {}
    heroku: Mapping[str, str] = {}

    def file(self, name: str) -> str:
        return posixpath.join(self.folder, name)

    @property
    def needed(self) -> Mapping[str, str]:
        """What has to come from elsewhere."""
        return {path: version for path, version in self.requires.items() if path not in self.local}


def read_module(source: Source, folder: str = "") -> Module | None:
    """The folder's go.mod, or None. Raises ConfigError where it names no module."""
    file = posixpath.join(folder, "go.mod")
    text = source.text(file)
    if text is None:
        return None
    words = list(_directives(text))
    path = next((_unquoted(rest) for name, rest in words if name == "module"), "")
    if not path:
        raise ConfigError(f"{file}: no module line", hint="Make one with: go mod init MODULE")
    return Module(
        folder=folder,
        path=path,
        go=next((rest for name, rest in words if name == "go"), ""),
        toolchain=next((rest.removeprefix("go") for name, rest in words if name == "toolchain"), ""),
        requires=dict(_pair(rest) for name, rest in words if name == "require"),
        local=dict(_locals(folder, words)),
        heroku=dict(_HEROKU.findall(text)),
    )


def read_work(source: Source) -> tuple[str, ...] | None:
    """The folders that go.work uses, None without one."""
    text = source.text("go.work")
    if text is None:
        return None
    found = (_unquoted(rest) for name, rest in _directives(text) if name == "use")
    return tuple("" if path in (".", "./") else posixpath.normpath(path) for path in found)


def work_version(source: Source) -> str:
    """go.work's `go` line, "" without one."""
    words = list(_directives(source.text("go.work") or ""))
    return next((rest for name, rest in words if name == "go"), "")


def vendored(source: Source, module: Module) -> bool:
    """Whether vendor/ holds all that go.mod requires, as vendor/modules.txt tells."""
    text = source.text(module.file("vendor/modules.txt"))
    if text is None:
        return False
    listed = dict(re.findall(r"(?m)^# (\S+) (v\S+)", text))
    return all(listed.get(path) == version for path, version in module.needed.items())


def _directives(text: str) -> Iterator[tuple[str, str]]:
    """(directive, the rest of its line); blocks are taken apart, comments left out."""
    block = ""
    for raw in text.splitlines():
        line = raw.split("//", 1)[0].strip() if not raw.strip().startswith("//") else ""
        if not line:
            continue
        if block:
            if line == ")":
                block = ""
            else:
                yield block, line
            continue
        found = _DIRECTIVE.match(line)
        if found and found[2] == "(":
            block = found[1]
        elif found:
            yield found[1], found[2]


def _pair(text: str) -> tuple[str, str]:
    path, _, version = text.partition(" ")
    return _unquoted(path), version.strip()


def _locals(folder: str, words: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, rest in words:
        found = _REPLACE.fullmatch(rest) if name == "replace" else None
        if found and _unquoted(found[2]).startswith("."):
            yield _unquoted(found[1]), posixpath.normpath(posixpath.join(folder, _unquoted(found[2])))


def _unquoted(text: str) -> str:
    return text.strip().strip('"`')
