"""`strategy = "recreate"`: an app whose volume allows one writer never runs twice, and its requests wait meanwhile."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mini_core import api
from mini_core.testing import write_files
from tests.e2e.platform import MiniPlatform
from tests.engine.conftest import Lab

TOML = '[deploy]\nstrategy = "recreate"\n'


def test_the_old_release_has_ended_before_the_new_one_starts(lab: Lab):
    lab.deploy(web=["serve", "first"], **{"file_mini.toml": TOML})
    (first,) = lab.world.instances.values()
    info = lab.deploy(web=["serve", "second"], **{"file_mini.toml": TOML})
    (second,) = lab.world.running("blog")
    assert info.state == "done"
    assert first.ended_at is not None and first.ended_at <= second.started_at
    lines = lab.lines(info)
    assert "Recreating: the old release is stopped before the new one starts" in lines
    assert any(line.startswith("Requests waited for ") for line in lines)
    states = [table.routes[0].state for table in lab.world.tables if table.routes]
    assert "hold" in states and states[-1] == "live"
    assert lab.get() == (200, "second")


def test_a_restart_and_other_limits_go_the_same_way(lab: Lab):
    lab.deploy(web=["serve", "first"], **{"file_mini.toml": TOML})
    smaller = api.Scale(memory=64 * 1024 * 1024)
    for change in (lambda: lab.controller.restart("blog", "me"), lambda: lab.controller.scale("blog", smaller, "me")):
        before = lab.world.running("blog")
        assert lab.ended(change()).state == "done"
        (now,) = lab.world.running("blog")
        assert all(item.ended_at is not None and item.ended_at <= now.started_at for item in before)


def test_a_release_that_fails_brings_the_old_one_back(lab: Lab):
    lab.deploy(web=["serve", "first"], **{"file_mini.toml": TOML})
    info = lab.deploy(web=["exit", "1"], **{"file_mini.toml": TOML})
    assert info.state == "failed"
    assert lab.get() == (200, "first")
    assert not lab.store.apps.get("blog").hold


# --- real processes, under load

ONE_WRITER = """
import fcntl, http.server, os, sys
lock = open("data/lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit("another instance writes already")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = os.environ.get("COLOUR", "none").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


@contextmanager
def load(platform: MiniPlatform, clients: int = 16) -> Iterator[Counter[str]]:
    """Clients that ask again and again, half of them on a connection that is kept; counts what they were told."""
    told: Counter[str] = Counter()
    stop = threading.Event()

    def ask(kept: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=30)
        while not stop.wait(0.02):
            try:
                connection.request("GET", "/", headers={"Host": f"blog.localhost:{platform.port}"})
                answer = connection.getresponse()
                answer.read()
                told[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                told[repr(error)] += 1
                connection.close()
            if not kept:
                connection.close()
        connection.close()

    threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join(40)


@pytest.mark.slow
def test_no_request_fails_while_one_writer_takes_over_from_another(tmp_path: Path):
    platform = MiniPlatform(tmp_path / "home", "process")
    files = {
        "app.py": ONE_WRITER,
        "Procfile": "web: python3 app.py\n",
        "requirements.txt": "",
        "mini.toml": TOML + '[volumes]\ndata = "/app/data"\n',
    }
    source = write_files(tmp_path / "source", files)
    platform.up()
    try:
        platform.mini("deploy", str(source), "blog")
        with load(platform) as told:
            for colour in ("red", "green"):
                platform.mini("env", "set", f"COLOUR={colour}", "-a", "blog")
                assert platform.get("blog") == (200, colour)
            write_files(source, {"app.py": ONE_WRITER + "# changed\n"})
            platform.mini("deploy", str(source), "blog")
            platform.mini("restart", "-a", "blog")
            write_files(source, {"app.py": "raise SystemExit('broken')\n"})
            assert platform.mini("deploy", str(source), "blog", check=False).returncode == 1
            assert platform.get("blog") == (200, "green")
        assert told.pop("200") > 300
        assert not told, told
    finally:
        platform.mini("down", "--purge", "--yes", check=False)
    assert not platform.left_over()
