"""Log lines that outlive instances: kept per app in bounded segments of JSON lines, and handed to log sinks.

logs/HANDLE/000001.jsonl, 000002.jsonl, …    the highest number is written to, the lowest are dropped
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from mini_core.errors import UsageError
from mini_core.sinks import Sink
from mini_core.types import LogLine, Value, decode, encode, replace

log = logging.getLogger(__name__)

SEGMENTS = 8
"""How many files an app's lines are spread over; a full log loses an eighth at a time."""

LONGEST_LINE = 16 * 1024
"""Characters kept of one line."""


class Filter(Value):
    """Which lines are wanted: "" and 0 take all. process: a type ("web") or one of it ("web.1")."""

    process: str = ""
    source: str = ""
    since: float = 0.0
    pattern: str = ""

    def compiled(self) -> Callable[[LogLine], bool]:
        """Raises UsageError for a pattern that is no regular expression."""
        try:
            search = re.compile(self.pattern).search if self.pattern else None
        except re.error as error:
            raise UsageError(f"--grep: {error}", hint="It takes a regular expression.") from None

        def wanted(line: LogLine) -> bool:
            return (
                line.at >= self.since
                and (not self.source or line.source == self.source)
                and (not self.process or self.process in (line.process, line.process.partition(".")[0]))
                and (search is None or search(line.text) is not None)
            )

        return wanted


class AppLog:
    """The stored lines of one app. Thread-safe."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._segment = max(size // SEGMENTS, 4096)
        self._file: IO[bytes] | None = None
        self._added = threading.Condition()
        self._closed = False

    def append(self, lines: Sequence[LogLine]) -> None:
        data = b"".join(encode(line) + b"\n" for line in lines)
        with self._added:
            if self._closed:
                return
            file = self._writable(len(data))
            file.write(data)
            file.flush()
            self._added.notify_all()

    def _writable(self, size: int) -> IO[bytes]:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = self._segments()
            self._file = self._open(paths[-1] if paths else self._folder / "000001.jsonl")
        if self._file.tell() and self._file.tell() + size > self._segment:
            number = int(Path(self._file.name).stem) + 1
            self._file.close()
            self._file = self._open(self._folder / f"{number:06d}.jsonl")
            for path in self._segments()[:-SEGMENTS]:
                path.unlink(missing_ok=True)
        return self._file

    @staticmethod
    def _open(path: Path) -> IO[bytes]:
        """For appending; the half of a line that a crash left is ended, and skipped when reading."""
        file = path.open("a+b")
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        return file

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def tail(
        self, count: int, wanted: Callable[[LogLine], bool], since: float = 0.0, *, holding: str = ""
    ) -> list[LogLine]:
        """The last `count` lines that are wanted, oldest first. since: older segments are not read. holding: plain
        ASCII that stands in all of them, so that others need no decoding."""
        with self._added:
            return self._tail(count, wanted, since, holding.encode())

    def _tail(self, count: int, wanted: Callable[[LogLine], bool], since: float, holding: bytes = b"") -> list[LogLine]:
        found: deque[LogLine] = deque()
        for number, path in enumerate(reversed(self._segments())):
            old = number > 0 and path.stat().st_mtime < since  # of the newest the clock may have been set back
            if len(found) >= count or old:
                break
            lines = read_lines(path, holding=holding)
            newest = deque((line for line in lines if wanted(line)), maxlen=count - len(found))
            found.extendleft(reversed(newest))
        return list(found)

    def follow(self, count: int, wanted: Callable[[LogLine], bool], stop: Callable[[], bool]) -> Iterator[LogLine]:
        """The last lines, then those to come, until `stop` says so (asked at least every second) or the log ends."""
        with self._added:
            latest = self._tail(count, wanted, 0.0)
            path, position = self._end()
        yield from latest
        while not stop():
            with self._added:
                if self._end() == (path, position) and not self._closed:
                    self._added.wait(1.0)
                lines, path, position = self._read_from(path, position)
                ended = self._closed and not lines
            yield from (line for line in lines if wanted(line))
            if ended:
                return

    def _end(self) -> tuple[Path | None, int]:
        paths = self._segments()
        return (paths[-1], paths[-1].stat().st_size) if paths else (None, 0)

    def _read_from(self, path: Path | None, position: int) -> tuple[list[LogLine], Path | None, int]:
        lines: list[LogLine] = []
        for segment in self._segments():
            if path is None or segment.name > path.name:
                lines += read_lines(segment)
            elif segment == path:
                lines += read_lines(segment, position)
        return lines, *self._end()

    def close(self) -> None:
        with self._added:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None
            self._added.notify_all()

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def read_lines(path: Path, position: int = 0, *, holding: bytes = b"") -> list[LogLine]:
    """The lines of a segment from a position on that hold these bytes; damaged ones are left out."""
    lines = []
    try:
        with path.open("rb") as file:
            file.seek(position)
            for raw in file:
                if holding not in raw:
                    continue
                with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                    lines.append(decode(LogLine, raw))
    except FileNotFoundError:
        pass
    return lines


class LogBook:
    """All apps' logs, by handle."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._lock = threading.Lock()
        self._logs: dict[str, AppLog] = {}
        self._lost: dict[str, int] = {}
        self.sinks: tuple[Sink, ...] = ()

    def of(self, handle: str) -> AppLog:
        with self._lock:
            if handle not in self._logs:
                self._logs[handle] = AppLog(self._folder / handle, self._size)
            return self._logs[handle]

    def append(self, handle: str, lines: Sequence[LogLine]) -> None:
        """Stores redacted lines and hands them to the sinks. A full disk costs lines, never the caller, and is said
        once for all of them."""
        short = [line if len(line.text) <= LONGEST_LINE else _cut(line) for line in lines]
        try:
            self.of(handle).append(short)
        except OSError as error:
            if handle not in self._lost:
                log.warning("log lines of %s are lost: %s", handle, error)
            self._lost[handle] = self._lost.get(handle, 0) + len(short)
        else:
            if lost := self._lost.pop(handle, 0):
                log.warning("log lines of %s are stored again; %d were lost", handle, lost)
        for sink in self.sinks:
            sink.put(short)

    def last_of(self, handle: str, instance: str, since: float) -> list[LogLine]:
        """The newest stored lines of an instance, all of one time: from there on its log is to be read. since: when
        the instance was made."""
        lines = self.of(handle).tail(200, lambda line: line.instance == instance, since, holding=instance)
        return [line for line in lines if line.at == lines[-1].at]

    def remove(self, handle: str) -> None:
        self.of(handle).remove()
        with self._lock:
            self._logs.pop(handle, None)

    def close(self) -> None:
        with self._lock:
            logs = list(self._logs.values())
        for item in logs:
            item.close()
        for sink in self.sinks:
            sink.close()


def _cut(line: LogLine) -> LogLine:
    return replace(line, text=line.text[:LONGEST_LINE] + "…")
