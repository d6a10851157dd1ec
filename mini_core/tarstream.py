"""Folders as tar streams, and back: neither is ever in memory or on disk as a whole.

Used for volumes, prepared folders and backups. The folder may be in use while it is packed.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, cast

from mini_core.errors import SourceError

CHUNK = 128 * 1024


def pack(root: Path) -> Iterator[bytes]:
    """The folder's content as a tar, with names below "." and modes, owners, times and links as they are.

    A file that grows meanwhile is cut at its size of before, one that shrinks is filled up with zeros, one that goes
    is left out, and so are sockets. Raises FileNotFoundError where there is no such folder.
    """
    return pack_all({".": root})


def pack_all(roots: Mapping[str, Path]) -> Iterator[bytes]:
    """The same of several folders, each below a name of its own."""
    with tarfile.TarFile(fileobj=io.BytesIO(), mode="w") as maker:
        for top, root in roots.items():
            yield _header(_info(maker, root, top))
            for folder, names, files in os.walk(root):
                for name in sorted((*names, *files)):
                    path = Path(folder, name)
                    yield from _entry(maker, path, f"{top}/{path.relative_to(root).as_posix()}")
    yield end()


def size(root: Path) -> int:
    """Bytes that `pack` would give, about."""
    paths = (Path(folder, name) for folder, _, files in os.walk(root) for name in files)
    return sum(path.lstat().st_size + tarfile.BLOCKSIZE for path in paths if not path.is_socket())


def entry(name: str, content: bytes) -> bytes:
    """A whole file of a tar, for its owner alone."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o600
    return _header(info) + content + _padding(info.size)


def end() -> bytes:
    """What every tar ends with."""
    return bytes(2 * tarfile.BLOCKSIZE)


def unpack(chunks: Iterable[bytes], root: Path) -> None:
    """Makes the folder from such a stream. Raises SourceError for an entry that would lie outside of it, or that is
    no file, folder or link, and for a stream that is cut off."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(fileobj=cast(IO[bytes], Reader(chunks)), mode="r|") as tar:
            for info in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # which would grow with every entry
                _check(info, root)
                if info.isdir():
                    (root / info.name).mkdir(mode=0o700, parents=True, exist_ok=True)
                    folders.append(info)
                else:
                    _extract(tar, info, root)
            for info in reversed(folders):  # now, so that those without write permission could be filled
                _set_attributes(root / info.name, info)
    except tarfile.TarError as error:
        raise SourceError(f"The stream of {root.name} is damaged: {error}.", code="damaged") from None


def _extract(tar: tarfile.TarFile, info: tarfile.TarInfo, root: Path) -> None:
    path = root / info.name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if info.issym():
        path.symlink_to(info.linkname)
        return
    content = tar.extractfile(info)
    assert content is not None
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        while data := content.read(CHUNK):
            file.write(data)
    _set_attributes(path, info)


def _set_attributes(path: Path, info: tarfile.TarInfo) -> None:
    if os.geteuid() == 0:
        os.chown(path, info.uid, info.gid)
    path.chmod(info.mode & 0o7777)
    os.utime(path, (info.mtime, info.mtime))


def _check(info: tarfile.TarInfo, root: Path) -> None:
    name = PurePosixPath(info.name)
    inside = not name.is_absolute() and ".." not in name.parts
    parent = Path(os.path.realpath(root / name.parent)) if inside else Path("/")
    if not inside or not parent.is_relative_to(os.path.realpath(root)):
        raise SourceError(f"{info.name!r} would lie outside of its folder.", code="damaged")
    if not (info.isreg() or info.isdir() or info.issym()):
        raise SourceError(f"{info.name!r} is no file, folder or link.", code="damaged")


class Reader:
    """Chunks as something that can be read from, for tarfile. It reads no further than it is asked to."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        found = bytearray()
        while size < 0 or len(found) < size:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            wanted = len(self._rest) if size < 0 else size - len(found)
            found += self._rest[:wanted]
            self._rest = self._rest[wanted:]
        return bytes(found)


def _info(maker: tarfile.TarFile, path: Path, name: str) -> tarfile.TarInfo | None:
    maker.inodes = {}  # type: ignore[attr-defined]  # every name of a file gets its content
    info = maker.gettarinfo(path, name)
    return info if info is not None and (info.isreg() or info.isdir() or info.issym()) else None


def _entry(maker: tarfile.TarFile, path: Path, name: str) -> Iterator[bytes]:
    try:
        info = _info(maker, path, name)
        if info is None:
            return
        if not info.isreg():
            yield _header(info)
            return
        with path.open("rb") as file:
            yield _header(info)
            yield from _exactly(file, info.size)
    except FileNotFoundError:
        return


def _exactly(file: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        data = file.read(min(CHUNK, left)) or bytes(min(CHUNK, left))
        left -= len(data)
        yield data
    yield _padding(size)


def _header(info: tarfile.TarInfo | None) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") if info is not None else b""


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
