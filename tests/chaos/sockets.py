"""A WebSocket that somebody keeps open through everything, and what became of it each time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import create_connection

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

GOING_AWAY = 1001


@dataclass
class Kept:
    """farewells: (version that answered, close code) of each connection that ended. refused: attempts that got no
    WebSocket."""

    farewells: list[tuple[str, int]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    messages: int = 0

    @property
    def abrupt(self) -> list[tuple[str, int]]:
        """Connections that were cut without the app's own goodbye."""
        return [item for item in self.farewells if item[1] != GOING_AWAY]


@contextmanager
def kept_socket(port: int, host: str) -> Iterator[Kept]:
    """Opens one, reads all that comes, and opens the next when it is closed, for as long as the block lasts."""
    kept, ending = Kept(), threading.Event()
    thread = threading.Thread(target=_keep, args=(f"ws://{host}:{port}/socket", port, kept, ending))
    thread.start()
    try:
        yield kept
    finally:
        ending.set()
        thread.join(30)


def _keep(url: str, port: int, kept: Kept, ending: threading.Event) -> None:
    while not ending.is_set():
        try:
            stream = create_connection(("127.0.0.1", port), timeout=20)
            with connect(url, sock=stream, open_timeout=20, ping_interval=None, proxy=None) as socket:
                _read(socket, kept, ending)
        except (OSError, WebSocketException) as error:
            kept.refused.append(repr(error))
            ending.wait(0.2)


def _read(socket: ClientConnection, kept: Kept, ending: threading.Event) -> None:
    version = ""
    while not ending.is_set():
        try:
            version = str(socket.recv(timeout=10))
            kept.messages += 1
        except ConnectionClosed as closed:
            kept.farewells.append((version, closed.rcvd.code if closed.rcvd else 1006))
            return
