"""What the tests of shipping share: wheels of other versions, and a machine to ship to."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], limit: float = 60.0) -> None:
    """Waits for something that nothing can be waited on for."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError("sshd does not listen")


@dataclass
class WheelMaker:
    """Builds wheels of this repository, with another version and changed sources."""

    folder: Path

    def __call__(self, version: str, changes: dict[str, tuple[str, str]] | None = None) -> Path:
        source = self.folder / version
        if not source.exists():
            for name in ("mini_core", "plugins", "buildpacks"):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(REPOSITORY / name, source)
            (source / "mini_core/__init__.py").write_text(f'__version__ = "{version}"\n')
            for path, (old, new) in (changes or {}).items():
                text = (source / path).read_text()
                assert old in text, f"{path} has changed: adapt the test"
                (source / path).write_text(text.replace(old, new, 1))
            command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(source / "dist")]
            subprocess.run(command, cwd=source, check=True, capture_output=True)
        (built,) = (source / "dist").glob("*.whl")
        return built


@dataclass
class Server:
    """A machine to ship to: a real sshd on loopback, and folders of its own for mini."""

    folder: Path
    port: int
    web: int
    """The port of mini's router there."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web}"

    @property
    def login(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"

    @property
    def options(self) -> list[str]:
        return ["-p", str(self.port), "-i", str(self.folder / "key"), "-k", str(self.folder / "known_hosts")]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def prefix(self) -> Path:
        return self.folder / "opt"

    def ssh(self, command: str) -> str:
        """What the command printed, run through ssh."""
        options = ["-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}"]
        done = subprocess.run(
            ["ssh", "-p", str(self.port), "-i", str(self.folder / "key"), *options, self.login, command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def start_sshd(machine: Server) -> subprocess.Popen[bytes]:
    folder = machine.folder
    for name in ("key", "host_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "authorized_keys").write_text((folder / "key.pub").read_text())
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{machine.port} {host_key}")
    path = f"{machine.prefix / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    passed = " ".join(
        f'"{name}={item}"' for name, item in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_CERT"))
    )
    (folder / "sshd_config").write_text(
        f"Port {machine.port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\n"
        f"PidFile {folder / 'sshd.pid'}\nAuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
        f'SetEnv "MINI_HOME={machine.home}" "PATH={path}" {passed}\n'
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it drops its privileges
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    until_it_listens(machine.port, process)
    return process
