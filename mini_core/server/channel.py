"""waitress, taught to look at a request's key before it reads a large body.

waitress reads a body whole, to disk where it is large, and then calls the application. A source may have a
gigabyte, a backup as much as there is: who has no key must not be able to make the server read that. Bodies go to a
folder of the platform's, since the usual one for temporary files may be memory.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waitress import wasyncore
from waitress.buffers import TempfileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.utilities import Error, RequestEntityTooLarge

from mini_core import __version__, api
from mini_core.errors import Unavailable
from mini_core.paths import private_folder
from mini_core.quantities import size
from mini_core.types import encode

UNKNOWN_LIMIT = 64 * 1024
"""Bytes of body that are read from anybody."""

UNLIMITED = "/v1/restore"
"""A backup is as large as the platform."""

Allowed = Callable[[str, bool], bool]
"""Whether a key is good; and, where the second is true, good for all of the platform."""

Room = Callable[[int], None]
"""Raises Unavailable where a body of so many bytes has no room."""


class _Refusal(Error):
    """An answer of waitress's own, as a problem document."""

    def __init__(self, problem: api.Problem) -> None:
        self.code = problem.status
        self._problem = problem

    def to_response(self, ident: str | None = None) -> Any:  # noqa: ARG002  # the stubs say str where waitress wants bytes
        body = encode(self._problem)
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Mini-Version", __version__),
            ("Connection", "close"),
        ]
        return f"{self.code} {self._problem.title}", headers, body


_WRONG_KEY = api.Problem(
    status=401, title="The key is not valid here.", code="denied", hint="Set another: mini config set-api-key"
)
_NO_KEY = api.Problem(status=401, title="This needs a key.", code="denied", hint="Set it: mini config set-api-key")


def _too_large(limit: int) -> api.Problem:
    return api.Problem(
        status=413,
        title=f"The source is too large: this server takes {size(limit)}.",
        code="too-large",
        hint="Leave files out: .miniignore. Or raise upload in server.toml",
    )


class _OnDisk(TempfileBasedBuffer):
    """A body, in a file that nothing but the open descriptor leads to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def newfile(self) -> Any:
        return tempfile.TemporaryFile("w+b", dir=private_folder(self._folder))


def channel_class(allowed: Allowed, folder: Path | None = None, room: Room = lambda _: None) -> type[HTTPChannel]:
    """The channel for a server, which asks `allowed` about the key of whoever sends a large body, and then whether
    there is `room`. folder: where large bodies are kept while they are read."""

    class Parser(HTTPRequestParser):
        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            large = self.chunked or self.content_length > UNKNOWN_LIMIT
            key = _key(self.headers) if self.body_rcv is not None and large else None
            self._unlimited = self.path.startswith(UNLIMITED)  # type: ignore[attr-defined]
            if key is not None and not allowed(key, self._unlimited):
                self._refuse(_WRONG_KEY if key else _NO_KEY)
            elif key is not None:
                try:
                    room(self.content_length)
                except Unavailable as error:
                    title, status = error.message, error.http_status
                    self._refuse(api.Problem(status=status, title=title, code=error.code, hint=error.hint))
                else:
                    self._expect_much()

        def _refuse(self, problem: api.Problem) -> None:
            self.error = _Refusal(problem)
            self.body_rcv, self.content_length, self.expect_continue = None, 0, False

        def _expect_much(self) -> None:
            if folder is not None and self.body_rcv is not None:
                self.body_rcv.buf = _OnDisk(folder)  # type: ignore[assignment]
            if self._unlimited:
                self.adj = copy.copy(self.adj)
                self.adj.max_request_body_size = sys.maxsize

        def received(self, data: bytes) -> int:
            consumed = super().received(data)
            if isinstance(self.error, RequestEntityTooLarge):
                self.error = _Refusal(_too_large(self.adj.max_request_body_size))
            return int(consumed)

    class Channel(HTTPChannel):
        parser_class = Parser
        handover: Callable[[], None] | None = None
        """Called once waitress has let go of the connection, which goes on in other hands."""

        def handle_close(self) -> None:
            super().handle_close()
            handover, self.handover = self.handover, None
            if handover is not None:
                handover()
            if self.request is not None:  # cut off in its body, which may be a file
                self.request.close()

    return Channel


def end_loop(server: Any, thread: threading.Thread) -> None:
    """Closes all connections of a waitress server, and ends the thread that runs its loop.

    That thread does it, woken by the trigger. The trigger itself, which the server would close, is closed last, from
    here: a loop that is awake may get to its work before the trigger is pulled, and by then the descriptor could be
    something else's.
    """
    trigger = server.trigger

    def close() -> None:
        server._map.pop(trigger._fileno, None)
        wasyncore.dispatcher.close(server)
        wasyncore.close_all(server._map, ignore_all=True)

    trigger.pull_trigger(close)
    thread.join(5)
    trigger.close()


def _key(headers: Mapping[str, str]) -> str:
    scheme, _, credentials = headers.get("AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("X_API_KEY", "").strip()
