"""Refusing what would fill a disk before it does, and saying so where one is full."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

from mini_core.errors import Unavailable
from mini_core.quantities import size

_FULL = {errno.ENOSPC, errno.EDQUOT}
_HINT = "Free some space (mini doctor shows what is used)"


def check(folder: Path, reserve: int, coming: int = 0, what: str = "") -> None:
    """reserve: bytes that must stay free. coming: bytes that `what` is about to take. Raises Unavailable, with the
    numbers."""
    free = shutil.disk_usage(folder).free
    if free - coming < reserve:
        needed = f", {size(coming)} are needed for {what}" if coming else ""
        raise Unavailable(
            f"The disk is nearly full: {size(free)} free at {folder}{needed}, {size(reserve)} must stay free.",
            hint=f"{_HINT}, or lower disk_reserve in server.toml.",
            code="disk-full",
        )


def full(error: BaseException) -> Unavailable | None:
    """What to say of an error whose cause is a full disk; None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        of_sqlite = isinstance(cause, sqlite3.OperationalError) and "disk is full" in str(cause)
        if of_sqlite or (isinstance(cause, OSError) and cause.errno in _FULL):
            return Unavailable("The disk is full.", hint=f"{_HINT}.", code="disk-full")
        cause = cause.__cause__ or cause.__context__
    return None
