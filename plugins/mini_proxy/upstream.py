"""Connections to instances, and what a worker knows of each instance. Never blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from mini_core.types import Target
from mini_proxy.loop import BROKEN, IN, OUT, Loop

READ = 65536
MAX_IDLE = 128
IDLE_TIMEOUT = 30.0
REFUSED_FOR = 1.0
_PENDING = frozenset((errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN))


class User(Protocol):
    """Who uses a connection."""

    def connected(self) -> None: ...

    def connect_failed(self, reason: str) -> None: ...

    def sent(self) -> None:
        """Some of the request went out."""

    def received(self, data: bytes) -> None: ...

    def ended(self, reason: str) -> None:
        """The instance closed the connection; reason: "" for an orderly end."""


class Backend:
    """An instance (or the controller), as one worker sees it.

    requests: in flight. streams: WebSockets and event streams, which a drain does not wait for. idle: connections
    that can be used again. refused_at: when it last refused a connection. routed: it is in the table.
    """

    def __init__(self, target: Target, family: int, address: Any) -> None:
        self.target, self.family, self.address = target, family, address
        self.requests: set[Any] = set()
        self.streams: set[Any] = set()
        self.idle: list[Upstream] = []
        self.refused_at = 0.0
        self.refusals = 0
        self.routed = True

    @property
    def available(self) -> bool:
        return not self.refused_at or time.monotonic() - self.refused_at > REFUSED_FOR

    def refused(self) -> None:
        self.refused_at = time.monotonic()
        self.refusals += 1

    def take_idle(self) -> Upstream | None:
        """A connection that is still good, as far as can be seen: nothing has arrived on it, not even its end."""
        while self.idle:
            upstream = self.idle.pop()
            if upstream.is_quiet():
                return upstream
            upstream.close()
        return None

    def close_idle(self, older_than: float | None = None) -> None:
        for upstream in list(self.idle):
            if older_than is None or upstream.idle_since < older_than:
                self.idle.remove(upstream)
                upstream.close()

    @property
    def forgettable(self) -> bool:
        return not (self.routed or self.requests or self.streams)


def backend_for(target: Target) -> Backend:
    if ":" in target.host:
        return Backend(target, socket.AF_INET6, (target.host, target.port))
    with contextlib.suppress(OSError):
        socket.inet_pton(socket.AF_INET, target.host)
        return Backend(target, socket.AF_INET, (target.host, target.port))
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)[0]
    return Backend(target, found[0], found[4])


def controller_backend(path: str) -> Backend:
    return Backend(Target(instance="controller", host=path, port=0), socket.AF_UNIX, path)


class Upstream:
    """One connection to an instance. reused: it served another request before. broken: it takes nothing more."""

    def __init__(self, loop: Loop, backend: Backend) -> None:
        self._loop, self.backend = loop, backend
        self.sock = socket.socket(backend.family, socket.SOCK_STREAM)
        self.user: User | None = None
        self.reused = self.broken = self.sending = self._paused = False
        self.idle_since = 0.0
        self._out: deque[bytes | memoryview] = deque()
        self._body: Callable[[], bytes] | None = None
        self._connecting = True
        self._flags = OUT

    def connect(self, user: User) -> None:
        """Begins to connect; `user.connected` or `user.connect_failed` follows, perhaps at once."""
        self.user = user
        self.sock.setblocking(False)
        if self.backend.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.sock.connect_ex(self.backend.address)
        if code in _PENDING and self.backend.family != socket.AF_UNIX:
            self._loop.watch(self.sock.fileno(), OUT, self.on_event)
        elif code:
            user.connect_failed(os.strerror(code))
        else:
            self._flags = IN
            self._loop.watch(self.sock.fileno(), IN, self.on_event)
            self._connecting = False
            user.connected()

    def _finish_connecting(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        user = self.user
        if user is None:
            self.close()
        elif code:
            user.connect_failed(os.strerror(code))
        else:
            self._connecting = False
            self._want()
            user.connected()

    def is_quiet(self) -> bool:
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    # --- sending

    def send(self, data: bytes, body: Callable[[], bytes] | None = None) -> None:
        """Sends data, then what `body` gives until that is empty."""
        self._body = body
        self.sending = True
        self._out.append(data)
        self._flush()

    def _flush(self) -> None:
        out = self._out
        try:
            while self.sending:
                if not out:
                    piece = self._body() if self._body else b""
                    if not piece:
                        self.sending, self._body = False, None
                        break
                    out.append(piece)
                data = out[0]
                count = self.sock.send(data)
                if count == len(data):
                    out.popleft()
                else:
                    out[0] = memoryview(data)[count:]
                if self.user:
                    self.user.sent()
        except BlockingIOError:
            pass
        except OSError:
            self._give_up_sending()
        self._want()

    def _give_up_sending(self) -> None:
        """The instance takes no more. It may have answered before it closed; the answer, or the end, is read next."""
        self._out.clear()
        self.sending, self._body, self.broken = False, None, True

    @property
    def backlog(self) -> int:
        return sum(len(data) for data in self._out)

    # --- receiving

    def pause(self) -> None:
        self._paused = True
        self._want()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._want()

    def _want(self) -> None:
        flags = (0 if self._paused else IN) | (OUT if self.sending else 0)
        if flags != self._flags:
            self._flags = flags
            fd = self.sock.fileno()
            if fd >= 0:
                self._loop.want(fd, flags)

    def on_event(self, flags: int) -> None:
        if self._connecting:
            self._finish_connecting()
            return
        if flags & OUT and self.sending:
            self._flush()
        if flags & (IN | BROKEN) and self.sock.fileno() >= 0:
            self._read()

    def _read(self) -> None:
        reason = ""
        try:
            data = self.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            data, reason = b"", error.strerror or str(error)
        user = self.user
        if user is None:
            with contextlib.suppress(ValueError):
                self.backend.idle.remove(self)
            self.close()
        elif data:
            user.received(data)
        else:
            user.ended(reason)

    # --- ending

    def handle_close(self) -> None:
        """Something unexpected was raised while this connection was served."""
        user = self.user
        self.close()
        if user is not None:
            user.ended("internal error")

    def release(self) -> None:
        """The request is over and the connection can be used again."""
        backend = self.backend
        self.user, self.reused = None, True
        if backend.routed and len(backend.idle) < MAX_IDLE:
            self.resume()
            self.idle_since = time.monotonic()
            backend.idle.append(self)
        else:
            self.close()

    def close(self) -> None:
        self.user = None
        fd = self.sock.fileno()
        if fd >= 0:
            self._loop.forget(fd)
            self.sock.close()
