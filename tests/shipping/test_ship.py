"""`.github/ship` against a real sshd: a new version, a version that does not work, and the database of before."""

from __future__ import annotations

import http.client
import json
import sqlite3
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from shipping_kit import REPOSITORY, Server, WheelMaker, until

from tests.chaos.load import steady_load

NEWER, STEADY, BROKEN, SILENT = "90.1.0", "90.1.1", "90.2.0", "90.3.0"


def ship(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / ".github" / "ship"), *server.options, server.login, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def serving(server: Server) -> str:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=10) as answer:
        return str(json.load(answer)["version"])


def kept(server: Server) -> tuple[list[str], list[str]]:
    keys = json.loads(server.ssh("mini keys --json"))
    apps = json.loads(server.ssh("mini apps --json"))
    return sorted(key["name"] for key in keys), [app["name"] for app in apps]


class Visitors:
    """Ask for an app without a pause, as long as the block lasts; failed: what they got instead of its page."""

    def __init__(self, server: Server, host: str) -> None:
        self._server, self._host = server, host
        self._left = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(3)]
        self.answered = 0
        self.failed: list[str] = []

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join()

    def _visit(self) -> None:
        while not self._left.wait(0.005):
            connection = http.client.HTTPConnection("127.0.0.1", self._server.web, timeout=20)
            try:
                connection.request("GET", "/", headers={"Host": self._host})
                answer = connection.getresponse()
                if (answer.status, answer.read()) != (200, b"hello"):
                    self.failed.append(f"status {answer.status}")
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()


def serving_workers(server: Server) -> set[int]:
    found = json.loads(server.ssh("mini status --json"))["router_status"]["workers"]
    return {worker["pid"] for worker in found if worker["state"] == "serving"}


def test_a_newer_version_is_shipped_the_database_stays_and_no_visitor_notices(
    installed: Server, wheel: WheelMaker
) -> None:
    page = installed.folder / "page"
    page.mkdir()
    (page / "index.html").write_text("hello")
    installed.ssh(f"mini deploy {page} hello")
    before, workers = kept(installed), serving_workers(installed)
    with Visitors(installed, "hello.localhost") as visitors:
        done = ship(installed, str(wheel(NEWER)))
        assert done.returncode == 0, done.stdout + done.stderr
        until(lambda: not workers & serving_workers(installed))  # the router runs the new code, too
    assert visitors.failed == []
    assert visitors.answered > 50
    assert f"ship: mini {NEWER} runs on {installed.login}" in done.stdout
    assert serving(installed) == NEWER
    assert kept(installed) == before
    assert "kept" in before[0] and "blog" in before[1]
    (backup,) = (installed.home / "data" / "backups").glob("mini-90.0.0-*.db")
    with sqlite3.connect(backup) as copy:
        assert ("blog",) in copy.execute("SELECT name FROM apps").fetchall()
    copy.close()


@pytest.mark.slow
@pytest.mark.load
def test_no_request_of_a_steady_load_is_lost_by_an_upgrade(
    installed: Server, wheel: WheelMaker, tmp_path: Path
) -> None:
    """`mini server upgrade` itself: the app, the platform's own page and the router's code on the way."""
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("steady")
    installed.ssh(f"mini deploy {tmp_path / 'page'} steady")
    newer, workers = wheel(STEADY), serving_workers(installed)
    with steady_load(tmp_path, installed.web, "steady.localhost") as load:
        enough = time.monotonic() + 6  # seconds of load, however quick the upgrade is
        told = installed.ssh(f"mini server upgrade {newer} 2>&1")
        until(lambda: not workers & serving_workers(installed) and time.monotonic() > enough)
    print(load.summary())
    assert STEADY in told
    assert serving(installed) == STEADY
    assert load.total > 1000
    assert (load.failed, load.errors) == (0, [])


def test_a_version_that_does_not_start_is_taken_back_with_its_migration(installed: Server, wheel: WheelMaker) -> None:
    before = serving(installed), kept(installed)
    migrated = "sqlite3.connect(paths.database).execute('CREATE TABLE half_done (id INTEGER)')"
    broken = wheel(
        BROKEN,
        {
            "mini_core/server/daemon.py": (
                "            controller.start()\n",
                f"            import sqlite3\n            {migrated}\n            raise RuntimeError('broken')\n",
            )
        },
    )
    done = ship(installed, str(broken))
    assert done.returncode == 1
    assert "The server could not start: broken" in done.stderr
    assert "ship: not shipped; the server still runs" in done.stderr
    assert (serving(installed), kept(installed)) == before
    with sqlite3.connect(installed.home / "data" / "mini.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    database.close()
    assert "half_done" not in tables


def test_a_version_that_starts_and_does_not_answer_is_taken_back(installed: Server, wheel: WheelMaker) -> None:
    before = serving(installed), kept(installed)
    silent = wheel(
        SILENT,
        {"mini_core/server/handlers.py": ("    return Alive(", "    raise RuntimeError('ill')\n    return Alive(")},
    )
    done = ship(installed, str(silent))
    assert done.returncode == 1
    assert f"mini {SILENT} does not work here: Internal error" in done.stderr
    assert (serving(installed), kept(installed)) == before


def test_old_environments_are_removed_but_the_one_before(installed: Server) -> None:
    assert len(list((installed.prefix / "venvs").iterdir())) <= 2


def test_a_host_without_mini_and_wrong_usage_say_what_to_do(server: Server, tmp_path: object) -> None:
    assert ship(server, "missing.whl").returncode == 2
    usage = subprocess.run([str(REPOSITORY / ".github" / "ship")], capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert "USER@HOST [WHEEL]" in usage.stderr
