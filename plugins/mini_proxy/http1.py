"""HTTP/1.1 messages as bytes: header blocks taken apart, chunked bodies decoded (RFC 9110, RFC 9112). No I/O.

Requests are judged strictly, since what two parsers read differently is how requests are smuggled; responses come
from apps that we run, and only what is ambiguous about their length is refused.
"""

from __future__ import annotations

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELDS = re.compile(rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*")
"""A whole block of header lines: no folding, no space before the colon, no control characters."""

REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
ABSOLUTE = re.compile(rb"(?i)https?://([^/?#]+)([/?][^#]*)?")
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::\d{1,5})?")

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
MAX_CHUNK_LINE = 4096
MAX_TRAILER = 65536


class BadMessage(Exception):
    """A message that is not HTTP/1.1, or could be read in two ways."""


Field = tuple[bytes, bytes, bytes]
"""The name in lower case, the value, and the line as it came."""


def split_fields(block: bytes) -> list[Field]:
    """Header lines, in order, from a block in which each ends with CR LF. Raises BadMessage."""
    if not FIELDS.fullmatch(block):
        raise BadMessage("Invalid header")
    fields = []
    for line in block.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            fields.append((name.lower(), value.strip(b" \t"), line))
    return fields


def tokens(value: bytes) -> list[bytes]:
    """The elements of a comma-separated list of tokens, in lower case."""
    return [item.strip(b" \t").lower() for item in value.split(b",") if item.strip(b" \t")]


def content_length(value: bytes) -> int:
    """Raises BadMessage for anything but digits."""
    if not value.isdigit() or len(value) > 18:
        raise BadMessage("Invalid Content-Length")
    return int(value)


class ChunkedDecoder:
    """Takes a chunked body apart as it arrives; extensions and trailers are dropped.

    `feed` returns the data found and how many bytes it used; `done` is set when the body has ended.
    """

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of the current chunk's data
        self._line = b""  # an unfinished control line, or the unfinished trailer
        self._state = "size"

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            newline = data.find(b"\n", at)
            stop = end if newline < 0 else newline + 1
            self._line += data[at:stop]
            at = stop
            self._check_size()
            if newline >= 0:
                line, self._line = self._line, b""
                self._control(line)
        return pieces, at

    def _check_size(self) -> None:
        if len(self._line) > MAX_CHUNK_LINE:
            raise BadMessage("Chunk header too long")

    def _control(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise BadMessage("Chunk not properly terminated")
        if self._state == "size":
            self._left = _chunk_size(line[:-2])
            self._state = "end" if self._left else "trailer"
            self._trailer = 0
        elif self._state == "end":
            if line != b"\r\n":
                raise BadMessage("Chunk not properly terminated")
            self._state = "size"
        else:
            self._trailer += len(line)
            if self._trailer > MAX_TRAILER:
                raise BadMessage("Trailer too long")
            self.done = line == b"\r\n"


_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


def _chunk_size(line: bytes) -> int:
    match = _CHUNK_SIZE.fullmatch(line)
    if not match:
        raise BadMessage("Invalid chunk size")
    return int(match[1], 16)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
