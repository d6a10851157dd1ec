"""Responses of instances: their header taken apart, and the one that the client gets. No I/O."""

from __future__ import annotations

import time
from email.utils import formatdate

from mini_proxy.http1 import HOP_BY_HOP, STATUS_LINE, BadMessage, content_length, split_fields, tokens

MAX_HEAD = 131072
_HANDLED = HOP_BY_HOP | {b"content-length", b"content-type", b"date"}
_STREAMS = (b"text/event-stream", b"application/x-ndjson")


class Head:
    """status; line: what follows the version; fields: header lines to be passed on, each behind CR LF; options:
    elements of Connection.

    length: of the body, None where it is chunked or ends with the connection. stream: it goes on for as long as
    somebody listens, and each part is to arrive at once. persistent: the connection can be used again.
    """

    __slots__ = ("chunked", "dated", "fields", "length", "line", "options", "persistent", "status", "stream", "upgrade")

    def __init__(self, block: bytes) -> None:
        """block: from the status line to the empty line, which is not included. Raises BadMessage."""
        first, _, rest = block.partition(b"\r\n")
        match = STATUS_LINE.fullmatch(first)
        if not match:
            raise BadMessage("Invalid status line")
        self.status = int(match[2])
        self.line = first[9:]
        self.persistent = match[1] == b"1"
        self.length: int | None = None
        self.chunked = self.stream = self.dated = False
        self.upgrade = b""
        self.options: list[bytes] = []
        kept = []
        for name, value, line in split_fields(rest):
            if name in _HANDLED and not self._handle(name, value):
                continue
            kept.append(line)
        if self.chunked:
            self.length = None
        if any(option not in (b"close", b"keep-alive", b"upgrade") for option in self.options):
            kept = [line for line in kept if line.partition(b":")[0].lower() not in self.options]
        self.fields = b"".join([b"\r\n" + line for line in kept])

    def _handle(self, name: bytes, value: bytes) -> bool:
        """Takes note of a header; whether it is passed on as it is."""
        if name == b"content-length":
            length = content_length(value)
            if self.length is not None and self.length != length:
                raise BadMessage("Two lengths")
            self.length = length
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or self.chunked:
                raise BadMessage("Unknown transfer coding")
            self.chunked = True
        elif name == b"connection":
            self.options += tokens(value)
            if b"close" in self.options:
                self.persistent = False
            elif b"keep-alive" in self.options:
                self.persistent = True
        elif name == b"upgrade":
            self.upgrade = value
        elif name == b"date":
            self.dated = True
            return True
        elif name == b"content-type":
            self.stream = value.lower().startswith(_STREAMS)
            return True
        return False

    def bodiless(self, method: bytes) -> bool:
        """No body follows, whatever the header says of its length (RFC 9112, 6.3)."""
        return method == b"HEAD" or self.status < 200 or self.status in (204, 304)


_date = (0, b"")


def date_line() -> bytes:
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, b"\r\nDate: " + formatdate(now, usegmt=True).encode())
    return _date[1]


def client_head(head: Head, *, method: bytes, version: str, close: bool) -> tuple[bytes, bool, bool]:
    """The header for the client; whether the body is to be sent in chunks; whether the connection ends with it."""
    parts = [b"HTTP/1.1 ", head.line, head.fields]
    if not head.dated:
        parts.append(date_line())
    chunked = False
    if head.bodiless(method):
        if head.length is not None and head.status != 204:
            parts.append(b"\r\nContent-Length: %d" % head.length)
    elif head.length is not None:
        parts.append(b"\r\nContent-Length: %d" % head.length)
    elif version == "1.1":
        chunked = True
        parts.append(b"\r\nTransfer-Encoding: chunked")
    else:
        close = True
    if close:
        parts.append(b"\r\nConnection: close\r\n\r\n")
    else:
        parts.append(b"\r\n\r\n" if version == "1.1" else b"\r\nConnection: keep-alive\r\n\r\n")
    return b"".join(parts), chunked, close
