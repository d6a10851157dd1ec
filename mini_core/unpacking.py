"""Unpacking an archive that nobody vouches for.

What keeps it inside its folder: the folder is new and private; names are checked before anything is made; files are
created exclusively and never through a link, because links are made last, once all of them are known to stay inside
when followed. What keeps it small: bytes are counted as they leave gzip, entries as they are read, and no header
may ask for more than `HEADER_LIMIT` bytes of memory.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import shutil
import stat
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from mini_core import disk
from mini_core.errors import MiniError, SourceError
from mini_core.trees import tree_digest, tree_line
from mini_core.types import Value

HEADER_LIMIT = 1024 * 1024
"""Bytes of one extended header (a long name, PAX records)."""

ENTRY_OVERHEAD = 4096
"""Bytes of headers and padding that an entry may have on average."""

CHUNK = 256 * 1024
MAX_LINKS = 40
"""Links followed for one path, as Linux does."""

_GZIP = b"\x1f\x8b"


class Unpacked(Value):
    """files: files and links. size: bytes of their content. digest: the one that `pack` gives for the same tree."""

    files: int
    size: int
    digest: str


def unpack(archive: Path, dest: Path, *, max_bytes: int, max_files: int) -> Unpacked:
    """Unpacks a tar.gz into `dest`, which must not exist, or be empty.

    max_bytes: of all files together, after unpacking. max_files: entries of any kind. Owners, setuid and other
    special bits are dropped; of the mode, only "executable" is kept. `.git` folders are left out. Raises SourceError
    naming the entry, and Unavailable when the disk is full; nothing of `dest` is left then.
    """
    if dest.exists() and any(dest.iterdir()):
        raise FileExistsError(f"{dest} is not empty")
    dest.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with archive.open("rb") as file:
            return _Unpacking(dest, max_bytes, max_files).run(file)
    except BaseException:
        shutil.rmtree(dest, ignore_errors=True)
        raise


class _Unpacking:
    def __init__(self, dest: Path, max_bytes: int, max_files: int) -> None:
        self._dest = dest
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._size = 0
        self._kinds: dict[str, str] = {}  # path → "file" or "folder"
        self._links: dict[str, str] = {}  # path → target
        self._lines: list[bytes] = []
        self._now = time.time()
        self._last = "its beginning"

    def run(self, file: IO[bytes]) -> Unpacked:
        if file.read(2) != _GZIP:
            raise SourceError("The archive is not gzip-compressed", hint="Send a tar.gz.")
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as zipped:
            try:
                self._take_all(_Reader(zipped, self._max_bytes + self._max_files * ENTRY_OVERHEAD))
            except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError, OverflowError) as error:
                detail = "cut off" if isinstance(error, EOFError) else "damaged"
                raise SourceError(f"The archive is {detail} after {self._last}", hint="Send it again.") from error
        self._make_links()
        files = sum(kind == "file" for kind in self._kinds.values()) + len(self._links)
        if not files:
            raise SourceError("The archive holds no files", hint="Send the folder of an app.")
        return Unpacked(files=files, size=self._size, digest=tree_digest([*self._lines, *self._empty_folders()]))

    def _empty_folders(self) -> Iterator[bytes]:
        """Other folders follow from what lies in them."""
        filled = {path.rpartition("/")[0] for path in (*self._kinds, *self._links)}
        for path, kind in self._kinds.items():
            if kind == "folder" and path not in filled:
                yield tree_line("folder", path)

    def _take_all(self, reader: _Reader) -> None:
        count = 0
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], reader), errors="surrogateescape", encoding="utf-8")
        while (entry := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # which would fill the memory
            count, self._last = count + 1, repr(entry.name)
            if count > self._max_files:
                raise SourceError(f"The archive has more than {self._max_files} entries", code="too-many-files")
            if entry.size < 0:
                raise ValueError("a negative size")
            with _disk_errors(entry.name):
                self._take(entry, reader)
        reader.finish()

    def _take(self, entry: tarfile.TarInfo, reader: _Reader) -> None:
        path = _checked_path(entry)
        if not path or ".git" in path.split("/"):
            return
        if entry.isdir():
            self._folder(path, entry)
            return
        if path in self._kinds or path in self._links:
            raise SourceError(f"The archive has {entry.name!r} twice")
        parent = path.rpartition("/")[0]
        if parent:
            self._folder(parent, entry)
        if entry.issym():
            self._links[path] = entry.linkname
            self._lines.append(tree_line("link", path, entry.linkname))
        elif entry.islnk():
            self._hard_link(path, entry)
        elif entry.isreg() and not entry.issparse():
            self._file(path, entry, reader.content(entry))
        else:
            kind = "a sparse file" if entry.isreg() else _KINDS.get(entry.type, "of an unknown kind")
            raise SourceError(f"The archive's entry {entry.name!r} is {kind}", hint="Leave it out: .miniignore.")

    def _folder(self, path: str, entry: tarfile.TarInfo) -> None:
        """Makes the folder and those above it. None of them may be a file or a link."""
        missing: list[str] = []
        while path and self._kinds.get(path) != "folder":
            if path in self._kinds or path in self._links:
                raise SourceError(f"The archive's entry {entry.name!r} lies below {path!r}, which is no folder")
            missing.append(path)
            path = path.rpartition("/")[0]
        for item in reversed(missing):
            if len(self._kinds) + len(self._links) > 2 * self._max_files:
                raise SourceError("The archive has too many folders", code="too-many-files")
            (self._dest / item).mkdir(mode=0o755)
            self._kinds[item] = "folder"

    def _file(self, path: str, entry: tarfile.TarInfo, content: Iterator[bytes]) -> None:
        sha, executable = hashlib.sha256(), bool(entry.mode & stat.S_IXUSR)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        target = self._dest / path
        with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
            for data in content:
                self._size += len(data)
                if self._size > self._max_bytes:
                    raise SourceError(
                        f"The archive holds more than {self._max_bytes} bytes, at {entry.name!r}", code="too-large"
                    )
                sha.update(data)
                file.write(data)
        target.chmod(0o755 if executable else 0o644)
        modified = min(max(entry.mtime, 0), self._now) if math.isfinite(entry.mtime) else self._now
        os.utime(target, (modified, modified))
        self._kinds[path] = "file"
        self._lines.append(tree_line("program" if executable else "file", path, sha.hexdigest()))

    def _hard_link(self, path: str, entry: tarfile.TarInfo) -> None:
        """A copy of the file that it names, which came before."""
        parts = [part for part in entry.linkname.split("/") if part not in ("", ".")]
        source = "/".join(parts)
        if entry.linkname.startswith("/") or self._kinds.get(source) != "file":
            raise SourceError(f"The archive's entry {entry.name!r} links to {entry.linkname!r}, which is not in it")
        original = self._dest / source
        status = original.stat()
        entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), status.st_mtime
        with original.open("rb") as file:
            self._file(path, entry, iter(lambda: file.read(CHUNK), b""))

    def _make_links(self) -> None:
        inside = self._dest.resolve()
        for path, target in self._links.items():
            self._check_link(path, target)
        for path, target in self._links.items():
            with _disk_errors(path):
                (self._dest / path).symlink_to(target)
        for path, target in self._links.items():  # once more, as the file system sees it (it may fold case)
            if not Path(os.path.realpath(self._dest / path)).is_relative_to(inside):
                raise _link_out(path, target)

    def _check_link(self, path: str, target: str) -> None:
        """Follows the link through all others. Raises SourceError where that leaves the folder at any point."""
        if not target or target.startswith("/") or "\0" in target:
            raise _link_out(path, target)
        here = path.split("/")[:-1]
        pending, followed = target.split("/")[::-1], 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    raise _link_out(path, target)
                here.pop()
                continue
            here.append(part)
            inner = self._links.get("/".join(here))
            if inner is not None:
                followed += 1
                if followed > MAX_LINKS:
                    raise SourceError(f"The archive's entry {path!r} is a link that leads in a circle")
                if inner.startswith("/"):
                    raise _link_out(path, target)
                here.pop()
                pending.extend(inner.split("/")[::-1])


_KINDS = {
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


def _link_out(path: str, target: str) -> SourceError:
    return SourceError(
        f"The archive's entry {path!r} is a link out of the source, to {target!r}", hint="Leave it out: .miniignore."
    )


def _checked_path(entry: tarfile.TarInfo) -> str:
    """The entry's path, with "/" and without "." parts; "" for the top itself. Raises SourceError."""
    name = entry.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or "\0" in entry.linkname:
        raise SourceError(f"The archive's entry {name!r} lies outside of the source")
    if not parts and not entry.isdir():
        raise SourceError(f"The archive's entry {name!r} has no name")
    return "/".join(parts)


