"""`mini server install`: files below a folder, units that systemd accepts, and the same again changes nothing."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from mini_core.cli.main import cli
from mini_core.paths import find_paths
from mini_core.server import install, units
from mini_core.server.layout import Layout, installed_prefix, is_managed
from mini_core.server.machine import Machine
from mini_core.settings import load_settings


def invoke(*arguments: str) -> str:
    from mini_core.cli.context import Context

    result = CliRunner().invoke(cli, ["server", *arguments], obj=Context(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    invoke("install", "--domain", "example.com", "--email", "me@example.com", "--port", "8443", "--root", str(tmp_path))
    return tmp_path


def test_the_settings_are_valid_and_say_what_was_asked(root: Path) -> None:
    settings = load_settings(root / "var/lib/mini/config/server.toml")
    assert (settings.domain, settings.email, settings.port) == ("example.com", "me@example.com", 8443)
    assert settings.bind == ("0.0.0.0", "::")


def test_the_command_and_the_services_share_one_home(root: Path) -> None:
    environment = dict(
        line.split("=", 1) for line in (root / "etc/mini/mini.env").read_text().splitlines() if line[:1] != "#"
    )
    assert environment["MINI_HOME"] == "/var/lib/mini"
    command = (root / "usr/local/bin/mini").readlink()
    assert command == Path("/opt/mini/bin/mini")
    text = (root / "opt/mini/bin/mini").read_text()
    assert "/var/lib/mini" in text
    assert (root / "opt/mini/bin/mini").stat().st_mode & 0o777 == 0o755


def test_folders_are_closed_and_the_sockets_are_where_clients_look(root: Path) -> None:
    for name in ("", "config", "data", "cache"):
        assert (root / "var/lib/mini" / name).stat().st_mode & 0o777 == 0o750
    assert (root / "var/lib/mini/data/run").readlink() == Path("/run/mini")
    from mini_core.client.address import ADMIN_SOCKET

    assert str(Layout().run / find_paths("/var/lib/mini").admin_socket.name) == ADMIN_SOCKET


def test_the_same_again_changes_nothing_and_keeps_the_operators_settings(root: Path) -> None:
    settings = root / "var/lib/mini/config/server.toml"
    settings.write_text('domain = "mine.example"\n')
    said: list[str] = []
    server = units.Server(domain="example.com", port=8443, docker=install.docker_wanted(""))
    install.install(Machine(said.append, root=root), server)
    assert [line for line in said if not line.startswith("run ")] == []
    assert settings.read_text() == 'domain = "mine.example"\n'


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    output = invoke("install", "--domain", "example.com", "--root", str(tmp_path), "--dry-run")
    assert "write  /etc/systemd/system/mini.service" in output
    assert "run    systemctl start mini-router.socket mini-router.service mini.service" in output
    assert list(tmp_path.iterdir()) == []


def test_uninstall_removes_the_server_and_keeps_its_state_unless_purged(root: Path) -> None:
    invoke("uninstall", "--root", str(root))
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    assert left and all(path.startswith("var/lib/mini/") for path in left)
    invoke("uninstall", "--purge", "--root", str(root))
    assert not (root / "var/lib/mini").exists()


def test_a_platform_that_services_run_is_started_by_nobody_else(root: Path) -> None:
    from mini_core.errors import Unavailable
    from mini_core.server import local

    paths = find_paths(str(root / "var/lib/mini"))
    assert is_managed(paths)
    with pytest.raises(Unavailable) as error:
        local.ensure_running(paths, first=True)
    assert error.value.hint == "sudo systemctl start mini"
    with pytest.raises(Unavailable, match="services run"):
        local.down(paths=paths)


# --- systemd


@pytest.fixture
def verified(tmp_path: Path) -> tuple[Layout, list[Path]]:
    """Units whose programs exist, so that nothing but the units themselves can be wrong."""
    layout = Layout(prefix=tmp_path / "opt", units=tmp_path / "units", etc=tmp_path / "etc")
    layout.python.parent.mkdir(parents=True)
    shutil.copy("/bin/true", layout.python)
    written = []
    for path, (text, mode) in units.files(units.Server(domain="example.com", docker=True), layout).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        written.append(path)
    return layout, [path for path in written if path.parent == layout.units]


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")


@needs_systemd
def test_systemd_accepts_the_units(verified: tuple[Layout, list[Path]]) -> None:
    _, paths = verified
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_services_are_confined(verified: tuple[Layout, list[Path]]) -> None:
    for path in verified[1]:
        if path.suffix == ".service":
            command = ["systemd-analyze", "security", "--offline=true", "--threshold=45", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_router_is_no_child_of_the_controller_and_apps_outlive_it() -> None:
    controller = units.controller_service(Layout(), docker=False)
    assert "KillMode=process" in controller
    assert "SupplementaryGroups" not in controller
    assert "Requires=mini-router.socket" in units.router_service(Layout())
    assert "ListenStream=0.0.0.0:80\nListenStream=[::]:80\nBindIPv6Only=ipv6-only" in units.router_socket(80)


# --- what is printed


def test_the_laptop_gets_two_commands() -> None:
    installed = install.Installed(url=install.own_url(units.Server(domain="example.com", port=8443)), key="mini_x")
    assert install.laptop_commands(installed) == (
        "mini config set-host http://mini.example.com:8443",
        "mini config set-api-key mini_x",
    )


def test_a_machine_without_systemd_or_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "has_systemd", lambda: False)
    with pytest.raises(install.InstallError) as error:
        install.require_server()
    assert error.value.hint == "For this user alone: mini up --detach"
    monkeypatch.setattr(install, "has_systemd", lambda: True)
    monkeypatch.setattr(install, "is_root", lambda: False)
    with pytest.raises(install.InstallError, match="needs root"):
        install.require_server()


def test_the_prefix_is_known_from_the_environment_that_runs(tmp_path: Path) -> None:
    (tmp_path / "venvs" / "one").mkdir(parents=True)
    assert installed_prefix(tmp_path / "venvs" / "one") is None
    (tmp_path / "current").symlink_to("venvs/one")
    assert installed_prefix(tmp_path / "current") == tmp_path
    assert installed_prefix(Path("/usr")) is None


def test_a_server_toml_holds_only_what_was_said() -> None:
    text = units.server_toml(units.Server(port=80))
    assert tomllib.loads(text) == {"bind": ["0.0.0.0", "::"], "port": 80}
