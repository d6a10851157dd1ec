"""A prepared folder that comes from another place, perhaps another machine: what tools wrote into its files is the path
that it had there."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from mini_core.errors import BuildError
from mini_process import trees

LONGEST_LINE = 1 << 20
_TOOLS = ("python", "python3", "node", "npm", "go")


def first_line(places: Iterable[Path]) -> bytes:
    return b"\0".join(map(os.fsencode, places)) + b"\n"


def read_first_line(data: Iterator[bytes]) -> tuple[list[bytes], Iterator[bytes]]:
    """The paths that come first, and the tar after them."""
    head = b""
    for chunk in data:
        head += chunk
        if b"\n" in head or len(head) > LONGEST_LINE:
            break
    line, found, rest = head.partition(b"\n")
    if not found or not line.startswith(b"/"):
        raise no_build("this is no build of local processes")
    return line.split(b"\0"), itertools.chain([rest], data)


def no_build(why: str) -> BuildError:
    return BuildError(why, hint="Deploy again: mini deploy", step="import")


def move(build: Path, before: bytes) -> None:
    """Makes the folder's files right for where it is now. Raises BuildError where a tool that it leads to (the
    machine's Python, Node) is not there."""
    for path in list(trees.files_below(build)):
        if path.is_symlink():
            _move_link(path, before, os.fsencode(build))
        elif path.stat().st_size <= trees.LARGEST_WITH_PATHS:
            _move_text(path, before, os.fsencode(build))
    tools = [path for name in _TOOLS for path in build.glob(f"tools/bin/{name}")]
    tools += [path for name in _TOOLS for path in build.glob(f"app/.venv/bin/{name}")]
    for path in tools:
        if path.is_symlink() and not path.exists():
            raise BuildError(
                f"{os.path.realpath(path)} is not on this machine", hint="Install it, or deploy again.", step="import"
            )


def _move_link(path: Path, before: bytes, after: bytes) -> None:
    target = os.fsencode(path.readlink())
    if before in target:
        path.unlink()
        path.symlink_to(os.fsdecode(target.replace(before, after)))


def _move_text(path: Path, before: bytes, after: bytes) -> None:
    """In a program a path of another length would move what comes after it: those are left alone."""
    data = path.read_bytes()
    if before not in data or (b"\0" in data and len(before) != len(after)):
        return
    info = path.stat()
    path.chmod(stat.S_IMODE(info.st_mode) | stat.S_IWUSR)
    path.write_bytes(data.replace(before, after))
    path.chmod(stat.S_IMODE(info.st_mode))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
