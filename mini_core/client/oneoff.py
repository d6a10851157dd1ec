"""A command on the server with this terminal's streams: what is typed goes there, what it writes comes here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from mini_core import frames
from mini_core.client.http import Client, Lost
from mini_core.errors import MiniError

HEADERS = {"Connection": "Upgrade", "Upgrade": frames.PROTOCOL, "Content-Type": "application/json"}


class Remote:
    """One upgraded connection. Sends whole frames, whichever thread they come from."""

    def __init__(self, client: Client, path: str, request: Mapping[str, Any]) -> None:
        """request: an api.OneOffRequest as plain data, its env in clear. Raises MiniError."""
        self._connection = client.open("POST", path, HEADERS, json.dumps(request).encode())
        response = self._connection.getresponse()
        if response.status != 101:
            error = client.problem(response)
            self._connection.close()
            raise error
        self._input: Any = response.fp  # may hold frames that came together with the answer
        self._socket: socket.socket = self._connection.sock
        self._socket.settimeout(None)
        self._lock = threading.Lock()

    def send(self, stream: int, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):  # the end is noticed where it is read
            self._socket.sendall(frames.pack(stream, data))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        return frames.unpack(self._input.read1)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def run_command(client: Client, path: str, request: Mapping[str, Any], *, tty: bool) -> int:
    """Runs it to its end and returns its exit code. Ctrl-C is passed on; the third one ends this side alone."""
    rows, columns = _terminal_size()
    remote = Remote(client, path, {**request, "tty": tty, "rows": rows, "columns": columns})
    try:
        with _raw_terminal(remote) if tty else _passing_signals(remote):
            threading.Thread(target=_send_input, args=(remote,), daemon=True).start()
            return _receive(remote, sys.stdout.buffer, sys.stderr.buffer)
    finally:
        remote.close()


def _receive(remote: Remote, stdout: BinaryIO, stderr: BinaryIO) -> int:
    streams = {frames.STDOUT: stdout, frames.STDERR: stderr}
    try:
        for stream, data in remote.frames():
            if stream in streams:
                streams[stream].write(data)
                streams[stream].flush()
            elif stream == frames.EXIT:
                return int(json.loads(data)["code"])
            elif stream == frames.FAILED:
                problem = json.loads(data)
                raise MiniError(problem["title"], hint=problem.get("hint", ""), code=problem.get("code", ""))
    except (OSError, frames.FrameError):
        pass
    raise Lost("The connection to the command was lost", hint="The command was ended with it. Try again.")


def _send_input(remote: Remote) -> None:
    """stdin, in a thread that ends with the process."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = sys.stdin.fileno()
        while data := os.read(descriptor, 65536):
            remote.send(frames.STDIN, data)
    remote.send(frames.STDIN, b"")


@contextlib.contextmanager
def _passing_signals(remote: Remote) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the command."""
    pressed = 0

    def passing(number: int, _: object) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 2:
            raise KeyboardInterrupt
        remote.send(frames.SIGNAL, json.dumps({"number": number}).encode())

    before = {number: signal.signal(number, passing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _raw_terminal(remote: Remote) -> Iterator[None]:
    """Every key goes to the command as it is, Ctrl-C too, and it learns of the window's size."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def resized(*_: object) -> None:
        rows, columns = _terminal_size()
        remote.send(frames.RESIZE, json.dumps({"rows": rows, "columns": columns}).encode())

    handler: Callable[..., Any] | int | None = signal.signal(signal.SIGWINCH, resized)
    tty.setraw(descriptor, termios.TCSANOW)  # keeps what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)


def _terminal_size() -> tuple[int, int]:
    """Rows and columns."""
    size = shutil.get_terminal_size()
    return size.lines, size.columns


def has_terminal() -> bool:
    """Whether both ends of a conversation are a terminal that can be put into raw mode."""
    return sys.platform != "win32" and sys.stdin.isatty() and sys.stdout.isatty()
