"""`.github/ship` against a real sshd: a new version, a version that does not work, and the database of before."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import urllib.request

from shipping_kit import REPOSITORY, Server, WheelMaker

NEWER, BROKEN, SILENT = "90.1.0", "90.2.0", "90.3.0"


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


def test_a_newer_version_is_shipped_and_the_database_stays(installed: Server, wheel: WheelMaker) -> None:
    before = kept(installed)
    done = ship(installed, str(wheel(NEWER)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ship: mini {NEWER} runs on {installed.login}" in done.stdout
    assert serving(installed) == NEWER
    assert kept(installed) == before
    assert "kept" in before[0] and "blog" in before[1]
    (backup,) = (installed.home / "data" / "backups").glob("mini-90.0.0-*.db")
    with sqlite3.connect(backup) as copy:
        assert ("blog",) in copy.execute("SELECT name FROM apps").fetchall()
    copy.close()


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
        {"mini_core/server/operations.py": ("    return Alive(", "    raise RuntimeError('ill')\n    return Alive(")},
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
