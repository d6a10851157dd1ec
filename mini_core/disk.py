"""Refusing what would fill a disk, before it does."""

from __future__ import annotations

import shutil
from pathlib import Path

from mini_core.errors import Unavailable


def check(folder: Path, reserve: int, coming: int = 0, what: str = "") -> None:
    """reserve: bytes that must stay free. coming: bytes that `what` is about to take. Raises Unavailable, with the
    numbers."""
    free = shutil.disk_usage(folder).free
    if free - coming < reserve:
        needed = f", {in_words(coming)} are needed for {what}" if coming else ""
        raise Unavailable(
            f"The disk is nearly full: {in_words(free)} free at {folder}{needed}, {in_words(reserve)} must stay free.",
            hint="Free some space (mini doctor shows what is used), or lower disk_reserve in server.toml.",
            code="disk-full",
        )


def in_words(count: int) -> str:
    """Bytes: "512 MB", "1.5 GB"."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
