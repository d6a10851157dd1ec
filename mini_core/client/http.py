"""The HTTP API from the client's side: one method per HTTP verb, uploads, and streams that survive a restart.

Each call takes a path and, if typed values are wanted, the type of the answer; without it plain data comes back.
A problem that the server reports is raised as MiniError with its words.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, overload
from urllib.parse import quote, urlencode

import msgspec

from mini_core import __version__
from mini_core.client.address import Address
from mini_core.client.transport import Tunnel, connect_tcp, connect_unix
from mini_core.errors import Conflict, Denied, MiniError, NotFound, Unavailable, UsageError
from mini_core.types import encode, from_data

T = TypeVar("T")
Query = Mapping[str, str | int | float | bool | None]

TIMEOUT = 120.0
"""Seconds without a byte from the server: removing an app waits for its open requests."""
STREAM_TIMEOUT = 30.0
"""Of a stream, on which the server gives a sign of life every 10 s."""
TRANSFER_TIMEOUT = 3600.0
"""Of a backup: an engine prepares a large image before its first byte comes."""
PIECE = 64 * 1024 * 1024
"""Bytes of a large file that go through a router at once."""
RETRIES = 5
"""Times in a row that a piece is sent again, with longer and longer pauses."""
KEPT_LIMIT = 30.0
"""Seconds after which a quiet connection is not used again: what lies on the way may have forgotten it."""
AWAY_LIMIT = 15.0
"""Seconds that a call waits for a controller that restarts."""
CHUNK = 128 * 1024


def _ignore(_: object) -> None:
    """Where nobody wants to know."""


class Lost(Unavailable):
    """The connection ended in the middle; what was asked may have happened."""

    code = "lost"


class Local(Protocol):
    """Makes sure that the local platform runs, and gives its admin socket."""

    def __call__(self) -> Path: ...


class Client:
    """One server. key: sent to it and to nobody else. local: for the address `local`. warn: gets a line for the
    user, at most one about versions. wait: whether to try again for a moment while the controller restarts."""

    def __init__(
        self,
        address: Address,
        *,
        key: str = "",
        local: Local | None = None,
        warn: Callable[[str], None] = _ignore,
        wait: bool = True,
    ) -> None:
        self.address = address
        self.server_version = ""
        self._key = key if address.kind == "http" else ""
        self._local = local
        self._warn = warn
        self._wait = AWAY_LIMIT if wait else 0.0
        self._tunnel = Tunnel(address) if address.kind == "ssh" else None
        self._kept: http.client.HTTPConnection | None = None
        self._kept_since = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._keep(None)
        if self._tunnel is not None:
            self._tunnel.close()

    # --- calls

    @overload
    def get(self, path: str, kind: None = None, **query: Any) -> Any: ...
    @overload
    def get(self, path: str, kind: type[T], **query: Any) -> T: ...
    def get(self, path: str, kind: Any = None, **query: Any) -> Any:
        return self._call("GET", path, None, kind, query)

    @overload
    def post(self, path: str, data: object = None, kind: None = None, **query: Any) -> Any: ...
    @overload
    def post(self, path: str, data: object, kind: type[T], **query: Any) -> T: ...
    def post(self, path: str, data: object = None, kind: Any = None, **query: Any) -> Any:
        return self._call("POST", path, data, kind, query)

    @overload
    def patch(self, path: str, data: object, kind: None = None, **query: Any) -> Any: ...
    @overload
    def patch(self, path: str, data: object, kind: type[T], **query: Any) -> T: ...
    def patch(self, path: str, data: object, kind: Any = None, **query: Any) -> Any:
        return self._call("PATCH", path, data, kind, query)

    def put(self, path: str, data: object, **query: Any) -> Any:
        return self._call("PUT", path, data, None, query)

    @overload
    def delete(self, path: str, kind: None = None, **query: Any) -> Any: ...
    @overload
    def delete(self, path: str, kind: type[T], **query: Any) -> T: ...
    def delete(self, path: str, kind: Any = None, **query: Any) -> Any:
        return self._call("DELETE", path, None, kind, query)

    def upload(
        self,
        path: str,
        archive: Path,
        headers: Mapping[str, str],
        kind: type[T],
        progress: Callable[[int], None] = _ignore,
    ) -> T:
        """Sends a tar.gz. progress: gets the number of bytes sent so far."""
        size = archive.stat().st_size
        connection = self._connect(TIMEOUT)
        try:
            with archive.open("rb") as file:
                given = {"Content-Type": "application/gzip", "Content-Length": str(size), **headers}
                self._begin(connection, "POST", path, given, keep=True)
                _send(connection, file, progress)
            answer: T = self._answer(connection, kind)
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return answer

    def download(
        self,
        path: str,
        file: BinaryIO,
        progress: Callable[[int], None] = _ignore,
        expecting: Callable[[int], None] = _ignore,
        **query: Any,
    ) -> None:
        """The bytes of an answer, into a file. progress: gets the number of bytes that have come so far. expecting:
        gets about how many there will be, where the server knows. Raises Lost where it ends in the middle."""
        connection = self._connect(TRANSFER_TIMEOUT)
        got = 0
        try:
            self._begin(connection, "GET", path + _query(query), {})
            response = self._response(connection)
            if size := response.headers.get("Mini-Size"):
                expecting(int(size))
            while data := self._some(response):
                file.write(data)
                got += len(data)
                progress(got)
        finally:
            connection.close()

    def send(
        self,
        path: str,
        file: BinaryIO,
        media: str,
        kind: type[T],
        progress: Callable[[int], None] = _ignore,
        **query: Any,
    ) -> Iterator[T]:
        """Sends a file and gives the values of the NDJSON answer. progress: as for `upload`. Through a router a large
        file travels in pieces, below the same path."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if self.address.kind == "http" and size > PIECE:
            query["upload"] = self._send_pieces(path, file, media, progress)
            size = 0
        connection = self._connect(TRANSFER_TIMEOUT)
        try:
            self._begin(connection, "POST", path + _query(query), {"Content-Type": media, "Content-Length": str(size)})
            if size:
                _send(connection, file, progress)
            for line in self._lines(self._response(connection)):
                yield _decoded(line, kind)
        finally:
            connection.close()

    def _send_pieces(self, path: str, file: BinaryIO, media: str, progress: Callable[[int], None]) -> str:
        """Returns the name under which the file is there then. A piece whose connection is lost is sent again."""
        name, offset, lost = os.urandom(16).hex(), 0, 0
        while True:
            file.seek(offset)
            piece = file.read(PIECE)
            if not piece:
                return name
            try:
                self._put(f"{path}/{name}?offset={offset}", piece, media)
            except Lost:
                lost += 1
                if lost > RETRIES:
                    raise
                time.sleep(lost)
                continue
            offset, lost = offset + len(piece), 0
            progress(offset)

    def _put(self, target: str, body: bytes, media: str) -> None:
        connection = self._connect(TRANSFER_TIMEOUT)
        try:
            self._begin(connection, "PUT", target, {"Content-Type": media, "Content-Length": str(len(body))})
            _send_bytes(connection, body)
            self._answer(connection, None)
        finally:
            connection.close()

    @overload
    def stream(self, path: str, kind: None = None, **query: Any) -> Iterator[Any]: ...
    @overload
    def stream(self, path: str, kind: type[T], **query: Any) -> Iterator[T]: ...
    def stream(self, path: str, kind: Any = None, **query: Any) -> Iterator[Any]:
        """The values of an NDJSON answer. Raises Lost where it ends in the middle."""
        connection = self._connect(STREAM_TIMEOUT)
        try:
            self._begin(connection, "GET", path + _query(query), {})
            for line in self._lines(self._response(connection)):
                yield _decoded(line, kind)
        finally:
            connection.close()

    def open(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> http.client.HTTPConnection:
        """A request whose answer the caller reads, such as one that turns the connection into something else."""
        connection = self._connect(TIMEOUT)
        self._begin(connection, method, path, {**headers, "Content-Length": str(len(body))})
        connection.send(body)
        return connection

    def problem(self, response: http.client.HTTPResponse) -> MiniError:
        """What an answer with a status of 400 or above says."""
        return _problem(response.status, response.read(), self.address, response.headers.get("Location", ""))

    # --- inside

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Lines that are not blank. Not `readline`, which takes a cut connection for the end of a chunked answer."""
        rest = b""
        while data := self._some(response):
            *lines, rest = (rest + data).split(b"\n")
            yield from (line for line in lines if line.strip())
        if rest.strip():
            raise self._lost(EOFError())

    def _some(self, response: http.client.HTTPResponse) -> bytes:
        """What has come, b"" at the end."""
        try:
            return response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None

    def _call(self, method: str, path: str, data: object, kind: Any, query: Query) -> Any:
        deadline = time.monotonic() + (self._wait if method == "GET" else 0)
        while True:
            try:
                return self._once(method, path + _query(query), data, kind)
            except Lost:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def _once(self, method: str, target: str, data: object, kind: Any) -> Any:
        connection = (self._take() if method == "GET" else None) or self._connect(TIMEOUT)
        try:
            body = encode(data) if data is not None else b""
            headers = {"Content-Type": "application/json"} if data is not None else {}
            headers |= {"Content-Length": str(len(body))} if body or method != "GET" else {}
            self._begin(connection, method, target, headers, keep=True)
            if body:
                _send_bytes(connection, body)
            answer = self._answer(connection, kind)
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return answer

    def _keep(self, connection: http.client.HTTPConnection | None) -> None:
        """For the next GET, unless the server has closed it: what changes something is never sent where it may be lost
        without anybody's fault."""
        if self._kept is not None:
            self._kept.close()
        self._kept = connection if connection is not None and connection.sock is not None else None
        self._kept_since = time.monotonic()

    def _take(self) -> http.client.HTTPConnection | None:
        """The kept connection, if nothing has come from it: that would be its end."""
        connection, self._kept = self._kept, None
        if connection is None:
            return None
        if time.monotonic() - self._kept_since < KEPT_LIMIT and not select.select([connection.sock], [], [], 0)[0]:
            return connection
        connection.close()
        return None

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        """Raises Unavailable."""
        if self._tunnel is not None:
            return self._tunnel.connect(timeout)
        try:
            if self.address.kind == "local":
                assert self._local is not None
                return connect_unix(self._local(), timeout)
            return connect_tcp(self.address, timeout)
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(
                f"The certificate of {self.address.text} cannot be trusted: {error.verify_message}",
                hint="Look at the address; a private authority's certificate goes into SSL_CERT_FILE.",
            ) from None
        except OSError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: OSError) -> Unavailable:
        if isinstance(error, socket.gaierror):
            why = f"there is no host {self.address.host}"
        elif isinstance(error, TimeoutError):
            why = "it does not answer"
        elif isinstance(error, ssl.SSLError):
            why = f"no HTTPS there ({error.reason or error})"
        else:
            why = (error.strerror or str(error)).lower()
        hint = "Look at the platform: mini doctor" if self.address.is_local else "Look at the address: mini config show"
        return Unavailable(f"Cannot reach {self.address.text}: {why}", hint=hint, code="unreachable")

    def _begin(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        keep: bool = False,
    ) -> None:
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            connection.putheader("User-Agent", f"mini/{__version__}")
            if not keep and "Connection" not in headers:
                connection.putheader("Connection", "close")
            if self._key:
                connection.putheader("Authorization", f"Bearer {self._key}")
            if self.address.kind == "ssh":
                connection.putheader("Mini-Base-Url", f"http://{self.address.host}")
            for name, item in headers.items():
                connection.putheader(name, item)
            connection.endheaders()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from None

    def _answer(self, connection: http.client.HTTPConnection, kind: Any) -> Any:
        response = self._response(connection)
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        return _decoded(data, kind) if data else None

    def _response(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        """The answer, once its status is good. Raises MiniError."""
        try:
            response = connection.getresponse()
            self._note_version(response.headers.get("Mini-Version", ""))
            if response.status < 300:
                return response
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        if response.status == 503 and not response.headers.get("Mini-Version"):
            raise Lost(f"{self.address.text} does not take requests now", hint="Try again in a moment.")
        raise _problem(response.status, data, self.address, response.headers.get("Location", ""))

    def _lost(self, error: Exception) -> Unavailable:
        why = "it takes too long to answer" if isinstance(error, TimeoutError) else "the connection was closed"
        words = self._tunnel.last_words() if self._tunnel is not None else ""
        if "open failed" in words:  # ssh is there, the server behind it is not
            hint = f"Is mini installed there, and may you open {self.address.socket}? It needs the group mini."
            return Unavailable(f"Cannot reach {self.address.text}: {words}", hint=hint, code="unreachable")
        if words:
            return Lost(f"No answer from {self.address.text}: {words}", hint="Look at the server: mini status")
        return Lost(f"No answer from {self.address.text}: {why}", hint="Try again in a moment.")

    def _note_version(self, version: str) -> None:
        if version and not self.server_version:
            self.server_version = version
            if mismatch := version_mismatch(__version__, version, local=self.address.is_local):
                self._warn(mismatch)


def version_mismatch(ours: str, theirs: str, *, local: bool = False) -> str:
    """A line that says which of the two to upgrade, or "" where they fit (same major and minor number)."""
    mine, its = (_numbers(version) for version in (ours, theirs))
    if mine == its:
        return ""
    if local:
        return f"This is mini {ours}, the local platform still runs {theirs}: mini down, then mini up"
    todo = "upgrade the server: mini server upgrade" if mine > its else "upgrade this one: pipx upgrade mini-paas"
    return f"This is mini {ours}, the server has {theirs}: {todo}"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return quote(text, safe="")


def _query(query: Query) -> str:
    """What is None, False or "" is left out; 0 is not."""
    said = {name: item for name, item in query.items() if item is not None and item is not False and item != ""}
    given = {name: "1" if item is True else item for name, item in said.items()}
    return "?" + urlencode(given) if given else ""


def _decoded(data: bytes, kind: Any) -> Any:
    try:
        plain = msgspec.json.decode(data)
        return plain if kind is None else from_data(kind, plain)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise Unavailable(
            "The server's answer is not understood", hint="Is it a mini server, and of this version? mini version"
        ) from None


def _send(connection: http.client.HTTPConnection, file: Any, progress: Callable[[int], None]) -> None:
    sent = 0
    while data := file.read(CHUNK):
        if not _send_bytes(connection, data):
            return
        sent += len(data)
        progress(sent)


def _send_bytes(connection: http.client.HTTPConnection, data: bytes) -> bool:
    """False where the server has closed its end: it may have answered already."""
    try:
        connection.send(data)
    except OSError:
        return False
    return True


def _problem(status: int, data: bytes, address: Address, location: str) -> MiniError:
    if 300 <= status < 400:
        return Unavailable(
            f"{address.text} redirects to {location or 'another address'}", hint=f"mini config set-host {location}"
        )
    try:
        told = json.loads(data)
        message, code, hint = str(told["title"]), str(told.get("code", "")), str(told.get("hint", ""))
        step, tail = str(told.get("step", "")), [str(line) for line in told.get("tail", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Unavailable(
            f"{address.text} answers {status}, and not as a mini server", hint="Look at the address: mini config show"
        )
    kind = _KINDS.get(status, UsageError if code == "usage" else MiniError)
    return kind(message, hint=hint, code=code, step=step, tail=tail)


_KINDS: Mapping[int, type[MiniError]] = {
    400: UsageError,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    503: Unavailable,
}
