"""The whole way on a real platform: started by the first deploy, found again after a kill, stopped, purged."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core.testing import free_port, until

MINI = [sys.executable, "-m", "mini_core.cli.main"]
pytestmark = pytest.mark.slow


class Laptop:
    """A user's machine with a folder of theirs, and nothing started."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.site = home / "site"
        self.env = {**os.environ, "MINI_HOME": str(home / "m"), "NO_COLOR": "1"}
        for name in ("MINI_HOST", "MINI_APP", "MINI_API_KEY"):
            self.env.pop(name, None)
        settings = home / "m/config/server.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(f'runtime = "process"\nport = {self.port}\n')
        self.site.mkdir()
        (self.site / "index.html").write_text("<p>first</p>")

    def mini(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*MINI, *arguments], cwd=self.site, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def page(self, app: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/", headers={"Host": f"{app}.localhost"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def laptop() -> Iterator[Laptop]:
    home = Path(tempfile.mkdtemp(prefix="mini-real-"))
    found = Laptop(home)
    yield found
    subprocess.run([*MINI, "down", "--purge", "--yes"], env=found.env, capture_output=True, timeout=60)
    shutil.rmtree(home, ignore_errors=True)


def test_from_nothing_to_a_page_and_back(laptop: Laptop):
    assert laptop.mini("apps", code=1).stderr.splitlines()[-1] == "Start it: mini deploy . or mini up"

    done = laptop.mini("deploy", ".")
    assert f"Local platform started (process runtime, port {laptop.port}). Stop it: mini down" in done.stderr
    (app,) = json.loads(laptop.mini("apps", "--json").stdout)
    assert f'Named {app["name"]}. To share it: app = "{app["name"]}" in mini.toml' in done.stderr
    assert f"🚀 Your app is live at: http://{app['name']}.localhost:{laptop.port}" in done.stdout
    assert laptop.page(app["name"]) == "<p>first</p>"

    assert "Unchanged: " in laptop.mini("deploy").stderr
    (laptop.site / "index.html").write_text("<p>second</p>")
    laptop.mini("deploy")
    assert laptop.page(app["name"]) == "<p>second</p>"

    pid = json.loads(laptop.mini("status", "--json").stdout)["pid"]
    os.kill(pid, signal.SIGKILL)
    assert laptop.page(app["name"]) == "<p>second</p>"
    assert json.loads(laptop.mini("status", "--json").stdout)["pid"] != pid
    assert laptop.mini("releases").stdout.splitlines()[1].startswith("v2")

    laptop.mini("rollback")
    assert laptop.page(app["name"]) == "<p>first</p>"

    laptop.mini("down")
    assert laptop.mini("ps", code=1).stderr.splitlines() == [
        "Error: The local platform is stopped",
        "Start it: mini up",
    ]
    laptop.mini("up", "--detach")
    until(lambda: laptop.page(app["name"]) == "<p>first</p>", seconds=30, what="the page after a restart")

    laptop.mini("apps", "destroy", app["name"], "--yes")
    assert json.loads(laptop.mini("apps", "--json").stdout) == []
    assert laptop.mini("logs", code=2).stderr.startswith("Error: No app named")


def test_an_upload_that_is_no_app_says_what_was_looked_for_and_can_be_looked_at_again(laptop: Laptop, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    done = laptop.mini("deploy", str(tmp_path), "notes", code=1)
    assert "Error: Deploy " in done.stderr and "package.json" in done.stderr
    number = json.loads(laptop.mini("deploys", "--json").stdout)[0]["id"]
    assert "package.json" in laptop.mini("deploys", "show", str(number)).stdout
