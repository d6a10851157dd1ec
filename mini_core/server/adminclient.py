"""The few calls over the admin socket that starting and stopping need; the client half has the rest."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mini_core.errors import MiniError, Unavailable
from mini_core.types import encode


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def answers(path: Path) -> bool:
    """Whether somebody listens on the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def call(path: Path, method: str, url: str, body: object = None, *, timeout: float | None = 30) -> Any:
    """The answer's JSON as plain data (None for 204). Raises Unavailable, and MiniError for a problem."""
    with _open(path, method, url, body, timeout) as response:
        data = response.read()
        return msgspec.json.decode(data) if data else None


def lines(path: Path, method: str, url: str, body: object = None) -> Iterator[Any]:
    """The values of an NDJSON answer; ends quietly where the server goes in the middle."""
    with _open(path, method, url, body, None) as response:
        try:
            for line in response:
                if line.strip():
                    yield msgspec.json.decode(line)
        except (OSError, http.client.HTTPException):
            return


class _open:  # noqa: N801  used like a function
    def __init__(self, path: Path, method: str, url: str, body: object, timeout: float | None) -> None:
        self._connection = UnixConnection(path, timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self._connection.request(method, url, encode(body) if body is not None else None, headers)
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(f"The platform does not answer: {error}", hint="Look at it: mini doctor") from None
        if self._response.status >= 400:
            data = self._response.read()
            self._connection.close()
            raise _problem(self._response.status, data)

    def __enter__(self) -> http.client.HTTPResponse:
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()


def _problem(status: int, data: bytes) -> MiniError:
    try:
        told = msgspec.json.decode(data)
        return MiniError(told["title"], hint=told.get("hint", ""), code=told.get("code", ""))
    except (msgspec.DecodeError, KeyError, TypeError):
        return MiniError(f"The platform answered {status}.")
