"""Requests as waitress reads them, judged strictly and kept as they came.

waitress's own parser merges repeated headers and forgets their order and case, which a proxy must not. This one
fills in what waitress needs and keeps the lines. What is ambiguous is refused with 400: two Host headers,
Content-Length beside Transfer-Encoding, folded lines, a target whose authority is not the Host header's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge, RequestHeaderFieldsTooLarge

from mini_proxy import http1
from mini_proxy.http1 import BadMessage, ChunkedDecoder, Field
from mini_proxy.problems import Problem

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
_UPGRADES = {b"websocket": b"GET", b"mini-stream": b"POST"}
"""Protocols that are let through, with their method: WebSockets, and the platform's own for `mini run`."""
_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"))
_REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))


class NotImplementedHere(Error):
    code, reason = 501, "Not Implemented"


class VersionNotSupported(Error):
    code, reason = 505, "HTTP Version Not Supported"


class ExpectationFailed(Error):
    code, reason = 417, "Expectation Failed"


class MethodNotAllowed(Error):
    code, reason = 405, "Method Not Allowed"


class _Refused(Exception):
    def __init__(self, error: Error) -> None:
        self.error = error


class ChunkedBody:
    """waitress's interface of a body's receiver, on our decoder (waitress's own lets control lines grow)."""

    def __init__(self, buffer: OverflowableBuffer) -> None:
        self._buffer, self._decoder = buffer, ChunkedDecoder()
        self.completed = False
        self.error: Error | None = None
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def received(self, data: bytes) -> int:
        try:
            pieces, used = self._decoder.feed(data)
        except BadMessage as error:
            self.error = BadRequest(str(error))
            return len(data)
        for piece in pieces:
            self._buffer.append(piece)
            self.size += len(piece)
        self.completed = self._decoder.done
        return used

    def getfile(self) -> Any:
        return self._buffer.getfile()

    def getbuf(self) -> OverflowableBuffer:
        return self._buffer


