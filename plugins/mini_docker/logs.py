"""What instances write, without a gap and without a line twice.

Lines and their times come from the engine's log file, which alone has both. Its `follow` is not used: it loses lines
when the file rotates under load (engines before 23). Instead an attached reader, which sees every byte as it is
written, rings; then the end of the file is read, as many lines as it counted and more, from the last one that is
known. So an idle instance costs nothing, a reader that hangs never blocks the app, and who comes back with the time
of the last line goes on exactly behind it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from mini_core.interfaces import LINES_LOST
from mini_core.types import InstanceStatus
from mini_docker.containers import timestamp
from mini_docker.engine import Engine
from mini_docker.streams import Stream, chunks, let_go, raw_socket

LONGEST = 64 * 1024
"""Bytes of a line; longer ones are cut into several."""

_PAUSE = 0.5
_GATHER = 0.05
"""Seconds between two readings of the file, at least."""

_AFTERWARDS = (0.3, 2.0)
"""Seconds after the last sign of output at which the file is read again: the engine writes to it a little later."""

_SLACK = 100
"""Lines that are read besides those that were counted."""

_MOST = 100_000
"""Lines from the end that are asked for, before it is the whole file."""


@dataclass(frozen=True)
class Written:
    """A line. mark: the engine's time of it as text, which orders lines to the nanosecond; at: the same in seconds
    since the epoch. lost: not a line of its own, lines are missing before this one."""

    mark: str
    at: float
    stream: Stream
    text: str
    lost: bool = False


class Bell:
    """A thread that counts the lines which a running container writes from now on, and rings."""

    def __init__(self, engine: Engine, container: str, *, tty: bool) -> None:
        self._client = engine.connect()
        with engine.reached():
            self._holder = self._client.attach_socket(container, params={"stdout": 1, "stderr": 1, "stream": 1})
        sock = raw_socket(self._holder)
        with contextlib.suppress(AttributeError):
            sock.settimeout(None)
        self.ended = False
        self._count = 0
        self._rung = threading.Event()
        threading.Thread(target=self._read, args=(sock, tty), name="docker-bell", daemon=True).start()

    def wait(self, timeout: float) -> bool:
        """Whether something was written, or it ended, within `timeout` seconds."""
        return self._rung.wait(timeout)

    def take(self) -> int:
        """How many lines were written since the last time."""
        self._rung.clear()
        taken, self._count = self._count, 0
        return taken

    def close(self) -> None:
        let_go(self._holder)
        self._client.close()

    def _read(self, sock: Any, tty: bool) -> None:
        for _, data in chunks(sock, tty=tty):
            self._count += data.count(b"\n")
            self._rung.set()
        self.ended = True
        self._rung.set()


class Followers:
    """Who follows which container in this process, so that one is removed only after they have read its last words."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._caught_up: dict[str, list[threading.Event]] = {}

    @contextlib.contextmanager
    def one(self, container: str) -> Iterator[threading.Event]:
        """An event for the follower to set while it has all that an ended container wrote."""
        event = threading.Event()
        with self._lock:
            self._caught_up.setdefault(container, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                self._caught_up[container].remove(event)
                if not self._caught_up[container]:
                    del self._caught_up[container]

    def wait(self, container: str, timeout: float) -> None:
        """Until all of the container's followers have everything, or `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        with self._lock:
            events = tuple(self._caught_up.get(container, ()))
        for event in events:
            event.wait(max(deadline - time.monotonic(), 0))


class Logs:
    """status: an instance's state, or None once it is removed."""

    def __init__(
        self, engine: Engine, status: Callable[[], InstanceStatus | None], container: str, *, tty: bool
    ) -> None:
        self._engine, self._status, self._container, self._tty = engine, status, container, tty

    def past(self, since: float = 0.0) -> list[Written]:
        """What the log file has after `since`, in the order in which it was written."""
        return [line for line in self._file(since, None) if line.at > since]

    def follow(self, since: float, caught_up: threading.Event) -> Iterator[Written]:
        """From `since` on until the container is removed, through its restarts."""
        reading = _Reading(self, since)
        while True:
            status = self._status()
            if status is None:
                return
            if status.state == "running":
                caught_up.clear()
                yield from self._while_running(reading)
                continue
            lines = list(reading.new(None))
            caught_up.set()
            yield from lines
            time.sleep(_PAUSE)

    def _while_running(self, reading: _Reading) -> Iterator[Written]:
        import docker.errors

        try:
            bell = Bell(self._engine, self._container, tty=self._tty)
        except docker.errors.APIError:
            return  # it ended, or is gone
        try:
            yield from reading.new(None)
            while not bell.ended:
                if bell.wait(_AFTERWARDS[-1]):
                    yield from self._written(reading, bell)
                elif (status := self._status()) is None or status.state != "running":
                    return  # attached too late: the engine never ends such a connection
        finally:
            bell.close()

    def _written(self, reading: _Reading, bell: Bell) -> Iterator[Written]:
        """What was written until it rings no more."""
        counted = bell.take()
        time.sleep(_GATHER)
        counted += bell.take()
        yield from reading.new(counted)
        for pause in _AFTERWARDS:
            if bell.wait(pause):
                return
            yield from reading.new(counted)

    def _file(self, since: float, tail: int | None) -> Generator[Written, None, None]:
        """Lines from shortly before `since` on, the last `tail` of them."""
        import docker.errors

        client = self._engine.api
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "since": f"{max(since - 0.001, 0):.6f}"}
        params["tail"] = tail if tail is not None else "all"
        try:
            with self._engine.reached():
                url = client._url("/containers/{0}/logs", self._container)
                response = client._get(url, params=params, stream=True, timeout=None)
                client._raise_for_status(response)
                with contextlib.closing(response):
                    yield from lines(chunks(_Body(response), tty=self._tty), tty=self._tty)
        except docker.errors.APIError:
            return  # removed meanwhile, or the log driver keeps nothing


