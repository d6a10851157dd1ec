"""Reading what shims log: numbered files, of which the last one grows and the first ones vanish (see `shim.Log`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mini_core.interfaces import LINES_LOST
from mini_core.types import LogLine, replace
from mini_process.folders import InstanceFolder, Record

CHUNK = 1 << 16
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds between looks at a log that does not grow


class LogReader(Iterator[LogLine]):
    """The lines from `since` on; with follow, until the instance is removed. `close` ends it from any thread."""

    def __init__(self, folder: InstanceFolder, record: Record, *, since: float, follow: bool) -> None:
        self._folder = folder
        self._record = record
        self._since = since
        self._follow = follow
        self._closed = threading.Event()
        self._iterator = self._read()

    def __next__(self) -> LogLine:
        return next(self._iterator)

    def close(self) -> None:
        self._closed.set()

    def _read(self) -> Iterator[LogLine]:
        number = 0
        while True:
            path = self._next_file(number)
            if path is None:
                if not self._follow or not self._pause(SHORTEST_PAUSE):
                    return
                continue
            lost, number = int(path.name) > number + 1, int(path.name)
            try:
                with path.open("rb", buffering=0) as file:
                    for line in self._lines(file, number):
                        parsed = self._parse(line)
                        if lost and parsed.at > self._since:
                            yield replace(parsed, source="platform", text=LINES_LOST)
                        lost = False
                        if parsed.at >= self._since:
                            yield parsed
            except FileNotFoundError:
                continue
            if self._next_file(number) is None:
                return

    def _next_file(self, number: int) -> Path | None:
        """The oldest file after that number: those before it have vanished."""
        try:
            later = [path for path in self._folder.log.iterdir() if path.name.isdigit() and int(path.name) > number]
        except FileNotFoundError:
            return None
        return min(later, key=lambda path: int(path.name), default=None)

    def _lines(self, file: BinaryIO, number: int) -> Iterator[bytes]:
        """Whole lines of one file, to its end: the next file is made only when this one is complete."""
        rest, last_look, pause = b"", False, SHORTEST_PAUSE
        while not self._closed.is_set():
            data = file.read(CHUNK)
            if data:
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
                pause = SHORTEST_PAUSE
            elif last_look:
                break
            elif not self._follow or self._next_file(number):
                last_look = True
            else:
                last_look = not self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        if rest:
            yield rest

    def _pause(self, seconds: float) -> bool:
        """Waits; False once there is nothing more to wait for."""
        return not self._closed.wait(seconds) and self._folder.exists()

    def _parse(self, line: bytes) -> LogLine:
        at, _, rest = line.partition(b" ")
        mark, _, text = rest.partition(b" ")
        return LogLine(
            at=_seconds(at),
            app=self._record.app,
            source="app",
            text=text.decode("utf-8", "replace"),
            process=f"{self._record.process}.{self._record.index}",
            instance=self._record.id,
            release=self._record.release,
            stream="stderr" if mark == b"e" else "stdout",
        )


def _seconds(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
