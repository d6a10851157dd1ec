"""A whole platform of a test's own: the real command, its own MINI_HOME, real processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from mini_core.testing import free_port

MINI = str(Path(sys.executable).with_name("mini"))

BYTE_CODE = str(Path(tempfile.gettempdir()) / f"mini-tests-byte-code-{os.getuid()}")
"""Compiled modules, as an installed mini has them; kept from one run to the next, apart from the working tree."""


class MiniPlatform:
    """A platform of the test's own. `mini(...)` runs the command; `get` asks the router for an app's page."""

    def __init__(self, home: Path, runtime: str) -> None:
        self.home = home
        self.runtime = runtime
        self.port = free_port()
        self.env = {**os.environ, "MINI_HOME": str(home), "NO_COLOR": "1"}
        self.env["PYTHONPYCACHEPREFIX"] = BYTE_CODE
        for name in ("MINI_APP", "MINI_HOST", "MINI_API_KEY", "PYTHONDONTWRITEBYTECODE"):
            self.env.pop(name, None)

    def mini(
        self, *arguments: str, check: bool = True, cwd: Path | None = None, timeout: float = 600, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MINI, *arguments], env=self.env, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            pytest.fail(f"mini {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.mini(*arguments, "--json").stdout)

    def up(self) -> None:
        self.mini("up", "--detach", "--runtime", self.runtime, "--port", str(self.port))

    def get(self, app: str, path: str = "/", *, seconds: float = 15, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path, headers={"Host": f"{app}.localhost:{self.port}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def controller_pid(self) -> int:
        return int(self.json("status")["pid"])

    def kill_controller(self) -> int:
        """`kill -9`, and waits until it is gone. Returns the pid that it had."""
        pid = self.controller_pid()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while _alive(pid):
            assert time.monotonic() < deadline, "the controller survived kill -9"
            time.sleep(0.01)
        return pid

    def left_over(self) -> list[str]:
        """Processes, containers, networks and volumes that carry this platform's home or id."""
        deadline = time.monotonic() + 5
        while processes_of(self.home) and time.monotonic() < deadline:
            time.sleep(0.05)  # the controller has let go of everything, and ends
        found = [f"process {pid}: {line}" for pid, line in processes_of(self.home)]
        platform = self.home / "platform-id"
        if self.runtime == "docker" and platform.exists():
            label = f"label=mini.platform={platform.read_text()}"
            for kind in ("container", "network", "volume", "image"):
                every = ["-a"] if kind == "container" else []
                command = ["docker", kind, "ls", "-q", *every, "--filter", label]
                listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                found += [f"{kind} {item}" for item in listed]
        return found

    def remember_id(self) -> None:
        (self.home / "platform-id").write_text(self.json("status")["platform"])


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_of(home: Path) -> list[tuple[int, str]]:
    """(pid, command line) of the processes whose command line or MINI_HOME says that they are of this platform."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                environment = (entry / "environ").read_bytes().split(b"\0")
                if str(home) in line or f"MINI_HOME={home}".encode() in environment:
                    found.append((int(entry.name), line))
    return found
