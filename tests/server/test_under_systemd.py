"""The commands of the units, started as systemd starts them: sockets handed over, readiness told."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_kit import Client, until

from mini_core.paths import find_paths, private_folder
from mini_core.server import ports, units
from mini_core.server.layout import MANAGED, Layout

pytestmark = pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="there is no systemd-socket-activate here"
)


def command_of(unit: str, layout: Layout) -> list[str]:
    """What systemd would execute, with the Python that runs the tests."""
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    assert words[0] == str(layout.python)
    return [sys.executable, *words[1:]]


class Machine:
    """Folders as `mini server install` lays them out, and a socket on which systemd would listen."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(home=folder / "home", run=folder / "run")
        self.paths = find_paths(str(self.layout.home))
        self.port = ports.choose_port(["127.0.0.1"], range(20500, 20600))
        for path in (self.layout.run, self.paths.config, self.paths.data):
            private_folder(path)
        self.paths.run.symlink_to(self.layout.run)
        (self.paths.config / MANAGED).touch()
        self.paths.settings.write_text(f'bind = ["127.0.0.1"]\nport = {self.port}\nruntime = "process"\n')
        self.environment = {**os.environ, "MINI_HOME": str(self.layout.home), "INVOCATION_ID": "1"}
        self.started: list[subprocess.Popen[bytes]] = []

    def start_router(self) -> None:
        command = command_of(units.router_service(self.layout), self.layout)
        passed = [f"--setenv={name}" for name in self.environment]
        self._start(["systemd-socket-activate", "-l", f"127.0.0.1:{self.port}", *passed, *command])
        until(lambda: not ports.is_free(["127.0.0.1"], self.port))
        with socket.create_connection(("127.0.0.1", self.port)):  # what makes systemd start the service
            until((self.layout.run / "router" / "router.sock").exists)

    def start_controller(self) -> subprocess.Popen[bytes]:
        """Returns when the process says that it is ready, as `Type=notify` waits for it."""
        address = self.layout.run / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(address))
            notify.settimeout(60)
            command = command_of(units.controller_service(self.layout, docker=False), self.layout)
            process = self._start(command, NOTIFY_SOCKET=str(address))
            assert notify.recv(100) == b"READY=1"
        return process

    def _start(self, command: list[str], **more: str) -> subprocess.Popen[bytes]:
        environment = {**self.environment, **more}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def health(self) -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=20) as answer:
            found = json.load(answer)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="mini-unit-"))
    machine = Machine(folder)
    yield machine
    for process in reversed(machine.started):
        process.terminate()
        process.wait(30)
    shutil.rmtree(folder)


def test_the_router_keeps_systemds_socket_while_the_controller_comes_and_goes(machine: Machine) -> None:
    machine.start_router()
    controller = machine.start_controller()
    assert machine.health()["status"] == "ok"
    assert Client(machine.layout.run / "admin.sock").get("/v1/keys").json() == []  # an operator makes the first one
    assert (machine.layout.run / "admin.sock").stat().st_mode & 0o777 == 0o660
    router = Client(machine.paths.admin_socket).get("/v1/status").json()["router_status"]["pid"]

    controller.send_signal(signal.SIGTERM)
    assert controller.wait(30) == 0
    machine.start_controller()
    assert machine.health()["status"] == "ok"
    assert Client(machine.paths.admin_socket).get("/v1/status").json()["router_status"]["pid"] == router
