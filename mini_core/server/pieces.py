"""A backup that comes in pieces: a router, ours or another in front, takes requests of a certain size only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from mini_core import disk, tarstream
from mini_core.errors import Conflict, NotFound, UsageError
from mini_core.paths import private_folder

_NAME = re.compile(r"[0-9a-f]{16,64}")


def add(folder: Path, name: str, offset: int, piece: BinaryIO, reserve: int) -> int:
    """Puts a piece where it belongs in the file; what had come from there on goes. Returns the bytes that are there
    then. Raises Conflict where a piece before it is missing, Unavailable where the disk is too full."""
    disk.check(folder.parent, reserve)
    path = _path(private_folder(folder), name)
    there = path.stat().st_size if path.exists() else 0
    if offset > there:
        raise Conflict(f"{offset - there} bytes are missing before this piece.", hint="Send them first.", code="gap")
    path.touch(0o600)
    with path.open("r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        while data := piece.read(tarstream.CHUNK):
            file.write(data)
        return file.tell()


def take(folder: Path, name: str) -> BinaryIO:
    """The whole file, which nothing but what is returned leads to any more. Raises NotFound."""
    path = _path(folder, name)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound("No such upload is here.", hint="Send the backup again.") from None
    path.unlink()
    return file


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError("The name of an upload is 16 to 64 hexadecimal digits.")
    return folder / f"{name}.backup"
