"""What the tests of the server share: a client for its sockets, and a server over a fake controller."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_controller import FakeController

from mini_core.paths import Paths
from mini_core.server.adminclient import UnixConnection
from mini_core.server.daemon import Server


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


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True
    except (ProcessLookupError, FileNotFoundError):
        return False
