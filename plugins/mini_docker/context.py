"""What is sent to the engine: a tar of the source and of mini's own files.

Generated builds get the source below `src/` and mini's files below `mini/` (the Dockerfile, nginx's configuration,
the build-time secrets). The repository's own Dockerfile gets the source as it is, less what `.dockerignore`, or
`<Dockerfile>.dockerignore`, leaves out: the engine itself reads that only for contexts that the docker command sends.
"""

from __future__ import annotations

import io
import shlex
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from mini_core.types import Secret

SPOOL = 16 * 1024 * 1024
"""Bytes of a context that are kept in memory before it goes to disk."""


def generated(source: Path, ignored: Iterable[str], own: Mapping[str, str]) -> BinaryIO:
    """own: mini's files, path → text."""
    target = _spooled()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in own.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data := text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(data))
        tar.addfile(_folder("src"))
        _add(tar, source, _included(source, ignored, ""), "src/")
    target.seek(0)
    return target


def as_it_is(source: Path, dockerfile: str) -> BinaryIO:
    """The source for its own Dockerfile, which is always sent."""
    target = _spooled()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_folder("."))  # BuildKit knows a tar by its first header, which must be a plain one
        _add(tar, source, _included(source, _dockerignore(source, dockerfile), dockerfile), "")
    target.seek(0)
    return target


def env_file(env: Mapping[str, Secret]) -> str:
    """Lines for a shell to read."""
    return "".join(f"{name}={shlex.quote(secret.reveal())}\n" for name, secret in sorted(env.items()))


def _spooled() -> BinaryIO:
    return tempfile.SpooledTemporaryFile(max_size=SPOOL)  # type: ignore[return-value]


def _dockerignore(source: Path, dockerfile: str) -> list[str]:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = source / name
        if path.is_file():
            lines = (line.strip() for line in path.read_text("utf-8", "replace").lstrip("\ufeff").splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    return []


def _included(source: Path, ignored: Iterable[str], dockerfile: str) -> list[str]:
    from docker.utils.build import exclude_paths

    return sorted(exclude_paths(str(source), list(ignored), dockerfile=dockerfile or "Dockerfile"))


def _folder(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _add(tar: tarfile.TarFile, source: Path, names: Iterable[str], prefix: str) -> None:
    """Owned by root, with the source's modes; sockets and devices are left out."""
    for name in names:
        path = source / name
        found = path.lstat()
        entry = tarfile.TarInfo(prefix + name)
        entry.mode, entry.mtime = stat.S_IMODE(found.st_mode) | stat.S_IRUSR, int(found.st_mtime)
        if stat.S_ISREG(found.st_mode):
            with path.open("rb") as content:
                entry.size = found.st_size
                tar.addfile(entry, content)
        elif stat.S_ISLNK(found.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
            tar.addfile(entry)
        elif stat.S_ISDIR(found.st_mode):
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
