from __future__ import annotations

import http.client
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeController

from mini_core.paths import Paths, find_paths, private_folder
from mini_core.server.adminclient import UnixConnection
from mini_core.server.daemon import Server
from mini_core.settings import Settings


def until(condition: Callable[[], bool], limit: float = 10.0) -> None:
    """Waits for something that nothing can be waited on for."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


@dataclass
class Client:
    """HTTP over one of the server's sockets."""

    socket: Path
    headers: dict[str, str] = field(default_factory=dict)

    def open(self, method: str, url: str, body: bytes | None = None, **headers: str) -> UnixConnection:
        connection = UnixConnection(self.socket, 10)
        named = {name.replace("_", "-"): item for name, item in headers.items()}
        connection.request(method, url, body, {**self.headers, **named})
        return connection

    def request(self, method: str, url: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = self.open(method, url, body, **headers)
        try:
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, url: str, **headers: str) -> Answer:
        return self.request("GET", url, **headers)

    def send(self, method: str, url: str, data: Any) -> Answer:
        return self.request(method, url, json.dumps(data).encode(), Content_Type="application/json")


@dataclass
class Platform:
    """A server over a fake controller. key: a client with a key for everything; blog: with one for that app."""

    controller: FakeController
    server: Server
    paths: Paths

    def client(self, key: str = "") -> Client:
        return Client(self.paths.controller_socket, {"X-API-Key": key, "Host": "mini.test"} if key else {})

    @property
    def key(self) -> Client:
        return self.client("mini_admin")

    @property
    def blog(self) -> Client:
        return self.client("mini_blog")

    @property
    def admin(self) -> Client:
        return Client(self.paths.admin_socket)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a path short enough for sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="mini-test-"))
    monkeypatch.setenv("MINI_HOME", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def paths(home: Path) -> Paths:
    return find_paths()


@pytest.fixture
def platform(paths: Paths) -> Iterator[Platform]:
    private_folder(paths.data)
    private_folder(paths.run)
    controller = FakeController(Settings(upload=2_000_000), paths)
    server = Server(controller)
    server.start()
    yield Platform(controller, server, paths)
    server.close()