class Request(HTTPRequestParser):
    """One request, fed by waitress. What the router adds:

    method, target (in origin form), fields; host: the Host header's value; upgrade: the protocol it asks for; rest:
    bytes that came after such a request, which belong to the new protocol if the app accepts.
    """

    command: Any
    path: Any
    method = b""
    target = b"/"
    raw_path = b""
    host = b""
    upgrade = b""
    fields: list[Field]

    headers: dict[str, str]

    def __init__(self, adj: Adjustments, admit: Callable[[Request], Problem | None]) -> None:
        """admit: judges a request with a body by its header, before the body is read."""
        super().__init__(adj)
        self.started = time.monotonic()
        self.fields = []
        self.rest = bytearray()
        self.sized = False
        self.problem: Problem | None = None
        self._admit = admit

    # --- called by waitress

    def received(self, data: bytes) -> int:
        if self.body_rcv is None and not self.completed and b"\r\n\r\n" not in self.header_plus[-3:] + data:
            return self._more_header(data)
        used = super().received(data)
        if self.completed and self.upgrade:
            self.rest += data[used:]
            return len(data)
        return len(data) if self.last else used

    def _more_header(self, data: bytes) -> int:
        """An unfinished header, without searching all of it again at every byte."""
        self.header_plus += data
        if len(self.header_plus) >= self.adj.max_request_header_size:
            self.refuse(RequestHeaderFieldsTooLarge("The header is too large."))
        return len(data)

    def parse_header(self, header_plus: bytes) -> None:
        self.headers = {}
        try:
            self._parse(header_plus)
        except BadMessage as error:
            self.refuse(BadRequest(str(error)))
        except _Refused as refused:
            self.refuse(refused.error)

    def refuse(self, error: Error) -> None:
        """The request ends here, with an error and the end of the connection."""
        self.error, self.completed, self.connection_close = error, True, True
        self.upgrade, self.expect_continue, self.headers_finished = b"", False, True
        self.path = self.query = self.fragment = self.request_uri = ""
        self.command = self.command if hasattr(self, "command") else "GET"
        self.url_scheme = "http"
        self.version = self.version if self.version in ("1.0", "1.1") else "1.0"

    # --- parsing

    def _parse(self, block: bytes) -> None:
        line, _, rest = block.partition(b"\r\n")
        match = http1.REQUEST_LINE.fullmatch(line)
        if not match:
            raise BadMessage("Invalid request line")
        self.method, target = match[1], match[2]
        self.command = self.method.decode("ascii")
        if match[3] != b"1":
            raise _Refused(VersionNotSupported("Only the versions 1.0 and 1.1 are spoken here."))
        self.version = "1.0" if match[4] == b"0" else "1.1"
        if self.method in _REFUSED_METHODS:
            raise _Refused(MethodNotAllowed(f"{self.command} is not served here."))
        self.fields = http1.split_fields(rest[:-2])
        found = self._single_fields()
        self._take_host(target, found.get(b"host"))
        self._take_connection(found)
        self._take_body(found)
        self._take_path()
        if self.body_rcv is not None:
            self.problem = self._admit(self)
            if self.problem is not None:
                self.body_rcv, self.expect_continue, self.connection_close = None, False, True

    def _single_fields(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for name, value, _ in self.fields:
            if name in _SINGLE:
                if name in found:
                    raise BadMessage(f"More than one {name.decode()}")
                found[name] = value
        return found

    def _take_host(self, target: bytes, host: bytes | None) -> None:
        if host is None:
            if self.version == "1.1":
                raise BadMessage("No Host header")
            host = b""
        elif not http1.HOST.fullmatch(host):
            raise BadMessage("Invalid Host header")
        if target[:1] != b"/":
            absolute = http1.ABSOLUTE.fullmatch(target)
            if absolute:
                if absolute[1].lower() != host.lower():
                    raise BadMessage("The target's host is not the Host header's")
                target = absolute[2] or b"/"
                target = target if target[:1] == b"/" else b"/" + target
            elif target != b"*" or self.method != b"OPTIONS":
                raise BadMessage("Invalid request target")
        elif b"#" in target:
            raise BadMessage("Invalid request target")
        self.host, self.target = host, target

    def _take_connection(self, found: dict[bytes, bytes]) -> None:
        options = [option for name, value, _ in self.fields if name == b"connection" for option in http1.tokens(value)]
        self.connection_options = options
        if self.version == "1.0":
            self.connection_close = b"keep-alive" not in options
        else:
            self.connection_close = b"close" in options
        self.headers["CONNECTION"] = "close" if self.connection_close else "keep-alive"
        if b"upgrade" in found and b"upgrade" in options and self.version == "1.1":
            protocol = found[b"upgrade"].lower()
            self.upgrade = protocol if _UPGRADES.get(protocol) == self.method else b""
        expect = found.get(b"expect", b"").lower()
        if expect and expect != b"100-continue":
            raise _Refused(ExpectationFailed("Only 100-continue can be expected."))
        self.expect_continue = bool(expect) and self.version == "1.1"

    def _take_body(self, found: dict[bytes, bytes]) -> None:
        coding, length = found.get(b"transfer-encoding"), found.get(b"content-length")
        if coding is not None:
            if length is not None or self.version == "1.0":
                raise BadMessage("Ambiguous length")
            if coding.lower() != b"chunked":
                raise _Refused(NotImplementedHere("Only the transfer coding chunked is understood."))
            self.chunked = self.sized = True
            self.body_rcv = cast(Any, ChunkedBody(OverflowableBuffer(self.adj.inbuf_overflow)))
        elif length is not None:
            self.content_length, self.sized = http1.content_length(length), True
            if self.content_length > self.adj.max_request_body_size:
                raise _Refused(RequestEntityTooLarge(f"At most {self.adj.max_request_body_size} bytes are taken."))
            if self.content_length:
                buffer = OverflowableBuffer(self.adj.inbuf_overflow)
                self.body_rcv = FixedStreamReceiver(self.content_length, buffer)
        if self.body_rcv is None:
            self.expect_continue = False
        elif self.upgrade == b"websocket":
            self.upgrade = b""

    def _take_path(self) -> None:
        path, _, query = self.target.partition(b"?")
        self.raw_path = path
        self.request_uri = self.target.decode("latin-1")
        self.path = unquote_to_bytes(path).decode("latin-1") if b"%" in path else path.decode("latin-1")
        self.query, self.fragment, self.url_scheme = query.decode("latin-1"), "", "http"

    # --- for the router

    @property
    def cut_short(self) -> bool:
        """Its body is not read, or not understood."""
        return self.error is not None or self.problem is not None

    @property
    def last(self) -> bool:
        """Whatever the client sends behind it is ignored."""
        return self.completed and (self.connection_close or self.error is not None)

    @property
    def idempotent(self) -> bool:
        return self.method in IDEMPOTENT

    @property
    def body_size(self) -> int:
        return len(self.body_rcv.getbuf()) if self.body_rcv is not None else 0

    def field(self, name: bytes) -> bytes:
        """The value of a header, "" without it; repeated ones are joined."""
        return b", ".join(value for key, value, _ in self.fields if key == name)

    def fill_headers(self) -> None:
        """The headers as waitress hands them to WSGI applications: for the requests that Flask answers."""
        for name, value, _ in self.fields:
            if b"_" not in name:
                key = name.decode("latin-1").upper().replace("-", "_")
                old = self.headers.get(key) if key not in ("CONNECTION", "TRANSFER_ENCODING") else None
                text = value.decode("latin-1")
                self.headers[key] = f"{old}, {text}" if old else text
