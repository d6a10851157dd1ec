"""A router in processes of its own, and apps to put behind it: real sockets everywhere, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mini_core.types import Endpoint, Route, RouterSettings, RouteTable, Target
from mini_proxy.router import ProxyRouter

HOST = "app.localhost"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_until(condition: Callable[[], Any], *, timeout: float = 10.0, what: str = "") -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or condition}"
        time.sleep(0.01)
    return found


# --- apps


@dataclass
class Received:
    """A request as an app got it, byte for byte."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    sock: Any = None

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


Handler = Callable[[Received], bytes | None]


def plain(body: bytes | str, *headers: str, status: str = "200 OK") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


class App:
    """A keep-alive HTTP server on raw sockets. The handler returns the bytes of a response, or writes to
    `request.sock` itself and returns None, which ends the connection."""

    def __init__(self, name: str, handler: Handler | None = None, *, unix: Path | None = None) -> None:
        self.name, self.handler = name, handler or (lambda request: plain(name))
        self.requests: list[Received] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        if unix:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(os.fspath(unix))
            self._listener.listen(64)
            self.target = Target(instance=name, host=str(unix), port=0)
        else:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            self.target = Target(instance=name, host="127.0.0.1", port=self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        self._open.add(sock)
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as reader:
            while (request := self._read(reader)) is not None:
                request.sock = sock
                self.requests.append(request)
                answer = self.handler(request)
                if answer is None:
                    break
                sock.sendall(answer)
        self._open.discard(sock)

    def _read(self, reader: Any) -> Received | None:
        line = reader.readline().decode("latin-1").strip()
        if not line:
            return None
        method, target, version = line.split(" ")
        headers = []
        while text := reader.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = text.partition(":")
            headers.append((name, value.strip()))
        request = Received(method, target, version, headers)
        if length := request.header("content-length"):
            request.body = reader.read(int(length))
        return request

    def close_connections(self) -> None:
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()


@pytest.fixture
def app() -> Iterator[Callable[..., App]]:
    """Starts an app: `app(name, handler)`."""
    made: list[App] = []

    def make(name: str = "app", handler: Handler | None = None, *, unix: Path | None = None) -> App:
        made.append(App(name, handler, unix=unix))
        return made[-1]

    yield make
    for item in made:
        item.close()


# --- the router


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Running:
    """A router that runs, with what tests do to it."""

    router: ProxyRouter
    settings: RouterSettings
    generations: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def port(self) -> int:
        return self.settings.binds[0].port

    @property
    def state(self) -> Path:
        return Path(self.settings.state)

    def apply(self, *routes: Route, hosts: tuple[str, ...] = ("localhost",), controller: str = "") -> None:
        table = RouteTable(generation=next(self.generations), routes=routes, hosts=hosts, controller=controller)
        self.router.apply(table)

    def serve(self, *apps: App, host: str = HOST, name: str = "app", **fields: Any) -> None:
        """One app, with these instances."""
        self.apply(Route(host=host, app=name, targets=tuple(item.target for item in apps), **fields))

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(
        self, path: str = "/", *, method: str = "GET", host: str = HOST, body: Any = None, **headers: str
    ) -> Answer:
        """One request on a connection of its own. Headers' underscores stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            connection.request(method, path, body=body, headers={"Host": host, **named})
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def raw(self, request: bytes, *, end: bytes | None = None, timeout: float = 10) -> bytes:
        """What comes back for these bytes, until the router closes the connection or the answer ends with `end`."""
        with self.connect(timeout) as sock:
            sock.sendall(request)
            data = b""
            while not (end and data.endswith(end)):
                try:
                    piece = sock.recv(65536)
                except ConnectionResetError:
                    break
                if not piece:
                    break
                data += piece
            return data

    def workers(self, state: str = "serving") -> list[int]:
        return [item["pid"] for item in self.router.status()["workers"] if item["state"] == state]

    def log_lines(self) -> str:
        return (self.state / "router.log").read_text() if (self.state / "router.log").exists() else ""


def start_router(folder: Path, *, workers: int = 2, **options: Any) -> Running:
    settings = RouterSettings(
        binds=(Endpoint(host="127.0.0.1", port=free_port()),),
        state=str(folder / "router"),
        controller=str(folder / "controller.sock"),
        platform="test",
        workers=workers,
        options=options,
    )
    router = ProxyRouter()
    router.start(settings)
    return Running(router, settings)


def end_router(running: Running) -> None:
    """Stops it, whatever state a test left it in, and checks that it raised nothing unexpected."""
    running.router.stop()
    text = (running.state / "master.log").read_text()
    assert "Traceback" not in text, text


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A router that the tests of a module share: starting one takes most of a second."""
    running = start_router(
        tmp_path_factory.mktemp("p"),
        response_timeout=1.5,
        hold_timeout=3.0,
        connect_timeout=0.5,
        max_body=8 << 20,
        trusted=["10.0.0.0/8"],
    )
    yield running
    end_router(running)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a router of a test's own: `fresh(workers=1, **options)`."""
    made: list[Running] = []

    def make(*, workers: int = 2, **options: Any) -> Running:
        made.append(start_router(tmp_path / str(len(made)), workers=workers, **options))
        return made[-1]

    yield make
    for running in made:
        end_router(running)


# --- load


class Load:
    """Clients that ask as fast as they get answers, on kept and on new connections, and count what fails."""

    def __init__(self, port: int, *, kept: int = 4, new: int = 2, host: str = HOST, pause: float = 0.0) -> None:
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self._port, self._host, self._pause = port, host, pause
        self._stop = threading.Event()
        kinds = [True] * kept + [False] * new
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            try:
                connection.request("GET", "/", headers={"Host": self._host})
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    self.answers.append(body)
                else:
                    self.failures.append(f"{response.status} {body!r}")
                closing = response.will_close
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                closing = True
            if closing or not keep:
                connection.close()
                connection = None
            self._stop.wait(self._pause)
        if connection is not None:
            connection.close()

    def wait_for(self, count: int, timeout: float = 20.0) -> None:
        """Until so many more answers have come."""
        goal = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= goal or self.failures, timeout=timeout, what=f"{count} answers")


@pytest.fixture
def load() -> type[Load]:
    return Load


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def respond() -> Callable[..., bytes]:
    return plain


@pytest.fixture
def kill() -> Callable[[int], None]:
    """`kill -9`, and the end of the process awaited."""

    def kill_and_wait(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _alive(pid), what=f"the end of {pid}")

    return kill_and_wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return _alive


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
