"""Read-only views of an app's source: kept in memory, in a folder or in a tar archive.

All three answer alike: they only supply an index of files and links and the bytes of a file; everything else is
worked out here, once. Links are followed inside the tree and never out of it. A file larger than `READ_LIMIT`
counts as unreadable, so that nothing in an upload can fill the memory.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import tempfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import IO

from mini_core.errors import SourceError

READ_LIMIT = 16 * 1024 * 1024
"""Bytes; no manifest or lock file comes near."""

TAR_LIMIT = 4 * 1024 * 1024 * 1024
"""Bytes of an unpacked archive that `TarSource` is willing to look at."""

MAX_LINKS = 40
"""Links followed for one path, as Linux does."""


class BaseSource:
    """What all sources share. A subclass gives `_index` (path → link target, or None for a file) and `_bytes`."""

    def _index(self) -> Mapping[str, str | None]:
        raise NotImplementedError

    def _bytes(self, path: str) -> bytes | None:
        """The content of a file of the index; None where it cannot be read or is larger than READ_LIMIT."""
        raise NotImplementedError

    def _executable(self, path: str) -> bool:
        raise NotImplementedError

    @cached_property
    def _entries(self) -> dict[str, str | None]:
        return dict(sorted(self._index().items()))

    @cached_property
    def _folders(self) -> frozenset[str]:
        found = {""}
        for path in self._entries:
            parent = path.rpartition("/")[0]
            while parent not in found:
                found.add(parent)
                parent = parent.rpartition("/")[0]
        return frozenset(found)

    @cached_property
    def _links(self) -> dict[str, str]:
        return {path: target for path, target in self._entries.items() if target is not None}

    def _resolve(self, path: str) -> str | None:
        """The path with all links followed ("" is the root); None where it leads out of the tree or in circles."""
        pending = path.split("/")[::-1]
        done: list[str] = []
        hops = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return None
                done.pop()
                continue
            done.append(part)
            target = self._links.get("/".join(done))
            if target is None:
                continue
            hops += 1
            if hops > MAX_LINKS or target.startswith("/"):
                return None
            done.pop()
            pending.extend(target.split("/")[::-1])
        return "/".join(done)

    def files(self) -> tuple[str, ...]:
        """Every file and symlink, sorted."""
        return tuple(self._entries)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none, it is too large, or a link leads out of the tree."""
        if path.startswith("/"):
            return None
        real = self._resolve(path)
        if real is None or real not in self._entries:
            return None
        return self._bytes(real)

    def is_executable(self, path: str) -> bool:
        real = self._resolve(path)
        return real is not None and real in self._entries and self._executable(real)

    def text(self, path: str) -> str | None:
        """The content as text: UTF-8 (a BOM is dropped), UTF-16 with BOM, else Latin-1. None without the file."""
        data = self.read(path)
        return None if data is None else decode_text(data)

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder, links followed."""
        real = None if path.startswith("/") else self._resolve(path)
        return real is not None and (real in self._entries or real in self._folders)

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Files that match, sorted: `*` and `?` within a folder, `**` across folders (`**/a` matches `a` too)."""
        matches = _pattern(pattern).fullmatch
        return tuple(path for path in self._entries if matches(path))

    def sub(self, path: str) -> BaseSource:
        """The tree below a folder. Links from it into the rest of this tree still work."""
        real = None if path.startswith("/") else self._resolve(path)
        if real is None or real not in self._folders:
            raise SourceError(f"{path}: no such folder in the source", hint="Paths are relative to the source's root.")
        return self if not real else SubSource(self, real)


class SubSource(BaseSource):
    """A folder of another source."""

    def __init__(self, parent: BaseSource, path: str) -> None:
        self._parent = parent
        self._prefix = path.rstrip("/") + "/"

    def _index(self) -> Mapping[str, str | None]:
        files, start = self._parent.files(), len(self._prefix)
        first = bisect_left(files, self._prefix)
        inside = takewhile(lambda path: path.startswith(self._prefix), islice(files, first, None))
        return {path[start:]: None for path in inside}

    def _bytes(self, path: str) -> bytes | None:
        return self._parent.read(self._prefix + path)

    def read(self, path: str) -> bytes | None:
        return None if path.startswith("/") or self._escapes(path) else self._parent.read(self._prefix + path)

    def has(self, path: str) -> bool:
        return not path.startswith("/") and not self._escapes(path) and self._parent.has(self._prefix + path)

    def is_executable(self, path: str) -> bool:
        return not self._escapes(path) and self._parent.is_executable(self._prefix + path)

    def sub(self, path: str) -> BaseSource:
        if path.startswith("/") or self._escapes(path):
            raise SourceError(f"{path}: outside of the source")
        return self._parent.sub(self._prefix + path)

    @staticmethod
    def _escapes(path: str) -> bool:
        depth = 0
        for part in path.split("/"):
            depth += -1 if part == ".." else part not in ("", ".")
            if depth < 0:
                return True
        return False


