"""`router.log` in the router's state folder: JSON lines, one a request, and remarks of the router's own.

Every line has `at` (seconds since the epoch), `app` ("" where none was found) and `text` (what a person reads, less
the cause). Lines about requests also have `method`, `path` (without the query, which may hold secrets), `status`
(499: the client went away), `ms`, `bytes` (of the body), `instance`, `id` (the request id that error pages show),
`client` and, where something went wrong, `cause`. Several workers append to the file, whole lines at a time; the
master renames it to `router.log.1` when it has grown too large, and the workers notice.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mini_core.locks import is_at

if TYPE_CHECKING:
    from mini_proxy.request import Request

NAME = "router.log"
MAX_PATH = 512


class Line(msgspec.Struct, omit_defaults=True):
    at: float
    app: str
    text: str
    method: str = ""
    path: str = ""
    status: int = 0
    ms: float = 0.0
    bytes: int = 0
    instance: str = ""
    id: str = ""
    client: str = ""
    cause: str = ""


class AccessLog:
    """Collects lines, and writes them when `flush` is called."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode
        self._fd = -1

    def request(
        self,
        request: Request,
        client: str,
        app: str,
        status: int,
        size: int,
        request_id: bytes,
        instance: str,
        cause: str,
    ) -> None:
        path = request.raw_path[:MAX_PATH].decode("latin-1")
        method = request.method.decode("latin-1")
        ms = (time.monotonic() - request.started) * 1000
        identity = request_id.decode("latin-1")
        text = f"{method} {path} {status} {ms:.0f}ms {size}B"
        if instance:
            text += f" {instance}"
        if cause:
            text += f" id={identity}"
        line = Line(
            at=round(time.time(), 3),
            app=app,
            text=text,
            method=method,
            path=path,
            status=status,
            ms=round(ms, 1),
            bytes=size,
            instance=instance,
            id=identity,
            client=client,
            cause=cause,
        )
        self._lines.append(self._encode(line))

    def note(self, text: str, app: str = "") -> None:
        self._lines.append(self._encode(Line(at=round(time.time(), 3), app=app, text=text)))

    def flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        with contextlib.suppress(OSError):  # a full disk must not stop the router
            self._reopen()
            os.write(self._fd, b"\n".join(lines) + b"\n")

    def _reopen(self) -> None:
        """Opens the file, or the new one after it was renamed."""
        if self._fd >= 0:
            if is_at(self._fd, self._path):
                return
            os.close(self._fd)
            self._fd = -1
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def rotate(folder: Path, size: int) -> None:
    """Keeps the file and one older one below `size` bytes each, give or take what is written in between."""
    path = folder / NAME
    with contextlib.suppress(OSError):
        if path.stat().st_size > size:
            path.replace(path.with_name(NAME + ".1"))
