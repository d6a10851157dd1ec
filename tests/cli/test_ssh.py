"""`ssh://`: the server's admin socket, through a real ssh and a real sshd on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mini_core.client import transport
from mini_core.client.address import parse_address
from mini_core.testing import free_port, until
from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeController, FakeServer

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = pytest.mark.skipif(not Path(SSHD).exists() or not shutil.which("ssh"), reason="no sshd or ssh here")


@dataclass
class Sshd:
    port: int
    folder: Path

    def url(self, socket: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{socket}"


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    folder = Path(tempfile.mkdtemp(prefix="mini-sshd-"))
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    lines = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"PidFile {folder}/pid"]
    lines += [f"AuthorizedKeysFile {folder}/authorized", "StrictModes no", "PermitRootLogin yes", "UsePAM no"]
    (folder / "config").write_text("\n".join([*lines, "AllowStreamLocalForwarding yes"]) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd goes when it drops its rights
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    yield Sshd(port, folder)
    process.terminate()
    process.wait()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def own_key(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An `ssh` with a configuration of the test's own."""
    real = shutil.which("ssh")
    options = f"-F none -i {sshd.folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile={tmp_path}/known"
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {real} {options} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.fixture
def remote(controller: FakeController) -> Iterator[tuple[FakeController, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="mini-admin-"))
    server = FakeServer(controller, socket=folder / "admin.sock")
    yield controller, folder / "admin.sock"
    server.close()
    shutil.rmtree(folder)


def test_commands_and_deploys_go_through_the_tunnel_without_a_key(
    mini: Mini, sshd: Sshd, remote: tuple[FakeController, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    controller, socket = remote
    monkeypatch.setenv("MINI_API_KEY", "mini_not_for_this")
    url = sshd.url(socket)

    def accepts() -> bool:
        return subprocess.run(["ssh-keyscan", "-p", str(sshd.port), "127.0.0.1"], capture_output=True).stdout != b""

    until(accepts, what="sshd")
    mini("deploy", ".", "blog", "--host", url)
    assert list(controller.known) == ["blog"] and len(controller.sources) == 1
    assert controller.keys_seen == []
    assert mini("status", "--host", url).out.startswith("mini 0.1.0 at http://127.0.0.1 ")
    assert _tunnels(socket) == []


def _tunnels(socket: Path) -> list[str]:
    """Command lines of the ssh processes that still forward to the socket."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f":{socket}" in line and line.startswith(("ssh", "/usr/bin/ssh")):
                found.append(line)
    return found


def test_no_socket_on_the_far_side_says_what_ssh_says(mini: Mini, sshd: Sshd, tmp_path: Path):
    lines = mini("apps", "--host", sshd.url(tmp_path / "nothing.sock"), code=1).err.splitlines()
    assert len(lines) == 2 and "open failed" in lines[0] and "group mini" in lines[1], lines


def test_no_server_at_all_says_what_ssh_says(mini: Mini):
    lines = mini("apps", "--host", f"ssh://127.0.0.1:{free_port()}", code=1).err.splitlines()
    assert lines[0].endswith("Connection refused") and lines[1].startswith("Try it by hand: ssh -p"), lines


def test_ssh_is_asked_for_no_more_than_one_forward():
    command = transport.tunnel_command(parse_address("ssh://me@host:22"), "/tmp/near", ask=False)
    assert command[0] == "ssh" and command[-3:] == ["-p", "22", "me@host"]
    assert command[command.index("-L") + 1] == "/tmp/near:/run/mini/admin.sock"
    assert "BatchMode=yes" in command and "-N" in command
