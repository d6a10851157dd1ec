"""Go's source files, read for what decides about a build: which folders hold a program, cgo, imports, tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mini_core.interfaces import Source
from mini_core.types import Value

_PACKAGE = re.compile(r"(?m)^package\s+(\w+)")
_MAIN = re.compile(r"(?m)^func\s+main\s*\(\s*\)")
_COMMENTS = re.compile(r"/\*.*?\*/", re.DOTALL)
_CGO = re.compile(r'(?m)^\s*import\s+"C"|^\s*"C"\s*$')
_TAGS = re.compile(r"(?m)^//(?:go:build|\s*\+build)\s+(.+)$")
_IMPORTS = re.compile(r'(?ms)^import\s*\((.*?)^\)|^import\s+(?:[\w.]+\s+)?"([^"]+)"')
_QUOTED = re.compile(r'"([^"]+)"')
_SKIPPED = {"vendor", "testdata", "node_modules", "Godeps", "third_party", "examples", "example"}
_OTHER_SYSTEMS = re.compile(
    r"_(?:windows|darwin|freebsd|openbsd|netbsd|js|wasip1|plan9|solaris|android|ios)(?:_\w+)?\.go$"
)
LIMIT = 3000
"""Files that are read; a repository with more is judged by those."""


class Sources(Value):
    """mains: folders that hold a program, the root being "". tags: build tags that a program asks for and that a
    plain build leaves out. external: import paths that are no standard library's."""

    mains: tuple[str, ...]
    cgo: bool
    tags: tuple[str, ...]
    external: frozenset[str]


def read_sources(source: Source) -> Sources:
    """Reads every .go file that belongs to a build on Linux; tests, examples and vendored code are left out."""
    mains: dict[str, bool] = {}
    cgo = False
    tags: set[str] = set()
    external: set[str] = set()
    for file in _go_files(source):
        text = source.text(file) or ""
        wanted = _tag(text)
        if wanted == "ignore":
            continue
        bare = _COMMENTS.sub("", text)
        folder = file.rpartition("/")[0]
        package = _PACKAGE.search(bare)
        if package and package[1] == "main" and _MAIN.search(bare):
            mains[folder] = mains.get(folder, False) or not wanted
            if wanted:
                tags.add(wanted)
        cgo = cgo or bool(_CGO.search(bare))
        external.update(path for path in imports(bare) if "." in path.split("/", 1)[0])
    return Sources(
        mains=tuple(sorted(mains)),
        cgo=cgo,
        tags=tuple(sorted(tags)) if not all(mains.values()) else (),
        external=frozenset(external),
    )


def imports(text: str) -> Iterator[str]:
    """The import paths of a file."""
    for block, single in _IMPORTS.findall(text):
        yield from [single] if single else _QUOTED.findall(block)


def _go_files(source: Source) -> Iterable[str]:
    found = [
        file
        for file in source.files()
        if file.endswith(".go")
        and not file.endswith("_test.go")
        and not _OTHER_SYSTEMS.search(file)
        and not any(part in _SKIPPED or part.startswith((".", "_")) for part in file.split("/")[:-1])
    ]
    return sorted(found, key=lambda file: (file.count("/"), file))[:LIMIT]


def _tag(text: str) -> str:
    """The tag without which a file is not built on Linux: "" for none, "ignore" for a file that never is."""
    head = text.split("\npackage ", 1)[0]
    found = _TAGS.search(head)
    if not found:
        return ""
    wanted = found[1].strip()
    if re.fullmatch(r"[A-Za-z_]\w*", wanted):
        return "" if wanted in ("linux", "unix", "amd64", "arm64", "cgo", "gc") else wanted
    names = set(re.findall(r"!?[A-Za-z_]\w*", wanted))
    return "ignore" if names <= {"ignore", "tools", "windows", "darwin", "!linux", "js", "wasm"} else ""
