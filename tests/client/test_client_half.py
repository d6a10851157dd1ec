"""The client half, as it must work on Windows too: no module of Unix, no part of the server, over plain TCP.

Needs no fixture of other folders, so that it runs where the server cannot:
`python -m pytest --confcutdir=tests/client tests/client`
"""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_core import api
from mini_core.client.address import parse_address
from mini_core.client.http import Client
from mini_core.types import encode, replace, to_data

UNIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios", "tty")
SERVER_ONLY = ("dataset", "docker", "flask", "mini_core.controller", "mini_core.engine", "mini_core.server", "waitress")

COMMAND = f"""
import sys
for name in {UNIX_ONLY + SERVER_ONLY!r}:
    sys.modules[name] = None  # importing it fails
from mini_core.cli.main import run
sys.exit(run(sys.argv[1:]))
"""

DEPLOY = api.DeployInfo(
    id=1,
    app="blog",
    kind="deploy",
    state="running",
    step="received",
    actor="ci",
    created_at=1.0,
    url="http://blog.test",
)


class Handler(http.server.BaseHTTPRequestHandler):
    """A server that accepts every deploy."""

    server: FakeServer

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, b'{"status": "ok", "version": "0.1.0", "platform": "p"}')
        elif self.headers.get("Authorization") != "Bearer mini_key":
            problem = api.Problem(status=401, title="The key is not valid here", code="denied", hint="Set it.")
            self._answer(401, encode(problem), "application/problem+json")
        elif self.path.startswith("/v1/deploys/1/events"):
            events = [
                api.DeployEvent(seq=1, at=1.0, kind="output", text="a tool's own line"),
                api.DeployEvent(seq=2, at=2.0, kind="done", data=to_data(replace(DEPLOY, state="done", step="done"))),
            ]
            self._answer(200, b"\n".join(encode(event) for event in events) + b"\n", "application/x-ndjson")
        elif self.path == "/v1/status":
            info = {"version": "0.1.0", "platform": "p", "state": "ok", "runtime": "docker", "router": "proxy"}
            self._answer(200, json.dumps(info | {"url": "http://mini.test", "pid": 1, "started_at": 1.0}).encode())
        elif self.path == "/v1/apps/blog":
            self._answer(200, encode(api.AppInfo(name="blog", state="running", created_at=1.0, url="http://blog.test")))
        elif self.path.startswith("/v1/apps/blog/env"):
            self._answer(200, b'{"GREETING": "********"}')
        else:
            self._answer(404, encode(api.Problem(status=404, title=f"No such address: {self.path}", code="not-found")))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sources.append(body)
        self._answer(202, encode(DEPLOY))

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Mini-Version", "0.1.0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class FakeServer(http.server.ThreadingHTTPServer):
    sources: list[bytes]
    connections = 0


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer(("127.0.0.1", 0), Handler)
    server.sources = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    made.mkdir()
    (made / "index.html").write_text("<p>hello</p>")
    (made / ".env").write_text("SECRET=1\n")
    return made


class KeepingHandler(Handler):
    """Answers on one connection as often as it is asked, and counts connections."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1


class ForgetfulHandler(KeepingHandler):
    """Closes the connection after an answer, and does not say so."""

    def do_GET(self) -> None:
        super().do_GET()
        self.close_connection = True


def mini(
    *arguments: str, home: Path, server: FakeServer | None = None, key: str = ""
) -> subprocess.CompletedProcess[str]:
    given = {"MINI_HOME": str(home), "PYTHONIOENCODING": "utf-8", "MINI_API_KEY": key}
    if server:
        given["MINI_HOST"] = f"http://127.0.0.1:{server.server_port}"
    environment = {name: item for name, item in os.environ.items() if not name.startswith("MINI_")} | given
    command = [sys.executable, "-c", COMMAND, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)


def test_help_and_version_need_no_server(tmp_path: Path) -> None:
    assert "mini deploy" in mini("--help", home=tmp_path).stdout
    assert mini("--version", home=tmp_path).stdout.startswith("mini ")


def test_a_folder_is_deployed_over_tcp_and_its_log_is_shown(server: FakeServer, folder: Path, tmp_path: Path) -> None:
    done = mini("deploy", str(folder), "blog", home=tmp_path / "home", server=server, key="mini_key")
    assert done.returncode == 0, done.stderr
    assert "http://blog.test" in done.stdout
    assert "a tool's own line" in done.stderr
    (source,) = server.sources
    with tarfile.open(fileobj=io.BytesIO(source)) as archive:
        assert [name for name in archive.getnames() if name not in ("", ".")] == ["index.html"]


def test_a_deploy_needs_one_connection_besides_that_of_its_log(
    server: FakeServer, folder: Path, tmp_path: Path
) -> None:
    server.RequestHandlerClass = KeepingHandler
    done = mini("deploy", str(folder), "blog", home=tmp_path / "home", server=server, key="mini_key")
    assert done.returncode == 0, done.stderr
    assert server.connections == 2


def test_a_connection_that_the_server_closed_is_opened_again(server: FakeServer) -> None:
    server.RequestHandlerClass = ForgetfulHandler
    with Client(parse_address(f"http://127.0.0.1:{server.server_port}"), key="mini_key") as client:
        for _ in range(3):
            assert client.get("/v1/apps/blog", api.AppInfo).name == "blog"
    assert server.connections >= 3


def test_a_wrong_key_is_said_in_two_lines(server: FakeServer, tmp_path: Path) -> None:
    done = mini("env", "list", "-a", "blog", home=tmp_path, server=server, key="wrong")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == ["Error: The key is not valid here", "Set it."]


def test_host_and_key_are_remembered(server: FakeServer, tmp_path: Path) -> None:
    host = f"http://127.0.0.1:{server.server_port}"
    assert mini("config", "set-host", host, home=tmp_path).returncode == 0
    assert mini("config", "set-api-key", "mini_key", home=tmp_path).returncode == 0
    done = mini("env", "list", "-a", "blog", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "GREETING" in json.loads(done.stdout)


def test_a_plan_is_made_on_this_machine(folder: Path, tmp_path: Path) -> None:
    done = mini("plan", str(folder), "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["buildpack"] == "static"
