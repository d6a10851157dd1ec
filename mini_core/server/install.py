"""`mini server install` and `uninstall`: a user of its own, an environment, services, the first key.

Every step looks first whether it is done, so that the whole can be repeated.
"""

from __future__ import annotations

import shutil
import socket
from typing import Any

from mini_core.server import adminclient, units, venvs
from mini_core.server.layout import MANAGED, USER, Layout
from mini_core.server.machine import Machine, has_group, has_systemd, has_user, is_root
from mini_core.server.units import Server
from mini_core.server.venvs import InstallError
from mini_core.types import Value

FIRST_KEY = "admin"
SERVICES = ("mini-router.socket", "mini-router.service", "mini.service")


class Installed(Value):
    """url: the server's own address. key: the first key, made now; "" where there was one already."""

    url: str
    key: str = ""


def install(machine: Machine, server: Server, layout: Layout | None = None, *, requirement: str = "") -> Installed:
    """requirement: what pip gets instead of the version that runs here. Raises InstallError."""
    layout = layout or Layout()
    if machine.real:
        require_server()
    make_user(machine, server, layout)
    make_folders(machine, layout)
    changed = make_environment(machine, layout, requirement)
    changed |= write_files(machine, server, layout)
    start_services(machine, changed)
    key = first_key(layout) if machine.real else ""
    return Installed(url=own_url(server), key=key)


def require_server() -> None:
    if not has_systemd():
        raise InstallError("A server needs a machine that systemd runs.", hint="For this user alone: mini up --detach")
    if not is_root():
        raise InstallError("This needs root.", hint='sudo "$(command -v mini)" server install')


def make_user(machine: Machine, server: Server, layout: Layout) -> None:
    if not machine.real or not has_user(USER):
        shell = "/usr/sbin/nologin"
        machine.run("useradd", "--system", "--user-group", "--home-dir", str(layout.home), "--shell", shell, USER)
    if server.docker:
        machine.run("usermod", "--append", "--groups", "docker", USER)


def make_folders(machine: Machine, layout: Layout) -> None:
    """The group may pass to the admin socket; everything else is the user's alone."""
    machine.folder(layout.prefix, 0o755)
    machine.folder(layout.etc, 0o755)
    machine.folder(layout.home, 0o750, USER)
    for name in ("config", "data", "cache", "tmp"):
        machine.folder(layout.home / name, 0o750, USER)
    machine.link(layout.home / "data" / "run", layout.run)


def make_environment(machine: Machine, layout: Layout, requirement: str) -> bool:
    """Whether there is a new one."""
    if not machine.real:
        machine.run("python3", "-m", "venv", str(layout.venvs / "VERSION"))
        return True
    if venvs.in_force(layout) is not None and not requirement:
        return False
    base = venvs.shared_python([venvs.base_python(), venvs.SYSTEM_PYTHON])
    venv = venvs.build(layout, requirement or venvs.own_requirement(), venvs.plugin_requirements(), base)
    venvs.switch(layout, venv)
    return True


def write_files(machine: Machine, server: Server, layout: Layout) -> bool:
    """Whether a service must start anew."""
    written = [machine.write(path, text, mode) for path, (text, mode) in units.files(server, layout).items()]
    machine.link(layout.command, layout.prefix / "bin" / "mini")
    settings = layout.home / "config" / "server.toml"
    if not machine.at(settings).exists():
        machine.write(settings, units.server_toml(server), 0o640, USER)
    machine.write(layout.home / "config" / MANAGED, "mini.service\n", 0o644, USER)
    machine.link(layout.etc / "server.toml", settings)
    return any(written)


def start_services(machine: Machine, changed: bool) -> None:
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", *SERVICES)
    if changed:
        machine.run("systemctl", "stop", *reversed(SERVICES))
    machine.run("systemctl", "start", *SERVICES)


def first_key(layout: Layout) -> str:
    admin = layout.run / "admin.sock"
    if any(key["name"] == FIRST_KEY for key in adminclient.call(admin, "GET", "/v1/keys")):
        return ""
    return str(adminclient.call(admin, "POST", "/v1/keys", {"name": FIRST_KEY})["key"])


def own_url(server: Server) -> str:
    suffix = "" if server.port == 80 else f":{server.port}"
    return f"http://{f'mini.{server.domain}' if server.domain else own_address()}{suffix}"


def own_address() -> str:
    """The address that this machine has towards the world; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def docker_wanted(runtime: str) -> bool:
    return runtime in ("", "docker") and has_group("docker") and shutil.which("docker") is not None


# --- and back


def uninstall(machine: Machine, layout: Layout | None = None, *, purge: bool = False) -> None:
    """Stops and removes what `install` made. purge: also the apps, the state and the user."""
    layout = layout or Layout()
    if machine.real:
        require_server()
        _stop_everything(layout, purge)
    machine.run("systemctl", "disable", "--now", *reversed(SERVICES))
    for name in SERVICES:
        machine.remove(layout.units / name)
    machine.run("systemctl", "daemon-reload")
    machine.remove(layout.command)
    machine.remove(layout.prefix)
    machine.remove(layout.etc)
    if purge:
        machine.remove(layout.home)
        if not machine.real or has_user(USER):
            machine.run("userdel", USER)


def _stop_everything(layout: Layout, purge: bool) -> None:
    admin: Any = layout.run / "admin.sock"
    if adminclient.answers(admin):
        for _ in adminclient.lines(admin, "POST", "/v1/internal/shutdown", {"purge": purge}):
            pass


def laptop_commands(installed: Installed) -> tuple[str, str]:
    """What to type on the laptop."""
    return f"mini config set-host {installed.url}", f"mini config set-api-key {installed.key or 'KEY'}"
