"""The file that `mini backup` writes: a tar that can be written and read as a stream.

    mini-backup.json            what it is (`Head`); first, so that anything else is refused at once
    store.db/000000 …           each part in pieces, since its size is not known beforehand: `cat store.db/*` joins
    secret.key/000000           them again
    settings/000000             server.toml
    plugins/NAME/000000         what a plugin wrote in `mini_backup`, as a tar
    volumes/APP/NAME/000000 …   a tar
    images/BUILDER/000000 …     what the builder makes of its images: what they share is in it once
    manifest.json               every part with its size and SHA-256; last, so that a file that was cut off has none

It holds the key file and so every secret of the platform.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any, Literal, TypeVar

import msgspec

from mini_core import tarstream
from mini_core.errors import ConfigError, SourceError
from mini_core.types import Value, decode, encode, replace

T = TypeVar("T")

FORMAT = 1
HEAD, MANIFEST = "mini-backup.json", "manifest.json"
PIECE = 8 * 1024 * 1024
"""Bytes of a piece: what is in memory at a time."""

LARGEST_DOCUMENT = 16 * 1024 * 1024
_PIECE = re.compile(r"(?P<part>[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*)/(?P<number>\d{6,})")


class Head(Value):
    """schema: of the store. platform: the id of the one that was backed up. created_at: seconds since the epoch."""

    format: int = FORMAT
    mini: str
    schema: int
    platform: str
    runtime: str
    created_at: float


PartKind = Literal["store", "key", "settings", "plugin", "volume", "image"]


class Part(Value):
    """app: the handle of the app that a volume belongs to. about: the volume's, plugin's or builder's name. items: the
    refs of the images, in their order."""

    name: str
    kind: PartKind
    size: int = 0
    sha256: str = ""
    app: str = ""
    about: str = ""
    items: tuple[str, ...] = ()


class Manifest(Value):
    """left_out: what could not be backed up, a line each."""

    head: Head
    apps: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    left_out: tuple[str, ...] = ()

    def of(self, kind: PartKind) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.kind == kind)


class Writer:
    """Gives the file's bytes, part by part; `begin` first, `end` last."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._parts: list[Part] = []
        self.left_out: list[str] = []

    def begin(self) -> bytes:
        return tarstream.entry(HEAD, encode(self._head))

    def part(self, part: Part, chunks: Iterable[bytes]) -> Iterator[bytes]:
        digest, size = hashlib.sha256(), 0
        for number, piece in enumerate(_pieces(chunks)):
            digest.update(piece)
            size += len(piece)
            yield tarstream.entry(f"{part.name}/{number:06}", piece)
        self._parts.append(replace(part, size=size, sha256=digest.hexdigest()))

    def end(self, apps: Iterable[str]) -> Iterator[bytes]:
        manifest = Manifest(head=self._head, apps=tuple(apps), parts=tuple(self._parts), left_out=tuple(self.left_out))
        yield tarstream.entry(MANIFEST, encode(manifest))
        yield tarstream.end()


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of the same size; one empty piece where there are none."""
    piece, first = bytearray(), True
    for chunk in chunks:
        piece += chunk
        while len(piece) >= PIECE:
            yield bytes(piece[:PIECE])
            del piece[:PIECE]
            first = False
    if piece or first:
        yield bytes(piece)


# --- reading


def describe(manifest: Manifest) -> str:
    """`Backup of 2 apps (blog, shop) by mini 0.1.0, 2026-11-24 07:00`."""
    count, names = len(manifest.apps), ", ".join(manifest.apps)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.head.created_at))
    what = f"{count} app{'' if count == 1 else 's'}{f' ({names})' if names else ''}"
    return f"Backup of {what} by mini {manifest.head.mini}, {when}"


def read_head(file: IO[bytes]) -> Head:
    """What the file, which is at its beginning, says of itself. Raises SourceError, ConfigError for a newer format."""
    with _opened(file) as tar:
        return _head(tar)


def read_parts(file: IO[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each part's name and its bytes, which are to be read before the next one. Digests are not checked."""
    with _opened(file) as tar:
        _head(tar)
        yield from _parts(tar, [])


def verify(file: IO[bytes]) -> Manifest:
    """Reads the file from its beginning to its end. Raises SourceError where it is no backup, damaged or cut off, and
    ConfigError where it has a newer format."""
    file.seek(0)
    seen: dict[str, tuple[int, str]] = {}
    last: list[bytes] = []
    with _opened(file) as tar:
        _head(tar)
        for name, chunks in _parts(tar, last):
            digest, size = hashlib.sha256(), 0
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
            seen[name] = (size, digest.hexdigest())
    file.seek(0)
    if not last:
        raise SourceError("The backup is cut off.", hint="Copy or make it again.", code="backup-damaged")
    manifest = _document(Manifest, last[0])
    if {part.name: (part.size, part.sha256) for part in manifest.parts} != seen:
        broken = next((part.name for part in manifest.parts if seen.get(part.name) != (part.size, part.sha256)), "")
        raise _damaged(f"{broken or 'one of its parts'} is not what was written")
    return manifest


class _opened:  # noqa: N801 - reads as a statement
    """The tar, read as a stream; what tarfile finds wrong with it becomes SourceError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __enter__(self) -> tarfile.TarFile:
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r|")
        except (tarfile.TarError, EOFError):
            raise _no_backup() from None
        return self._tar

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._tar.close()
        if isinstance(error, (tarfile.TarError, EOFError)):
            raise _damaged(str(error)) from None


def _head(tar: tarfile.TarFile) -> Head:
    info = tar.next()
    if info is None or info.name != HEAD:
        raise _no_backup()
    content = _content(tar, info)
    found = _document(dict[str, Any], content).get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise ConfigError(
            f"The backup was written by a newer mini (format {found}, this one knows {FORMAT}).", hint="Upgrade mini."
        )
    return _document(Head, content)


def _parts(tar: tarfile.TarFile, last: list[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Parts up to the manifest, whose bytes are put into `last`."""
    ahead: list[tarfile.TarInfo | None] = [tar.next()]

    def pieces(name: str) -> Iterator[bytes]:
        number = 0
        while (info := ahead[0]) is not None and (match := _PIECE.fullmatch(info.name)) and match["part"] == name:
            if int(match["number"]) != number or not info.isreg():
                raise _damaged(f"{info.name} is not the piece that should be there")
            content = tar.extractfile(info)
            while content is not None and (data := content.read(tarstream.CHUNK)):
                yield data
            number += 1
            tar.members.clear()  # type: ignore[attr-defined]  # which would grow with every piece
            ahead[0] = tar.next()

    while (info := ahead[0]) is not None:
        if info.name == MANIFEST:
            last.append(_content(tar, info))
            return
        match = _PIECE.fullmatch(info.name)
        if match is None or int(match["number"]) or ".." in info.name.split("/"):
            raise _damaged(f"{info.name[:100]!r} does not belong there")
        chunks = pieces(match["part"])
        yield match["part"], chunks
        for _ in chunks:
            pass  # what was not wanted


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(info) if info.isreg() and info.size <= LARGEST_DOCUMENT else None
    if content is None:
        raise _damaged(f"{info.name} cannot be read")
    return content.read()


def _document(kind: type[T], data: bytes) -> T:
    try:
        return decode(kind, data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise _damaged(str(error)) from None


def _no_backup() -> SourceError:
    return SourceError("This is no backup.", hint="mini backup FILE makes one.", code="no-backup")


def _damaged(why: str) -> SourceError:
    return SourceError(f"The backup is damaged: {why}.", hint="Copy or make it again.", code="backup-damaged")
