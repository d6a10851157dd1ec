"""A gRPC server on one connection that is there already (github.com/grpc/grpc, PROTOCOL-HTTP2.md).

The `grpcio` package listens on sockets of its own; BuildKit wants its calls answered on the very connection that asked
for a build. Only what that needs is here: no compression, no deadlines. A call runs in a thread of its own.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

Metadata: TypeAlias = Mapping[str, tuple[str, ...]]
"""A call's headers; each may come several times."""

Handler: TypeAlias = Callable[[Metadata, Iterator[bytes]], Iterator[bytes]]
"""Answers one call: its messages in, as they come, and the answers out."""

OK, UNKNOWN, NOT_FOUND, UNIMPLEMENTED = 0, 2, 5, 12
"""Status codes of a call's end."""

_PREFIX = struct.Struct(">?L")  # compressed, length
_FLUSH = 64 * 1024
"""Bytes of answers that are gathered before they are sent."""


class Failed(Exception):
    """Raised by a handler: how its call ends."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Closed(Exception):
    """The other side is gone."""


class Server:
    """read: some bytes, b"" at the end. write: all of them. handlers: by the path of the method."""

    def __init__(
        self, read: Callable[[], bytes], write: Callable[[bytes], object], handlers: Mapping[str, Handler]
    ) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        self._read, self._write, self._handlers = read, write, handlers
        # gRPC names no authority on a connection that it was given, which a web server would have to refuse.
        self._http = H2Connection(H2Configuration(client_side=False, validate_inbound_headers=False))
        self._changed = threading.Condition()
        self._closed = False
        self._calls: dict[int, _Call] = {}

    def serve(self) -> None:
        """Until the other side closes the connection, or anybody does."""
        from h2.exceptions import ProtocolError

        with self._changed:
            self._http.initiate_connection()
        try:
            self._send_pending()
            while data := self._read():
                with self._changed:
                    for event in self._http.receive_data(data):
                        self._take(event)
                    self._changed.notify_all()
                self._send_pending()
        except (ProtocolError, OSError):
            return
        finally:
            self._close()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for call in self._calls.values():
                call.end()

    def _take(self, event: Any) -> None:
        from h2 import events

        match event:
            case events.RequestReceived():
                self._begin(event.stream_id, event.headers)
            case events.DataReceived():
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if call := self._calls.get(event.stream_id):
                    call.take(event.data)
            case events.StreamEnded():
                if call := self._calls.get(event.stream_id):
                    call.end()
            case events.StreamReset():
                if call := self._calls.pop(event.stream_id, None):
                    call.end()

    def _begin(self, stream: int, headers: list[tuple[bytes, bytes]]) -> None:
        metadata: dict[str, tuple[str, ...]] = {}
        for name, text in headers:
            key = name.decode("latin-1")
            metadata[key] = (*metadata.get(key, ()), text.decode("utf-8", "surrogateescape"))
        call = self._calls[stream] = _Call(self, stream)
        handler = self._handlers.get(metadata[":path"][0], _unimplemented)
        threading.Thread(target=call.run, args=(handler, metadata), name="buildkit-call", daemon=True).start()

    # --- sending, by the calls' threads

    def begin(self, stream: int) -> None:
        self._do(lambda: self._http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")]))

    def send(self, stream: int, data: bytes | bytearray) -> None:
        """Waits while the other side has no room. Raises Closed."""
        rest = memoryview(data)
        while rest:
            with self._changed:
                room = 0
                while not room:
                    if self._closed or stream not in self._calls:
                        raise Closed
                    room = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
                    if not room:
                        self._changed.wait()
                self._http.send_data(stream, rest[:room])
                self._write(self._http.data_to_send())
            rest = rest[room:]

    def finish(self, stream: int, code: int, message: str) -> None:
        trailers = [("grpc-status", str(code)), ("grpc-message", _escaped(message))]
        self._do(lambda: self._http.send_headers(stream, trailers, end_stream=True))
        with self._changed:
            self._calls.pop(stream, None)

    def _do(self, what: Callable[[], object]) -> None:
        from h2.exceptions import ProtocolError

        with self._changed:
            if self._closed:
                raise Closed
            try:
                what()
            except ProtocolError as error:  # the other side has reset the stream
                raise Closed from error
        self._send_pending()

    def _send_pending(self) -> None:
        with self._changed:
            if data := self._http.data_to_send():
                self._write(data)


class _Call:
    """One call: puts messages together, gathers the answers."""

    def __init__(self, server: Server, stream: int) -> None:
        self._server, self._stream = server, stream
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._part = bytearray()
        self._out = bytearray()

    def take(self, data: bytes) -> None:
        self._part += data
        while len(self._part) >= _PREFIX.size:
            _, length = _PREFIX.unpack_from(self._part)
            if len(self._part) < _PREFIX.size + length:
                return
            self._inbox.put(bytes(self._part[_PREFIX.size : _PREFIX.size + length]))
            del self._part[: _PREFIX.size + length]

    def end(self) -> None:
        self._inbox.put(None)

    def run(self, handler: Handler, metadata: Metadata) -> None:
        try:
            code, message = OK, ""
            self._server.begin(self._stream)
            try:
                for answer in handler(metadata, self._messages()):
                    self._out += _PREFIX.pack(False, len(answer)) + answer
                    if len(self._out) >= _FLUSH:
                        self._flush()
            except Failed as error:
                code, message = error.code, str(error)
            except (Closed, OSError):
                raise
            except Exception as error:  # whatever it is: the other side waits for the end of its call
                code, message = UNKNOWN, str(error)
            self._flush()
            self._server.finish(self._stream, code, message)
        except (Closed, OSError):
            return

    def _messages(self) -> Iterator[bytes]:
        while True:
            if self._inbox.empty():
                self._flush()  # whoever waits for an answer has first heard everything that was said
            message = self._inbox.get()
            if message is None:
                return
            yield message

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, bytearray()
            self._server.send(self._stream, out)


def unary(answer: Callable[[bytes], bytes]) -> Handler:
    """A method with one message in and one out."""

    def handle(_: Metadata, messages: Iterator[bytes]) -> Iterator[bytes]:
        yield answer(next(messages, b""))

    return handle


def _unimplemented(metadata: Metadata, _: Iterator[bytes]) -> Iterator[bytes]:
    raise Failed(UNIMPLEMENTED, f"there is no method {metadata[':path'][0]}")


def _escaped(message: str) -> str:
    """Percent-encoded, as a status message has to be."""
    from urllib.parse import quote

    return quote(message, safe=" !#$&'()*+,/:;=?@[]")
