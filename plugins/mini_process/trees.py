"""Folders as values: their digest, copies of them, and what has to change in a copy."""

# Tens of thousands of files at a time, where os is several times as fast.
from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
LARGEST_WITH_PATHS = 4 << 20  # bytes; a larger file is not searched for its folder's path


def files_below(root: Path, top: Path | None = None) -> Iterator[Path]:
    """Every file and link below `top` (by default the root), sorted; links to folders are not followed."""
    for folder, names, files in os.walk(top or root):
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        names[:] = sorted(set(names) - set(links))
        yield from (Path(folder, name) for name in sorted((*files, *links)))


def named_files(root: Path, names: Iterable[str]) -> tuple[Path, ...]:
    """The files that a step names: paths, folders or globs, relative to the root. What is not there is left out."""
    found: set[Path] = set()
    for name in names:
        matches = root.glob(name) if any(mark in name for mark in "*?[") else (root / name,)
        for path in matches:
            if path.is_dir() and not path.is_symlink():
                found.update(files_below(root, path))
            elif path.is_file() or path.is_symlink():
                found.add(path)
    return tuple(sorted(found))


def digest_files(digest: Any, root: Path, paths: Iterable[Path]) -> None:
    """Adds names, modes that matter and contents to a hashlib object. Times don't count."""
    for path in paths:
        info = path.lstat()
        name = os.fsencode(path.relative_to(root))
        if stat.S_ISLNK(info.st_mode):
            digest.update(b"link\0%s\0%s\0" % (name, os.fsencode(os.readlink(path))))
            continue
        executable = b"x" if info.st_mode & 0o100 else b"-"
        digest.update(b"file\0%s\0%s\0%d\0" % (name, executable, info.st_size))
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                digest.update(data)


def new_digest(key: str) -> Any:
    """A keyed digest: it covers secrets, and must not let them be guessed."""
    return hashlib.blake2b(key=key.encode()[:64], digest_size=32)


def copy_files(source: Path, target: Path, paths: Iterable[Path]) -> None:
    """Copies files with their modes and times; replaces what is there without writing into it, for it may be a
    hard link."""
    for path in paths:
        destination = target / path.relative_to(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_symlink() or destination.is_file():
            destination.unlink()
        elif destination.is_dir():
            remove_tree(destination)
        shutil.copy2(path, destination, follow_symlinks=False)


def copy_tree(source: Path, target: Path, *, linked: Callable[[str], bool]) -> None:
    """The whole folder at a new place. linked: whether a file may be a hard link, which is right as long as nobody
    writes into it."""

    def copy(path: str, destination: str) -> None:
        if linked(path):
            _link(path, destination)
        else:
            shutil.copy2(path, destination, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=copy)


def is_package_file(path: str) -> bool:
    """Whether a file belongs to an installed Python or Node package, which tools replace but don't write into: uv and
    pnpm install by hard links for that reason. What is generated (node_modules/.prisma, .cache) is not."""
    _, in_node_modules, rest = path.rpartition("/node_modules/")
    return "/site-packages/" in path or (bool(in_node_modules) and not rest.startswith("."))


def changed_since(root: Path, seconds: float) -> bool:
    """Whether a file below the folder was written after a time (since the epoch)."""
    return any(path.lstat().st_mtime > seconds for path in files_below(root) if not path.is_symlink())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def paths_in_files(root: Path) -> tuple[str, ...]:
    """Files, relative to the root, that hold the root's own path: scripts of virtual environments, link targets.

    Python's compiled files are left out: it corrects the path in them when it loads them. Programs are left alone on
    macOS, where changing one breaks its signature.
    """
    needle = os.fsencode(root)
    found = []
    for path in files_below(root):
        if path.is_symlink():
            if needle in os.fsencode(os.readlink(path)):
                found.append(path)
        elif path.suffix != ".pyc" and path.is_file() and path.stat().st_size <= LARGEST_WITH_PATHS:
            data = path.read_bytes()
            if needle in data and not (sys.platform == "darwin" and b"\0" in data[:4096]):
                found.append(path)
    return tuple(path.relative_to(root).as_posix() for path in found)


def relocate(root: Path, names: Iterable[str], old: Path) -> None:
    """Replaces the old root's path, which must be as long as the new one's, in the files of a copy."""
    before, after = os.fsencode(old), os.fsencode(root)
    if len(before) != len(after):
        raise ValueError(f"{old} and {root} must be of the same length")
    for name in names:
        path = root / name
        if path.is_symlink():
            target = os.fsencode(os.readlink(path)).replace(before, after)
            path.unlink()
            os.symlink(target, path)
            continue
        info, data = path.stat(), path.read_bytes()
        path.unlink()
        path.write_bytes(data.replace(before, after))
        path.chmod(stat.S_IMODE(info.st_mode))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def size_of(root: Path) -> int:
    """Bytes on disk below a folder, hard links counted as often as they are there."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def remove_tree(root: Path) -> None:
    """Removes a folder, read-only folders in it too (Go's module cache). Nothing happens where there is none."""

    def make_writable(function: Callable[..., Any], path: str, error: Any) -> None:
        if isinstance(error[1], FileNotFoundError):
            return
        for item in (os.path.dirname(path), path):
            if not os.path.islink(item):
                os.chmod(item, 0o700)
        function(path)

    if root.is_symlink():
        root.unlink()
    elif root.exists():
        shutil.rmtree(root, onerror=make_writable)
