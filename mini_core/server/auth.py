"""Who asks: the key of a request, or the local user behind the admin socket."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from flask import Request
from werkzeug.datastructures import Headers

from mini_core import api
from mini_core.errors import Denied, MiniError
from mini_core.server.operation import Caller


class TooManyRequests(MiniError):
    code, http_status = "too-many-requests", 429


class Attempts:
    """Failed attempts per address in the last minute. A right key always passes; wrong ones are refused unread
    once there were `limit` of them, so that trying keys is slow and fills no log."""

    def __init__(self, limit: int = 20, window: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._window, self._clock = limit, window, clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def failed(self, address: str) -> None:
        """Counts one. Raises TooManyRequests when it is one too many."""
        now = self._clock()
        with self._lock:
            times = self._failed.setdefault(address, deque(maxlen=self._limit + 1))
            self._failed.move_to_end(address)
            if len(self._failed) > 10_000:
                self._failed.popitem(last=False)
            while times and times[0] < now - self._window:
                times.popleft()
            times.append(now)
            if len(times) > self._limit:
                raise TooManyRequests("Too many wrong keys from this address.", hint="Try again in a minute.")


class KeyCheck:
    """The caller of a request that came through the router. Raises Denied."""

    def __init__(self, authenticate: Callable[[str], api.KeyInfo], attempts: Attempts | None = None) -> None:
        self._authenticate = authenticate
        self._attempts = attempts or Attempts()

    def __call__(self, request: Request) -> Caller:
        key = key_of(request.headers)
        if not key:
            raise Denied("This needs a key.", hint="Set it: mini config set-api-key")
        try:
            info = self._authenticate(key)
        except Denied:
            self._attempts.failed(client_address(request))
            raise
        return Caller(name=info.name, app=info.app)


def local_caller(request: Request) -> Caller:
    """The caller behind the admin socket, whose permissions are the check: the user's name, or "local" for the
    user that the server runs as."""
    channel = getattr(request.environ.get("waitress.client_disconnected"), "__self__", None)
    return Caller(name=peer_name(getattr(channel, "socket", None)), local=True)


def peer_name(peer: Any) -> str:
    if peer is None or sys.platform != "linux":
        return "local"
    import pwd

    try:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid = struct.unpack("3i", credentials)[1]
        return "local" if uid == os.getuid() else pwd.getpwuid(uid).pw_name
    except (OSError, KeyError):
        return "local"


def key_of(headers: Headers) -> str:
    """The key in `Authorization: Bearer KEY` (RFC 6750) or `X-API-Key: KEY`; "" without one."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("X-API-Key", "").strip()


def client_address(request: Request) -> str:
    """The address that the router saw: the last entry, which it wrote itself."""
    return request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or "local"
