"""The event loop of a worker: waitress's own dispatchers and our upstream connections on one epoll.

waitress asks every connection at every turn whether it wants to read or write. Here interest is kept by the kernel
and asked for again only when something happened to a connection (`refresh`), so that a thousand idle ones cost
nothing. `Loop` is the `map` that waitress's dispatchers put themselves into.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

IN, OUT = select.POLLIN, select.POLLOUT
BROKEN = select.POLLHUP | select.POLLERR

Handler = Callable[[int], None]
log = logging.getLogger("mini_proxy")


class _Poll:
    """`select.poll` with the interface of `select.epoll`, for systems without the latter."""

    def __init__(self) -> None:
        poll = select.poll()
        self.register, self.modify, self.unregister = poll.register, poll.modify, poll.unregister
        self._poll = poll.poll

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return self._poll(int(timeout * 1000))

    def close(self) -> None:
        pass


class Loop(dict[int, Any]):
    """Calls handlers when their descriptors are ready, and `every` functions as time passes. One thread only; other
    threads use `call_from_thread`."""

    def __init__(self) -> None:
        super().__init__()
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else _Poll()
        self._interest: dict[int, int] = {}
        self._handlers: dict[int, Handler] = {}
        self._gone: set[int] = set()
        self._timers: list[list[Any]] = []
        self.ready: deque[Callable[[], None]] = deque()
        self.stopped = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self.watch(self._wake_reader.fileno(), IN, self._woken)

    # --- waitress's side: a dispatcher registers by putting itself into the map

    def __setitem__(self, fd: int, dispatcher: Any) -> None:
        super().__setitem__(fd, dispatcher)
        self.watch(fd, IN, dispatcher.on_event if hasattr(dispatcher, "on_event") else _Adapter(self, dispatcher))

    def __delitem__(self, fd: int) -> None:
        super().__delitem__(fd)
        self.forget(fd)

    def refresh(self, dispatcher: Any) -> None:
        """Asks a dispatcher anew what it waits for."""
        fd = dispatcher._fileno
        if fd is not None:
            flags = IN if dispatcher.readable() else 0
            if dispatcher.writable() and not dispatcher.accepting:
                flags |= OUT
            self.want(fd, flags)

    # --- our side

    def watch(self, fd: int, flags: int, handler: Handler) -> None:
        self._handlers[fd] = handler
        self._interest[fd] = flags
        self._poll.register(fd, flags)

    def want(self, fd: int, flags: int) -> None:
        if self._interest.get(fd, flags) != flags:
            self._interest[fd] = flags
            self._poll.modify(fd, flags)

    def forget(self, fd: int) -> None:
        """To be called before the descriptor is closed. Events of this turn that it still has are dropped, lest they
        hit whatever gets the number next."""
        if self._handlers.pop(fd, None):
            del self._interest[fd]
            self._gone.add(fd)
            with contextlib.suppress(OSError, KeyError):
                self._poll.unregister(fd)

    def every(self, interval: float, function: Callable[[], None]) -> None:
        self._timers.append([time.monotonic() + interval, interval, function])

    def call_from_thread(self, function: Callable[[], None]) -> None:
        self.ready.append(function)
        with contextlib.suppress(BlockingIOError):
            self._wake_writer.send(b"x")

    def _woken(self, _flags: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)

    def stop(self) -> None:
        self.stopped = True

    def run(self) -> None:
        poll, handlers, gone, ready = self._poll.poll, self._handlers, self._gone, self.ready
        while not self.stopped:
            for fd, flags in poll(self._pause()):
                handler = handlers.get(fd)
                if handler is None or fd in gone:
                    continue
                try:
                    handler(flags)
                except Exception:
                    log.exception("unexpected failure in an event handler")
                    self._abandon(fd)
                while ready:
                    self._call(ready.popleft())
            gone.clear()
            while ready:
                self._call(ready.popleft())
            self._tick()

    def _pause(self) -> float:
        if not self._timers:
            return 1.0
        due: float = min(timer[0] for timer in self._timers)
        return max(0.0, due - time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        for timer in self._timers:
            if now >= timer[0]:
                timer[0] = now + timer[1]
                self._call(timer[2])

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            log.exception("unexpected failure in the loop")

    def _abandon(self, fd: int) -> None:
        """Closes what a handler failed on, so that the failure does not repeat at once."""
        owner = getattr(self._handlers.get(fd), "__self__", None)
        if owner is not None:
            with contextlib.suppress(Exception):
                owner.handle_close()

    def close(self) -> None:
        self._wake_reader.close()
        self._wake_writer.close()
        self._poll.close()


class _Adapter:
    """Events for waitress's listening sockets and its trigger."""

    def __init__(self, loop: Loop, dispatcher: Any) -> None:
        self._loop, self._dispatcher = loop, dispatcher

    def __call__(self, flags: int) -> None:
        if flags & IN:
            self._dispatcher.handle_read_event()
            self._loop.refresh(self._dispatcher)
