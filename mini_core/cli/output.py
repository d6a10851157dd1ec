"""How times, sizes and tables are written. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence


def memory(count: int) -> str:
    """512 MB, 1.5 GB: powers of 1024, as limits are given."""
    megabytes = count / 1024 / 1024
    return f"{megabytes:.0f} MB" if megabytes < 1024 else f"{megabytes / 1024:.3g} GB"


def seconds(number: float) -> str:
    """0.8 s, 40 s, 3 min, 2 h, 5 d."""
    for limit, divisor, unit in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if number < limit:
            return f"{number:.1f} s" if limit == 10 else f"{number / divisor:.0f} {unit}"
    return f"{number / 86400:.0f} d"


def age(then: float | None, now: float | None = None) -> str:
    """How long ago, "" for never."""
    return "" if then is None else seconds(max(0.0, (now or time.time()) - then))


def moment(then: float) -> str:
    """In this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns under upper-case heads; no lines at all without rows. Columns that are empty throughout are left out."""
    body = [tuple(row) for row in rows]
    if not body:
        return []
    used = [index for index in range(len(head)) if any(row[index] for row in body)]
    lines = [[cells[index] for index in used] for cells in (tuple(name.upper() for name in head), *body)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(used))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
