"""Drains, against a real file, real syslog receivers and a real HTTP server."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_core.errors import ConfigError
from mini_core.hooks import Hooks
from mini_core.hookspecs import Context
from mini_core.plugins import load_plugins
from mini_core.testing import LogSinkContract, until
from mini_core.types import LogLine
from mini_drains import make_sink
from mini_drains.sinks import FileSink, HttpSink, SyslogSink

LINE = LogLine(at=1_700_000_000.5, app="blog", source="app", process="web.1", release=3, text="hi", stream="stderr")


class TestFile(LogSinkContract):
    @pytest.fixture
    def sink(self, tmp_path: Path) -> FileSink:
        return FileSink(str(tmp_path / "logs" / "apps.log"))

    @pytest.fixture
    def received(self, tmp_path: Path) -> Callable[[], list[str]]:
        def read() -> list[str]:
            text = (tmp_path / "logs" / "apps.log").read_text("utf-8")
            return [json.loads(line)["text"] for line in text.split("\n") if line]

        return read


class Syslog:
    """Receives over TCP, taking octet-counted frames apart."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while length := b"".join(iter(lambda: reader.read(1).strip(), b"")):
                self.messages.append(reader.read(int(length)).decode())

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def syslog() -> Iterator[Syslog]:
    server = Syslog()
    yield server
    server.close()


class TestSyslog(LogSinkContract):
    @pytest.fixture
    def sink(self, syslog: Syslog) -> SyslogSink:
        return SyslogSink(syslog.url)

    @pytest.fixture
    def received(self, syslog: Syslog) -> Callable[[], list[str]]:
        def read() -> list[str]:
            until(lambda: len(syslog.messages) >= 50)
            return [message.split(" - - ", 1)[1] for message in syslog.messages]

        return read


class Collector(http.server.ThreadingHTTPServer):
    status = 204

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorHandler)
        self.bodies: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/ingest"


class CollectorHandler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class TestHttp(LogSinkContract):
    @pytest.fixture
    def sink(self, collector: Collector) -> HttpSink:
        return HttpSink(collector.url)

    @pytest.fixture
    def received(self, collector: Collector) -> Callable[[], list[str]]:
        return lambda: [json.loads(line)["text"] for body in collector.bodies for line in body.split("\n") if line]


def test_a_syslog_line_says_when_where_and_how_bad(syslog: Syslog):
    sink = SyslogSink(syslog.url)
    sink.write([LINE])
    until(lambda: syslog.messages)
    sink.close()
    expected = f"<12>1 2023-11-14T22:13:20.500Z {socket.gethostname()} blog web.1 - - hi"
    assert syslog.messages == [expected]


def test_syslog_over_udp_sends_one_datagram_a_line():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        sink = SyslogSink(f"udp://127.0.0.1:{receiver.getsockname()[1]}")
        sink.write([LINE])
        sink.close()
        assert receiver.recv(9000).endswith(b"blog web.1 - - hi")


def test_syslog_connects_again_after_the_server_went_away(syslog: Syslog):
    sink = SyslogSink(syslog.url)
    sink.write([LINE])
    until(lambda: syslog.messages)
    for connection in syslog.connections:
        connection.shutdown(socket.SHUT_RDWR)

    def arrives_again() -> bool:
        try:
            sink.write([LINE])
        except OSError:
            return False
        return len(syslog.connections) == 2

    until(arrives_again)
    sink.close()


def test_an_endpoint_that_refuses_is_an_error_so_that_the_core_counts_it(collector: Collector):
    collector.status = 403
    sink = HttpSink(collector.url)
    with pytest.raises(OSError, match="answered 403"):
        sink.write([LINE])
    sink.close()


def test_a_syslog_server_that_is_away_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match=rf"^127\.0\.0\.1:{port}: Connection refused$"):
        SyslogSink(f"tcp://127.0.0.1:{port}").write([LINE])


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("syslog", "logs.example.com", "plugins.drains.syslog: expected udp://"),
        ("http", "ftp://x", "plugins.drains.http: expected http://"),
        ("carrier", "pigeon", "plugins.drains.carrier: unknown kind"),
        ("file", 3, "plugins.drains.file: expected a string, got 3"),
    ],
)
def test_a_wrong_setting_is_named(kind: str, target: object, message: str):
    with pytest.raises(ConfigError, match=message):
        make_sink(kind, target)


def test_a_wrong_setting_is_a_problem_of_the_plugin_said_in_its_own_words(tmp_path: Path):
    hooks = Hooks(load_plugins())
    settings = {"drains": {"http": "ftp://x"}}
    assert hooks.log_sinks(Context(platform="p", data=tmp_path, cache=tmp_path, images={}, settings=settings)) == {}
    (problem,) = hooks.problems()
    assert problem == "drains: plugins.drains.http: expected http://… or https://…, got 'ftp://x'"


def test_an_error_names_the_host_and_not_the_key_in_the_address(collector: Collector):
    collector.status = 403
    with pytest.raises(OSError, match=r"^127\.0\.0\.1 answered 403$"):
        HttpSink(f"{collector.url}?key=s3cret").write([LINE])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match=r"^127\.0\.0\.1 refuses connections, or cannot be reached$"):
        HttpSink(f"http://127.0.0.1:{port}/in?key=s3cret").write([LINE])
