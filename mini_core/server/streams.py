"""NDJSON answers that last: one value a line, a blank line now and then as a sign of life.

Iterators of the controller wait inside `next`, so a thread of its own reads each one, and the thread that serves
the request can notice that the client has gone.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mini_core.errors import MiniError
from mini_core.types import encode

log = logging.getLogger(__name__)

BEAT = 10.0
"""Seconds between signs of life; through a router they are what shows that a client has gone."""
POLL = 1.0
"""Seconds between looks at the client's connection."""
FIRST = 0.25
"""Seconds that an answer waits for the first item, so that an error can still become a status."""

_END = object()


class Busy(MiniError):
    code, http_status = "busy", 503


class Slots:
    """How many streams are served at once, so that they never take all the threads."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    def take(self) -> None:
        if not self._free.acquire(blocking=False):
            raise Busy("Too many open streams.", hint="Close a `mini logs -f` somewhere, or try again in a moment.")

    def give_back(self) -> None:
        self._free.release()


class Pump:
    """Reads an iterator in a thread of its own, a few items ahead at most."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=256)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="stream", daemon=True).start()

    def get(self, timeout: float) -> Any:
        """The next item; raises queue.Empty, StopIteration at the end, and what the iterator raised."""
        item = self._queue.get(timeout=timeout)
        if item is _END:
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        return item

    def stop(self) -> None:
        """The reader lets go of the iterator as soon as that comes back."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:
            self._put(error)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=POLL)
                return True
            except queue.Full:
                continue
        return False


class Lines:
    """The body of an NDJSON answer (WSGI). An error after the first line ends the connection in the middle, so
    that the client knows that the answer is not whole."""

    def __init__(self, items: Iterator[Any], slots: Slots, gone: Callable[[], bool]) -> None:
        slots.take()
        self._slots, self._gone, self._closed = slots, gone, threading.Lock()
        self._pump = Pump(items)
        self._first: list[Any] = []
        self._ended = False
        try:
            self._first.append(self._pump.get(FIRST))
        except queue.Empty:
            pass
        except StopIteration:
            self._ended = True
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield b"".join(encode(item) + b"\n" for item in self._first) or b"\n"  # sends the headers
        waited = 0.0
        while not self._ended and not self._gone():
            try:
                item = self._pump.get(POLL)
            except queue.Empty:
                waited += POLL
                if waited >= BEAT:
                    waited = 0.0
                    yield b"\n"
                continue
            except StopIteration:
                return
            waited = 0.0
            yield b"\n" if item is None else encode(item) + b"\n"

    def close(self) -> None:
        if self._closed.acquire(blocking=False):
            self._pump.stop()
            self._slots.give_back()


class Bytes:
    """The body of an answer that is a file (WSGI): its first bytes are made at once, so that an error can still become
    a status; a later one ends the connection in the middle."""

    def __init__(self, chunks: Iterator[bytes], slots: Slots) -> None:
        slots.take()
        self._slots, self._chunks, self._closed = slots, chunks, threading.Lock()
        try:
            self._first = next(chunks, b"")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self._chunks

    def close(self) -> None:
        if self._closed.acquire(blocking=False):
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
            self._slots.give_back()