class _Reading:
    """How far a follower has come."""

    def __init__(self, logs: Logs, since: float) -> None:
        self._logs, self._since, self._mark = logs, since, ""

    def new(self, expected: int | None) -> Iterator[Written]:
        """What is in the file behind the last line read. expected: about how many lines; None: any number. Not even
        the last line read is there: then there may be more before the first one, or those were lost."""
        tail = None if expected is None or not self._mark else expected * 2 + _SLACK
        found = self._logs._file(self._since, tail)
        first = next(found, None)
        while tail is not None and first and first.mark > self._mark:
            found.close()
            tail = tail * 8 if tail < _MOST else None
            found = self._logs._file(self._since, tail)
            first = next(found, None)
        if first and self._mark and first.mark > self._mark:
            yield replace(first, text=LINES_LOST, lost=True)
        mark, since = self._mark, self._since
        for line in chain((first,) if first else (), found):
            if line.mark > self._mark if self._mark else line.at > self._since:
                yield line
                mark, since = line.mark, line.at
        self._mark, self._since = mark, since


def lines(frames: Iterator[tuple[Stream, bytes]], *, tty: bool) -> Iterator[Written]:
    """The engine's log frames, each `TIME TEXT`, as lines. A long line comes in several frames, of which only the
    last ends it; with a terminal there are no frames, only lines."""
    parts: dict[Stream, bytes] = {}
    for stream, frame in _lines_as_frames(frames) if tty else frames:
        stamp, _, text = frame.partition(b" ")
        text = parts.pop(stream, b"") + text
        if text.endswith(b"\n") or len(text) >= LONGEST or tty:
            yield _written(stamp.decode("ascii", "replace"), stream, text)
        else:
            parts[stream] = text
            last = stamp
    for stream, text in parts.items():
        yield _written(last.decode("ascii", "replace"), stream, text)


def _lines_as_frames(frames: Iterator[tuple[Stream, bytes]]) -> Iterator[tuple[Stream, bytes]]:
    rest = b""
    for stream, data in frames:
        *whole, rest = (rest + data).split(b"\n")
        yield from ((stream, line) for line in whole)
    if rest:
        yield "stdout", rest


def _written(stamp: str, stream: Stream, text: bytes) -> Written:
    shown = text.removesuffix(b"\n").rstrip(b"\r").decode("utf-8", "replace")
    return Written(mark=_sortable(stamp), at=timestamp(stamp) or 0.0, stream=stream, text=shown)


def _sortable(stamp: str) -> str:
    """RFC 3339 with nanoseconds, in UTC: sorts as text once every fraction has nine digits."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


class _Body:
    """A response's body as something to receive from."""

    def __init__(self, response: Any) -> None:
        self._raw = response.raw

    def recv(self, size: int) -> bytes:
        data: bytes = self._raw.read1(size) if hasattr(self._raw, "read1") else self._raw.read(size)
        return data
