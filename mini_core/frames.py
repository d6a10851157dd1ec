"""Several streams over one connection, for commands whose streams a user holds (`mini run`, `mini exec`).

A request `POST /v1/apps/APP/run` or `exec` with `Connection: Upgrade` and `Upgrade: mini-stream` is answered with
101; from then on both sides send frames: one byte that says what it is, four bytes of length (big-endian), and that
many bytes. The client sends no frame before it has the 101.

client → server    STDIN bytes, empty at their end; RESIZE {"rows", "columns"}; SIGNAL {"number"}
server → client    STDOUT and STDERR bytes; EXIT {"code"}, the last one; FAILED, a problem document, instead of it
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

PROTOCOL = "mini-stream"

STDIN, STDOUT, STDERR, EXIT, RESIZE, SIGNAL, FAILED = range(7)

LIMIT = 1024 * 1024
"""Bytes of one frame; longer data goes into several."""

_HEAD = struct.Struct(">BI")


class FrameError(ValueError):
    """What came is no frame, or the connection ended inside one."""


def pack(stream: int, data: bytes = b"") -> bytes:
    """The data as frames of one stream."""
    if len(data) <= LIMIT:
        return _HEAD.pack(stream, len(data)) + data
    parts = (data[start : start + LIMIT] for start in range(0, len(data), LIMIT))
    return b"".join(_HEAD.pack(stream, len(part)) + part for part in parts)


def unpack(receive: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Frames until the connection ends. receive: gives up to that many bytes, b"" at the end, as `socket.recv`.

    Raises FrameError, and what `receive` raises.
    """
    rest = b""
    while True:
        while len(rest) < _HEAD.size:
            data = receive(65536)
            if not data:
                if rest:
                    raise FrameError("the connection ended inside a frame")
                return
            rest += data
        stream, size = _HEAD.unpack_from(rest)
        if size > LIMIT:
            raise FrameError(f"a frame of {size} bytes")
        parts, have = [rest[_HEAD.size :]], len(rest) - _HEAD.size
        while have < size:
            data = receive(65536)
            if not data:
                raise FrameError("the connection ended inside a frame")
            parts.append(data)
            have += len(data)
        body = b"".join(parts)
        rest = body[size:]
        yield stream, body[:size]
