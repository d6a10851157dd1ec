"""The three sinks. Each opens what it needs at its first batch and again after a failure; the core counts failures
and keeps the queue in front of them bounded."""

from __future__ import annotations

import json
import logging.handlers
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from mini_core.errors import ConfigError
from mini_core.types import LogLine

CONNECT, ANSWER = 5.0, 30.0
"""Seconds that a connection and an answer may take: who sends again what was taken slowly sends it twice."""

FILE_SIZE, FILES_KEPT = 100 * 1024 * 1024, 5
_FACILITY_USER = 1
_SEVERITY = {"stdout": 6, "stderr": 4}
_DATAGRAM = 8000
"""Bytes of a syslog datagram: receivers must take 2,048 (RFC 5424, 6.1), common ones take 8 kB."""


def as_json(line: LogLine) -> str:
    """A line as one JSON object: time in ISO 8601, empty fields left out."""
    fields = {
        "time": datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds"),
        "app": line.app,
        "source": line.source,
        "process": line.process,
        "release": line.release,
        "stream": line.stream,
        "text": line.text,
    }
    return json.dumps({name: item for name, item in fields.items() if item not in ("", None)}, ensure_ascii=False)


class _Handler(logging.handlers.RotatingFileHandler):
    """Raises what goes wrong, instead of printing it."""

    def handleError(self, _record: logging.LogRecord) -> None:  # noqa: N802
        raise


class FileSink:
    """Appends JSON lines to a file and rotates it by size."""

    name = "file"

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._handler: logging.handlers.RotatingFileHandler | None = None

    def write(self, lines: Sequence[LogLine]) -> None:
        if self._handler is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = _Handler(self._path, maxBytes=FILE_SIZE, backupCount=FILES_KEPT, encoding="utf-8")
        for line in lines:
            self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, as_json(line), None, None))

    def close(self) -> None:
        if self._handler is not None:
            self._handler.close()
            self._handler = None


class SyslogSink:
    """RFC 5424 over UDP (RFC 5426, one datagram a line) or TCP (RFC 6587, octet counting)."""

    name = "syslog"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("udp", "tcp") or not parts.hostname:
            raise ConfigError(f"plugins.drains.syslog: expected udp://HOST[:PORT] or tcp://HOST[:PORT], got {url!r}")
        self._tcp = parts.scheme == "tcp"
        self._address = (parts.hostname, parts.port or 514)
        self._host = socket.gethostname()
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[LogLine]) -> None:
        try:
            for line in lines:
                self._send(self._message(line))
        except OSError as error:
            self.close()
            raise OSError(f"{self._address[0]}:{self._address[1]}: {error.strerror or error}") from error

    def _send(self, message: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        if self._tcp:
            self._socket.sendall(b"%d %s" % (len(message), message))
        else:
            self._socket.send(message[:_DATAGRAM])

    def _connect(self) -> socket.socket:
        if self._tcp:
            return socket.create_connection(self._address, timeout=CONNECT)
        family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind, protocol)
        made.settimeout(CONNECT)
        made.connect(address)
        return made

    def _message(self, line: LogLine) -> bytes:
        priority = _FACILITY_USER * 8 + _SEVERITY[line.stream]
        at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        process = line.process or line.source
        return f"<{priority}>1 {at} {self._host} {line.app} {process} - - {line.text}".encode()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class HttpSink:
    """POSTs a batch as one request: JSON objects, one a line."""

    name = "http"

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigError(f"plugins.drains.http: expected http://… or https://…, got {url!r}")
        self._url, self._host = url, urlsplit(url).hostname
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=CONNECT, read=ANSWER))

    def write(self, lines: Sequence[LogLine]) -> None:
        if not lines:
            return
        body = "".join(as_json(line) + "\n" for line in lines).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            answer = self._pool.request("POST", self._url, body=body, headers=headers, retries=False)
        except urllib3.exceptions.HTTPError as error:  # whose text holds the URL, which may hold a key
            raise OSError(f"{self._host} {_explained(error)}") from None
        if answer.status >= 400:
            raise OSError(f"{self._host} answered {answer.status}")

    def close(self) -> None:
        self._pool.clear()


def _explained(error: urllib3.exceptions.HTTPError) -> str:
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "has no address (DNS)"
        case urllib3.exceptions.ReadTimeoutError():
            return f"did not answer within {ANSWER:.0f} s"
        case urllib3.exceptions.NewConnectionError():
            return "refuses connections, or cannot be reached"
        case urllib3.exceptions.ConnectTimeoutError():
            return f"cannot be reached within {CONNECT:.0f} s"
        case urllib3.exceptions.ProtocolError():
            return "closed the connection without an answer"
        case _:
            return f"cannot be reached ({type(error).__name__})"
