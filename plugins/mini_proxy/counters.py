"""How many requests each app has in flight, over all workers: shared memory that needs no lock.

Every worker has a column of its own that only it writes; a total is the sum over the columns in use. The file is
sparse: 2 MiB a column, of which only touched pages exist. A whole page gets its place on the disk, whatever the size of
its blocks, before it is first written to: on a full one, writing to memory that has none ends the process (SIGBUS).
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path

COLUMNS = 32
_ROWS = 1 << 20
_CELL = 2
"""Bytes."""
_SIZE = COLUMNS * _ROWS * _CELL
_USED = COLUMNS * _ROWS
"""Cells behind the columns: one each, 1 where it is in use."""


class Counters:
    """column: this process's own; -1 only looks on (the master). Raises OSError where the disk is full."""

    def __init__(self, folder: Path, column: int = -1) -> None:
        self._file = os.open(folder / "counters", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = _SIZE + mmap.PAGESIZE
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        for cell in (_USED, *range(0, _USED, _ROWS)):
            self._give_place(cell)
        self._map = mmap.mmap(self._file, size)
        self._cells = memoryview(self._map).cast("H")
        self._own = column * _ROWS
        self._starts: list[int] = []
        if column >= 0:
            self.clear(column)
            self._cells[_USED + column] = 1
        self.refresh()

    def row(self, app: str) -> int:
        """The app's own, or on a full disk one that apps share."""
        row = zlib.crc32(app.encode()) % _ROWS
        try:
            self._give_place(self._own + row)
        except OSError:
            return 0
        return row

    def _give_place(self, cell: int) -> None:
        if hasattr(os, "posix_fallocate"):
            start = cell * _CELL // mmap.PAGESIZE * mmap.PAGESIZE
            os.posix_fallocate(self._file, start, mmap.PAGESIZE)

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
            empty, start = bytes(mmap.PAGESIZE), column * _ROWS * _CELL
            for page in range(start, start + _ROWS * _CELL, mmap.PAGESIZE):
                if os.pread(self._file, mmap.PAGESIZE, page) != empty:
                    self._map[page : page + mmap.PAGESIZE] = empty

    def close(self) -> None:
        self._cells.release()
        self._map.close()
        os.close(self._file)
