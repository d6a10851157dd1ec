"""What instances write, without a gap and without a line twice.

The engine's `logs?follow` loses lines when the log file rotates under load (engines before 23), so lines are taken
from `attach`, which sees every byte, and what was written before is read from the log file. Where the two meet, a
few lines may be in both: `overlap` finds them.

A reader that hangs would block the app, so a thread of its own reads at once into a bounded queue; when that is
full, lines are dropped and read again from the log file afterwards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from mini_core.types import InstanceStatus
from mini_docker.containers import timestamp
from mini_docker.engine import Engine
from mini_docker.streams import Stream, chunks, let_go, raw_socket

LONGEST = 64 * 1024
"""Bytes of a line; longer ones are cut into several."""

QUEUE = 20_000
"""Lines that may wait for a slow reader."""

_PAUSE = 0.5
_SETTLE = 0.05
"""Seconds after which an attached reader has what was written before."""

_MARGIN = 0.25
"""Seconds before attaching in which a line may have been stamped that the attached reader got, too."""

Written = tuple[float, Stream, str]
"""When (seconds since the epoch), where, what."""


class Splitter:
    """Puts lines together from the chunks of the two streams. `at` is when a line was complete."""

    def __init__(self, take: Callable[[Written], None], clock: Callable[[], float] = time.time) -> None:
        self._take, self._clock = take, clock
        self._parts: dict[Stream, bytes] = {}

    def feed(self, stream: Stream, data: bytes) -> None:
        *whole, part = (self._parts.pop(stream, b"") + data).split(b"\n")
        for line in whole:
            self._say(stream, line)
        while len(part) > LONGEST:
            self._say(stream, part[:LONGEST])
            part = part[LONGEST:]
        if part:
            self._parts[stream] = part

    def close(self) -> None:
        for stream, part in self._parts.items():
            self._say(stream, part)
        self._parts.clear()

    def _say(self, stream: Stream, line: bytes) -> None:
        self._take((self._clock(), stream, line.rstrip(b"\r").decode("utf-8", "replace")))


class Tap:
    """A thread that reads what a running container writes from now on."""

    def __init__(self, engine: Engine, container: str, *, tty: bool) -> None:
        self._client = engine.connect()
        with engine.reached():
            self._holder = self._client.attach_socket(container, params={"stdout": 1, "stderr": 1, "stream": 1})
        sock = raw_socket(self._holder)
        with contextlib.suppress(AttributeError):
            sock.settimeout(None)
        self.overflown = False
        self.ended = False
        self._waiting: list[Written] = []
        self._news = threading.Condition()
        self._splitter = Splitter(self._put)
        threading.Thread(target=self._read, args=(sock, tty), name="docker-tap", daemon=True).start()

    def take(self, timeout: float) -> list[Written]:
        """What has come since the last time; waits for something up to `timeout` seconds."""
        with self._news:
            if not self._waiting and not self.ended:
                self._news.wait(timeout)
            taken, self._waiting = self._waiting, []
            return taken

    def restart(self) -> None:
        """Forgets what waits: it will be read from the log file."""
        with self._news:
            self._waiting, self.overflown = [], False

    def close(self) -> None:
        let_go(self._holder)
        self._client.close()

    def _read(self, sock: object, tty: bool) -> None:
        for stream, data in chunks(sock, tty=tty):
            self._splitter.feed(stream, data)
        self._splitter.close()
        with self._news:
            self.ended = True
            self._news.notify_all()

    def _put(self, line: Written) -> None:
        with self._news:
            if len(self._waiting) >= QUEUE:
                self.overflown = True
            if not self.overflown:
                self._waiting.append(line)
            self._news.notify_all()


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

    def __init__(self, engine: Engine, status: Callable[[], InstanceStatus | None], container: str, *, tty: bool):
        self._engine, self._status, self._container, self._tty = engine, status, container, tty

    def past(self, since: float) -> list[Written]:
        """What the log file has from `since` on, in the order in which it was written."""
        import docker.errors

        client = self._engine.api
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "since": f"{since:.9f}" if since else "0"}
        try:
            with self._engine.reached():
                url = client._url("/containers/{0}/logs", self._container)
                response = client._get(url, params=params, stream=True, timeout=None)
                client._raise_for_status(response)
                with contextlib.closing(response):
                    return [line for line in _stamped(response, tty=self._tty) if line[0] > since or not since]
        except docker.errors.APIError:
            return []  # removed meanwhile, or the log driver keeps nothing

    def follow(self, since: float, caught_up: threading.Event) -> Iterator[Written]:
        """From `since` on until the container is removed, through its restarts."""
        while True:
            status = self._status()
            if status is None:
                return
            running = status.state == "running"
            if running:
                caught_up.clear()
            source = self._live(since) if running else self.past(since)
            if not running:
                caught_up.set()
            for line in source:
                since = max(since, line[0])
                yield line
            if not running:
                time.sleep(_PAUSE)

    def _live(self, since: float) -> Iterator[Written]:
        """As long as the container runs; then what is left in the log file."""
        import docker.errors

        asked = time.time()
        try:
            tap = Tap(self._engine, self._container, tty=self._tty)
        except docker.errors.APIError:
            return
        try:
            yield from self._joined(tap, since, asked)
            while not tap.ended:
                for line in tap.take(_PAUSE):
                    since = line[0]
                    yield line
                if tap.overflown:
                    tap.restart()
                    yield from self._joined(tap, since, time.time())
                    since = time.time()
                status = None if tap.ended else self._status()
                if not tap.ended and (status is None or status.state != "running"):
                    yield from tap.take(_PAUSE)  # attached too late: the engine never ends that connection
                    return
            yield from tap.take(0)
        finally:
            tap.close()

    def _joined(self, tap: Tap, since: float, asked: float) -> Iterator[Written]:
        """What the log file has, then what the tap has that was not in it."""
        time.sleep(_SETTLE)
        past = self.past(since)
        live = tap.take(0)
        yield from without_overlap(past, live, asked - _MARGIN)
        yield from live


def without_overlap(past: Sequence[Written], live: Sequence[Written], since: float) -> list[Written]:
    """`past` without its last lines that `live` begins with, compared for each stream. Only lines from `since` on
    can be in both."""
    cut = {stream: _overlap([x for x in past if x[1] == stream], [x for x in live if x[1] == stream], since)
           for stream in ("stdout", "stderr")}  # fmt: skip
    kept = []
    for line in reversed(past):
        if cut[line[1]] > 0:
            cut[line[1]] -= 1
        else:
            kept.append(line)
    return kept[::-1]


def _overlap(past: Sequence[Written], live: Sequence[Written], since: float) -> int:
    """How many of the last lines of `past` are the first of `live`, or will be: where `live` lags behind, all of it
    is somewhere in `past`."""
    recent, attached = ([line[2] for line in lines if line[0] >= since] for lines in (past, live))
    for size in range(min(len(recent), len(attached)), 0, -1):
        if recent[-size:] == attached[:size]:
            return size
    for size in range(len(attached) + 1, len(recent) + 1):
        start = len(recent) - size
        if attached and recent[start : start + len(attached)] == attached:
            return size
    return 0


def _stamped(response: object, *, tty: bool) -> Iterator[Written]:
    """Lines of the engine's log endpoint, each with its time in front."""
    found: list[Written] = []
    splitter = Splitter(found.append)
    for stream, data in chunks(_Reader(response), tty=tty):
        splitter.feed(stream, data)
        yield from _read_stamps(found)
        found.clear()
    splitter.close()
    yield from _read_stamps(found)


def _read_stamps(lines: Iterable[Written]) -> Iterator[Written]:
    for at, stream, text in lines:
        stamp, _, rest = text.partition(" ")
        yield timestamp(stamp) or at, stream, rest


class _Reader:
    """A response's body as something to receive from."""

    def __init__(self, response: object) -> None:
        self._raw = response.raw  # type: ignore[attr-defined]

    def recv(self, size: int) -> bytes:
        return self._raw.read1(size) if hasattr(self._raw, "read1") else self._raw.read(size)  # type: ignore[no-any-return]
