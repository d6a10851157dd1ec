"""How many requests each app has in flight, over all workers: shared memory that needs no lock.

Every worker has a column of its own that only it writes; a total is the sum over the columns in use. The file is
sparse: 2 MiB a column, of which only touched pages exist.
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path

COLUMNS = 32
_ROWS = 1 << 20
_SIZE = COLUMNS * _ROWS * 2
_USED = COLUMNS * _ROWS
"""Cells behind the columns: one each, 1 where it is in use."""


class Counters:
    """column: this process's own; -1 only looks on (the master)."""

    def __init__(self, folder: Path, column: int = -1) -> None:
        fd = os.open(folder / "counters", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = _SIZE + mmap.PAGESIZE
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._cells = memoryview(self._map).cast("H")
        self._own = column * _ROWS
        self._starts: list[int] = []
        if column >= 0:
            self.clear(column)
            self._cells[_USED + column] = 1
        self.refresh()

    def row(self, app: str) -> int:
        return zlib.crc32(app.encode()) % _ROWS

    def set(self, row: int, count: int) -> None:
        self._cells[self._own + row] = min(count, 0xFFFF)

    def total(self, row: int) -> int:
        cells, count = self._cells, 0
        for start in self._starts:
            count += cells[start + row]
        return count

    def refresh(self) -> None:
        """Looks which columns are in use. To be called from time to time."""
        self._starts = [column * _ROWS for column in range(COLUMNS) if self._cells[_USED + column]]

    def clear(self, column: int) -> None:
        """Forgets what a worker that is gone had in flight."""
        if self._cells[_USED + column]:
            self._cells[_USED + column] = 0
            start = column * _ROWS * 2
            self._map[start : start + _ROWS * 2] = bytes(_ROWS * 2)

    def close(self) -> None:
        self._cells.release()
        self._map.close()
