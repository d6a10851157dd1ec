"""Commands with their streams connected: the connection stops being HTTP and carries frames both ways.

waitress reads ahead, so the connection is taken over only once waitress has let go of it; the client waits for the
101 before it sends a frame.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from flask import Response
from waitress.channel import ClientDisconnected

from mini_core import api, frames
from mini_core.errors import MiniError, Unavailable, UsageError
from mini_core.interfaces import OneOff
from mini_core.server.operation import Call
from mini_core.server.streams import Slots
from mini_core.types import encode

log = logging.getLogger(__name__)

SWITCHED = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {frames.PROTOCOL}\r\n\r\n".encode()

_NAMES = {"stdout": frames.STDOUT, "stderr": frames.STDERR}


def serve(environ: dict[str, Any], slots: Slots, handler: Callable[[Call], OneOff], call: Call) -> Response:
    """Starts the command and answers by taking the connection over.

    Raises UsageError where the request asks for no upgrade, and what the handler raises.
    """
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if environ.get("HTTP_UPGRADE", "").lower() != frames.PROTOCOL or channel is None:
        raise UsageError(f"This needs a connection with Upgrade: {frames.PROTOCOL}.", code="upgrade-required")
    slots.take()
    try:
        session = Session(*_with_connection(channel, lambda: handler(call)), slots.give_back)
    except BaseException:
        slots.give_back()
        raise
    channel.handover = session.start
    if not channel.connected:  # the client has left meanwhile: nobody else starts what ends the command
        session.start()
    return Response(_LetGo())


def _with_connection(channel: Any, start: Callable[[], OneOff]) -> tuple[OneOff, socket.socket]:
    """The command, and the connection, which is taken first: waitress forgets that of a client that leaves."""
    if channel.socket is None:
        raise Unavailable("The client has left.", code="gone")
    connection = channel.socket.dup()
    try:
        return start(), connection
    except BaseException:
        connection.close()
        raise


class _LetGo:
    """A body that makes waitress close its end of the connection without a word."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise ClientDisconnected


class Session:
    """One command and one connection. closed: called once both are over."""

    def __init__(self, command: OneOff, connection: socket.socket, closed: Callable[[], None]) -> None:
        self._command, self._connection, self._closed = command, connection, closed
        self._started = threading.Lock()

    def start(self) -> None:
        """Once, however often it is called."""
        if not self._started.acquire(blocking=False):
            return
        threading.Thread(target=self._run, name="one-off", daemon=True).start()

    def _run(self) -> None:
        reader = threading.Thread(target=self._read, name="one-off input", daemon=True)
        try:
            self._connection.setblocking(True)
            self._connection.sendall(SWITCHED)
            reader.start()
            self._write()
        except OSError:
            log.info("the client of a command has left")
        finally:
            self._command.close()
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # wakes the reader
            if reader.ident is not None:
                reader.join()
            self._connection.close()
            self._closed()

    def _write(self) -> None:
        """What the command writes, then how it ended. Raises OSError where the client is gone."""
        try:
            for name, data in self._command.output():
                self._connection.sendall(frames.pack(_NAMES[name], data))
            last = frames.pack(frames.EXIT, encode({"code": self._command.wait()}))
        except MiniError as error:
            problem = api.Problem(status=error.http_status, title=error.message, code=error.code, hint=error.hint)
            last = frames.pack(frames.FAILED, encode(problem))
        self._connection.sendall(last)

    def _read(self) -> None:
        """What the client sends, until it closes its end: then nobody waits for the command any more."""
        try:
            for stream, data in frames.unpack(self._connection.recv):
                self._take(stream, data)
        except (OSError, ValueError, KeyError, MiniError) as error:
            log.debug("input of a command: %s", error)
        self._command.close()

    def _take(self, stream: int, data: bytes) -> None:
        if stream == frames.STDIN:
            with contextlib.suppress(OSError, ValueError):  # a command that has closed its input goes on
                if data:
                    self._command.write(data)
                else:
                    self._command.close_stdin()
        elif stream == frames.RESIZE:
            size = msgspec.json.decode(data)
            self._command.resize(int(size["rows"]), int(size["columns"]))
        elif stream == frames.SIGNAL:
            self._command.signal(int(msgspec.json.decode(data)["number"]))