class MemorySource(BaseSource):
    """Files given as path → content. `links`: path → target. `executable`: paths with the executable bit."""

    def __init__(
        self,
        files: Mapping[str, str | bytes],
        *,
        links: Mapping[str, str] | None = None,
        executable: Iterable[str] = (),
    ) -> None:
        self._content = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        self._targets = dict(links or {})
        self._modes = frozenset(executable)

    def _index(self) -> Mapping[str, str | None]:
        return {**dict.fromkeys(self._content), **self._targets}

    def _bytes(self, path: str) -> bytes | None:
        data = self._content[path]
        return data if len(data) <= READ_LIMIT else None

    def _executable(self, path: str) -> bool:
        return path in self._modes


class FolderSource(BaseSource):
    """A folder on disk. `only`: the files to see (what packing would send); by default all but `.git`."""

    def __init__(self, folder: Path, *, only: Iterable[str] | None = None) -> None:
        self._root = Path(folder)
        self._only = None if only is None else frozenset(only)
        if not self._root.is_dir():
            raise SourceError(f"{folder}: no such folder", hint="Give the path of the app's folder.")

    def _index(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        pending = [("", str(self._root))]
        while pending:
            prefix, folder = pending.pop()
            for entry in _scan(folder):
                path = prefix + entry.name
                if entry.is_symlink():
                    found[path] = _as_target(str(Path(entry.path).readlink()))
                elif entry.is_dir(follow_symlinks=False):
                    if entry.name != ".git":
                        pending.append((path + "/", entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found[path] = None
        return found if self._only is None else {path: found[path] for path in found if path in self._only}

    def _bytes(self, path: str) -> bytes | None:
        try:
            with (self._root / path).open("rb") as file:
                data = file.read(READ_LIMIT + 1)
        except OSError:
            return None
        return data if len(data) <= READ_LIMIT else None

    def _executable(self, path: str) -> bool:
        try:
            return bool((self._root / path).stat().st_mode & stat.S_IXUSR)
        except OSError:
            return False


class TarSource(BaseSource):
    """A tar archive, gzipped or not. Members that are no files or links, or that lie outside, are not seen."""

    def __init__(self, archive: Path) -> None:
        self._file = _unzipped(Path(archive))
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - closed by close()
            self._members = dict(_inside(self._tar))
        except (tarfile.TarError, OSError, EOFError) as error:
            self._file.close()
            raise SourceError(f"{archive}: not a readable tar archive ({error})") from error

    def close(self) -> None:
        self._tar.close()
        self._file.close()

    def __enter__(self) -> TarSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _index(self) -> Mapping[str, str | None]:
        return {path: member.linkname if member.issym() else None for path, member in self._members.items()}

    def _bytes(self, path: str) -> bytes | None:
        member = self._members[path]
        try:
            file = self._tar.extractfile(member)
        except KeyError:  # a hard link to something that is not there
            return None
        if file is None:
            return None
        with file:
            data = file.read(READ_LIMIT + 1)
        return data if len(data) <= READ_LIMIT else None

    def _executable(self, path: str) -> bool:
        return bool(self._members[path].mode & stat.S_IXUSR)


def decode_text(data: bytes) -> str:
    """Text from bytes: UTF-8 (a BOM is dropped), UTF-16 with BOM, else Latin-1."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    for token in re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", pattern):
        parts.append(_WILDCARDS.get(token) or re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


_WILDCARDS = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # a folder that may not be read: its files are not seen
        return []


def _as_target(target: str) -> str:
    return target.replace("\\", "/") if os.sep == "\\" else target


def _unzipped(archive: Path) -> IO[bytes]:
    """The plain tar, seekable: a gzipped one is unpacked into a temporary file, which is read many times."""
    try:
        file = archive.open("rb")
    except OSError as error:
        raise SourceError(f"{archive}: {error.strerror}") from error
    magic = file.read(2)
    file.seek(0)
    if magic != b"\x1f\x8b":
        return file
    plain: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by TarSource.close()
    try:
        with file, gzip.GzipFile(fileobj=file) as unzipped:
            _copy_limited(unzipped, plain)
    except BaseException as error:
        plain.close()
        if isinstance(error, OSError | EOFError | zlib.error):
            raise SourceError(f"{archive}: not a readable gzip file ({error})") from error
        raise
    plain.seek(0)
    return plain


def _copy_limited(source: IO[bytes] | gzip.GzipFile, target: IO[bytes]) -> None:
    copied = 0
    while data := source.read(1024 * 1024):
        copied += len(data)
        if copied > TAR_LIMIT:
            raise SourceError(f"the archive holds more than {TAR_LIMIT // 1024**3} GB")
        target.write(data)


def _inside(tar: tarfile.TarFile) -> Iterable[tuple[str, tarfile.TarInfo]]:
    for member in tar:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.name.startswith("/") or ".." in parts or ".git" in parts[:-1] or not parts:
            continue
        if member.isfile() or member.issym() or member.islnk():
            yield "/".join(parts), member
