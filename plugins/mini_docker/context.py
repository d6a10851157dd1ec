"""What a build may read: the source, less what is ignored, and mini's own files.

BuildKit asks for what it needs (`session`). The classic builder gets all of it as a tar: for generated builds with the
source below `src/` and mini's files below `mini/`, for the repository's own Dockerfile as it is, less what
`.dockerignore`, or `<Dockerfile>.dockerignore`, leaves out: the engine itself reads that only for contexts that the
docker command sends.
"""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mini_core.types import Secret, Value

_SECOND = 10**9

SPOOL = 16 * 1024 * 1024
"""Bytes of a context that are kept in memory before it goes to disk."""


class Entry(NamedTuple):
    """A file, folder or link of a context, owned by root. mode: as in stat(2), with the kind. modified: nanoseconds.
    The contents are at `source`, or are `data`."""

    path: str
    mode: int
    modified: int = 0
    size: int = 0
    target: str = ""
    source: Path | None = None
    data: bytes = b""

    def open(self) -> BinaryIO:
        return self.source.open("rb") if self.source else io.BytesIO(self.data)


class Files(Value):
    """All that a build may read. entries: folders before what they hold. secrets: by the ids that mounts give."""

    entries: Sequence[Entry]
    dockerfile: Entry
    secrets: Mapping[str, bytes]


def own(path: str, text: str) -> Entry:
    """One of mini's own."""
    data = text.encode()
    return Entry(path, stat.S_IFREG | 0o644, _fraction(io.BytesIO(data)), len(data), data=data)


def env_file(env: Mapping[str, Secret]) -> bytes:
    """Lines for a shell to read."""
    return "".join(f"{name}={shlex.quote(secret.reveal())}\n" for name, secret in sorted(env.items())).encode()


def secret_id(data: bytes) -> str:
    """Another for other contents: BuildKit looks at no secret's contents, but runs a step again whose command has
    changed, which this is part of. So short that nothing can be told from it."""
    return f"build.env-{hashlib.sha256(data).hexdigest()[:8]}"


def source_entries(source: Path, ignored: Iterable[str], *, below: str = "") -> list[Entry]:
    """The source's, less what is ignored, in the folder `below`. Sockets and devices are left out."""
    from docker.utils.build import exclude_paths

    names = (name.replace(os.sep, "/") for name in exclude_paths(str(source), list(ignored)))
    folder = [Entry(below, stat.S_IFDIR | 0o755)] if below else []
    return with_parents((*folder, *(entry for name in names if (entry := _entry(source, name, below)))))


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """With the folders that they are in, in order."""
    found = {entry.path: entry for entry in entries}
    for path in list(found):
        while (path := path.rpartition("/")[0]) and path not in found:
            found[path] = Entry(path, stat.S_IFDIR | 0o755)
    return sorted(found.values(), key=lambda entry: entry.path.split("/"))  # a folder before what it holds


def as_tar(files: Files) -> BinaryIO:
    """The entries and the Dockerfile, for the classic builder."""
    target = _spooled()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in (*files.entries, files.dockerfile):
            info = tarfile.TarInfo(entry.path)
            info.mode, info.mtime = stat.S_IMODE(entry.mode), entry.modified // _SECOND
            if stat.S_ISLNK(entry.mode):
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
            elif stat.S_ISDIR(entry.mode):
                info.type = tarfile.DIRTYPE
            else:
                info.size = entry.size
            with entry.open() as content:
                tar.addfile(info, content)
    target.seek(0)
    return target


def dockerignore(source: Path, dockerfile: str) -> list[str]:
    """The patterns that the repository gives for its own Dockerfile."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = source / name
        if path.is_file():
            lines = (line.strip() for line in path.read_text("utf-8", "replace").lstrip("\ufeff").splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    return []


def _spooled() -> BinaryIO:
    return tempfile.SpooledTemporaryFile(max_size=SPOOL)  # type: ignore[return-value]


def _entry(source: Path, name: str, below: str) -> Entry | None:
    local, path = source / name, f"{below}/{name}" if below else name
    found = local.lstat()
    mode, modified = found.st_mode | stat.S_IRUSR, int(found.st_mtime) * _SECOND
    if stat.S_ISREG(mode):
        with local.open("rb") as content:
            modified += _fraction(content)
        return Entry(path, mode, modified, found.st_size, source=local)
    if stat.S_ISLNK(mode):
        target = str(local.readlink())
        return Entry(path, mode, modified, len(target), target=target)
    return Entry(path, mode, modified) if stat.S_ISDIR(mode) else None


def _fraction(content: io.BufferedReader | io.BytesIO) -> int:
    """Nanoseconds that are told from the contents. BuildKit takes a file of the same size and time for the same file,
    and what was deployed twice within a second may be neither."""
    return int.from_bytes(hashlib.file_digest(content, "blake2b").digest()[:8]) % _SECOND