class _disk_errors:  # noqa: N801 - reads as a statement
    """Turns errors of the file system into SourceError naming the entry, a full disk into Unavailable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, (MiniError, gzip.BadGzipFile)):
            return
        if full := disk.full(error):
            raise full from error
        raise SourceError(f"The archive's entry {self._name[:200]!r}: {error.strerror or error}") from error


class _Reader:
    """The unzipped stream as tarfile wants it: forwards only, counted, and never much at once."""

    def __init__(self, zipped: gzip.GzipFile, limit: int) -> None:
        self._zipped = zipped
        self._limit = limit
        self._at = 0
        self._stopped = False  # at a header that is no end (zeros), though tarfile takes any for one

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._at:
            raise ValueError("a step back")
        while self._at < position:
            if not self.read(min(CHUNK, position - self._at)):
                raise EOFError("the end comes too early")
        return self._at

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > HEADER_LIMIT:
            raise SourceError("The archive has a header that is too large")
        data = self._zipped.read(size)
        while len(data) < size and (more := self._zipped.read(size - len(data))):
            data += more
        self._at += len(data)
        if self._at > self._limit:
            raise SourceError("The archive is too large when unpacked", code="too-large")
        self._stopped = size == tarfile.BLOCKSIZE and any(data)
        return data

    def content(self, entry: tarfile.TarInfo) -> Iterator[bytes]:
        self.seek(entry.offset_data)
        left = entry.size
        while left > 0:
            data = self.read(min(CHUNK, left))
            if not data:
                raise EOFError("the end comes too early")
            left -= len(data)
            yield data

    def finish(self) -> None:
        """Reads to the end, so that gzip checks its sum. Raises ValueError where tarfile stopped before the end."""
        if self._stopped:
            raise ValueError("not a tar header")
        while self.read(CHUNK):
            pass
