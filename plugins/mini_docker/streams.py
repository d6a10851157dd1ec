"""Bytes to and from the engine: multiplexed output, and connections that end with their job."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from mini_core.interfaces import Job

Stream = Literal["stdout", "stderr"]
_HEADER = struct.Struct(">BxxxL")  # stream (1 stdout, 2 stderr), length: Docker's multiplexing of attach and logs


@contextlib.contextmanager
def ends_with(job: Job, close: Callable[[], None]) -> Iterator[None]:
    """Calls `close`, from another thread, when the job is cancelled or overdue before the block is left."""
    left = threading.Event()

    def watch() -> None:
        while not left.is_set():
            remaining = job.deadline - time.monotonic()
            if remaining <= 0 or job.cancelled.wait(min(remaining, 0.2)):
                if not left.is_set():
                    close()
                return

    thread = threading.Thread(target=watch, name="docker-cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()


def raw_socket(holder: Any) -> Any:
    """The socket below a streaming response or what docker-py calls a socket; None where it can't be found."""
    for path in ("_fp.fp.raw._sock", "raw._fp.fp.raw._sock", "_sock", "raw._fp.fp.channel"):
        found = holder
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return holder if hasattr(holder, "recv") else None


def unblock(holder: Any) -> None:
    """Makes whoever reads from it, in any thread, see the end."""
    sock = raw_socket(holder)
    with contextlib.suppress(OSError):
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)


def let_go(holder: Any) -> None:
    """Ends a connection for good."""
    unblock(holder)
    for item in (holder, raw_socket(holder)):
        with contextlib.suppress(Exception):
            item.close()


def receive(sock: Any, size: int = 65536) -> bytes:
    """Up to `size` bytes; b"" at the end, however it came."""
    try:
        return sock.recv(size) if hasattr(sock, "recv") else (sock.read(size) or b"")
    except (OSError, ValueError):
        return b""


def chunks(sock: Any, *, tty: bool) -> Iterator[tuple[Stream, bytes]]:
    """What a container writes, as it comes. With a terminal there is one stream and no framing."""
    buffer = bytearray()
    while data := receive(sock):
        if tty:
            yield "stdout", data
            continue
        buffer += data
        while len(buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(buffer)
            if len(buffer) < _HEADER.size + length:
                break
            yield ("stderr" if stream == 2 else "stdout"), bytes(buffer[_HEADER.size : _HEADER.size + length])
            del buffer[: _HEADER.size + length]
