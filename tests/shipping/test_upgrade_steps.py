"""The steps of an upgrade, one by one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from mini_core import api
from mini_core.paths import Paths, find_paths
from mini_core.server import check, upgrade, venvs
from mini_core.server.layout import Layout
from mini_core.server.venvs import InstallError
from mini_core.types import encode


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = find_paths(str(tmp_path / "home"))
    found.data.mkdir(parents=True)
    execute(found.database, "PRAGMA journal_mode=WAL", "CREATE TABLE apps (name)", "INSERT INTO apps VALUES ('blog')")
    found.database.chmod(0o600)
    return found


def execute(database: Path, *statements: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def fake_environment(folder: Path, script: str) -> Path:
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return folder


def plugin(state: str, reason: str = "") -> api.PluginInfo:
    return api.PluginInfo(name="redis", version="1.0", origin="mini-redis", state=state, reason=reason)


# --- plugins


def test_a_plugin_that_would_break_stops_the_upgrade(tmp_path: Path) -> None:
    then = check.Report(version="2.0.0", plugins=(plugin("broken", "it needs mini <2"),))
    venv = fake_environment(tmp_path / "new", f"cat <<'E'\n{encode(then).decode()}\nE")
    with pytest.raises(InstallError) as error:
        upgrade.check_plugins(venv, check.Report(version="1.0.0", plugins=(plugin("ok"),)))
    assert error.value.message == "The plugin redis does not work with mini 2.0.0: it needs mini <2"
    assert error.value.hint == "Upgrade mini-redis first, or remove it: mini plugins remove redis"
    assert upgrade.check_plugins(venv, check.Report(version="1.0.0", plugins=(plugin("broken"),))) == then


def test_a_plugin_that_is_missing_stops_the_upgrade(tmp_path: Path) -> None:
    then = encode(check.Report(version="2.0.0", plugins=())).decode()
    venv = fake_environment(tmp_path / "new", f"cat <<'E'\n{then}\nE")
    with pytest.raises(InstallError, match="it is not there any more"):
        upgrade.check_plugins(venv, check.Report(version="1.0.0", plugins=(plugin("ok"),)))


def test_code_that_does_not_load_stops_the_upgrade_with_its_last_lines(tmp_path: Path) -> None:
    venv = fake_environment(tmp_path / "new", "echo 'SyntaxError: invalid syntax' >&2; exit 1")
    with pytest.raises(InstallError) as error:
        upgrade.check_plugins(venv, check.report())
    assert error.value.tail == ("SyntaxError: invalid syntax",)


def test_this_environment_reports_the_built_in_plugins() -> None:
    assert {"docker", "process", "proxy", "buildpacks"} <= {info.name for info in check.report().plugins}


# --- the database


def test_a_backup_holds_what_was_only_in_the_log_yet(paths: Paths) -> None:
    with contextlib.closing(sqlite3.connect(paths.database)) as open_elsewhere, open_elsewhere:
        open_elsewhere.execute("INSERT INTO apps VALUES ('shop')")
        open_elsewhere.commit()
        backup = upgrade.back_up(paths, "1.0.0")
    assert backup
    assert execute(backup, "SELECT name FROM apps ORDER BY name") == [("blog",), ("shop",)]
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700


def test_the_last_few_backups_are_kept(paths: Paths) -> None:
    for number in range(upgrade.KEEP_BACKUPS + 3):
        backup = upgrade.back_up(paths, f"1.0.{number}")
        assert backup
        os.utime(backup, (number, number))
    left = sorted(path.name.split("-")[1] for path in (paths.data / "backups").iterdir())
    assert left == [f"1.0.{number}" for number in range(3, upgrade.KEEP_BACKUPS + 3)]


def test_a_database_is_put_back_as_it_was(paths: Paths) -> None:
    backup = upgrade.back_up(paths, "1.0.0")
    assert backup
    assert upgrade.schema(backup) == upgrade.schema(paths.database)
    execute(paths.database, "ALTER TABLE apps ADD COLUMN more", "DELETE FROM apps")
    assert upgrade.schema(backup) != upgrade.schema(paths.database)
    upgrade.restore(backup, paths.database)
    assert execute(paths.database, "SELECT * FROM apps") == [("blog",)]
    assert paths.database.stat().st_mode & 0o777 == 0o600


def test_without_a_database_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    assert upgrade.back_up(find_paths(str(tmp_path)), "1.0.0") is None


# --- environments


def test_the_link_is_changed_in_one_step_and_old_environments_go(tmp_path: Path) -> None:
    layout = Layout(prefix=tmp_path)
    made = [layout.venvs / name for name in ("one", "two", "three")]
    for venv in made:
        venv.mkdir(parents=True)
        venvs.switch(layout, venv)
    assert venvs.in_force(layout) == made[2]
    assert layout.python == tmp_path / "current/bin/python"
    venvs.prune(layout, keep=made[1:])
    assert sorted(path.name for path in layout.venvs.iterdir()) == ["three", "two"]


def test_what_was_not_installed_by_mini_is_not_upgraded(tmp_path: Path, paths: Paths) -> None:
    layout = Layout(prefix=tmp_path / "none")
    with pytest.raises(InstallError, match="No server is installed here"):
        upgrade.upgrade(layout, paths, upgrade.LocalService(paths, layout), "x.whl", print)


def test_two_upgrades_at_once_do_not_happen(tmp_path: Path) -> None:
    layout = Layout(prefix=tmp_path)
    first = upgrade.one_at_a_time(layout)
    with first, pytest.raises(InstallError, match="Another upgrade runs"), upgrade.one_at_a_time(layout):
        pass
    with upgrade.one_at_a_time(layout):
        pass


def test_a_failing_installer_shows_its_last_lines_and_leaves_nothing(tmp_path: Path) -> None:
    layout = Layout(prefix=tmp_path)
    with pytest.raises(InstallError) as error:
        venvs.build(layout, str(tmp_path / "missing.whl"))
    assert error.value.tail
    assert list(layout.venvs.iterdir()) == []


def test_services_get_a_python_that_they_can_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    hidden = tmp_path / "python"
    hidden.symlink_to("/bin/true")
    assert not venvs.open_to_others(hidden)
    with pytest.raises(InstallError, match=r"No Python 3\.11 that services can use") as error:
        venvs.shared_python([hidden, tmp_path / "missing"])
    assert error.value.hint == "apt install python3 python3-venv, then try again."
    assert venvs.shared_python([hidden, Path("/bin/true")]) == Path("/bin/true")


def test_uv_is_used_where_it_is_and_pip_otherwise(tmp_path: Path) -> None:
    assert venvs.install_command(tmp_path, ["x.whl"], "/usr/bin/uv")[:3] == ["/usr/bin/uv", "pip", "install"]
    assert venvs.install_command(tmp_path, ["x.whl"], None)[:4] == [f"{tmp_path}/bin/python", "-m", "pip", "install"]


# --- probing


def test_an_app_that_answered_before_and_does_not_now_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "ask", lambda host, address, path="/": 200 if host == "localhost" else 502)
    before = upgrade.Seen(version="1", address="127.0.0.1:80", apps={"blog.localhost": 200, "sick.localhost": 500})
    now = upgrade.Seen(version="2", address="127.0.0.1:80", apps={"blog.localhost": 502, "sick.localhost": 502})
    assert upgrade._worse(now, before) == "blog.localhost answered 200 before and now 502"
    assert upgrade._worse(before, before) == ""
