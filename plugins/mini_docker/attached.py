"""Commands with their streams connected: one-off instances, and what is run in an instance."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mini_core.interfaces import OneOff
from mini_core.types import Secret
from mini_docker.engine import Client, Engine
from mini_docker.streams import chunks, let_go, raw_socket


class _Attached(OneOff):
    """What one-off instances and commands in running ones have in common: a connection with three streams."""

    def __init__(self, client: Client, sock: Any, *, tty: bool) -> None:
        self._client, self._holder, self._tty = client, sock, tty
        self._socket = raw_socket(sock)
        with contextlib.suppress(AttributeError):
            self._socket.settimeout(None)
        self._lock = threading.Lock()

    def output(self) -> Iterator[tuple[str, bytes]]:
        yield from chunks(self._socket, tty=self._tty)

    def write(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def close_stdin(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, rows: int, columns: int) -> None:
        raise NotImplementedError

    def _let_go(self) -> None:
        let_go(self._holder)
        self._client.close()


class Attachment(_Attached):
    """A one-off instance: a container that is started once its streams are connected, and removed afterwards."""

    def __init__(self, engine: Engine, container: str, *, tty: bool, stdin: bool) -> None:
        client = engine.connect()
        wanted = {"stdin": int(stdin), "stdout": 1, "stderr": 1, "stream": 1}
        with engine.reached():
            sock = client.attach_socket(container, params=wanted)
        super().__init__(client, sock, tty=tty)
        self._engine, self._container = engine, container
        self._code: int | None = None

    def start(self) -> None:
        with self._engine.reached():
            self._engine.api.start(self._container)

    def resize(self, rows: int, columns: int) -> None:
        with _gone(), self._engine.reached():
            self._engine.api.resize(self._container, rows, columns)

    def signal(self, number: int) -> None:
        with _gone(), self._engine.reached():
            self._engine.api.kill(self._container, number)

    def wait(self) -> int:
        if self._code is None:
            client = self._engine.connect()
            with contextlib.closing(client), self._engine.reached():
                url = client._url("/containers/{0}/wait", self._container)
                self._code = int(client._result(client._post(url, timeout=None), json=True)["StatusCode"])
        return self._code

    def close(self) -> None:
        self._let_go()
        with _gone(), self._engine.reached():
            self._engine.api.remove_container(self._container, force=True)


class Execution(_Attached):
    """A command in a running instance."""

    def __init__(
        self, engine: Engine, container: str, command: Sequence[str], *, tty: bool, env: Mapping[str, Secret]
    ) -> None:
        self._engine, self._container = engine, container
        client = engine.connect()
        with engine.reached():
            made = client.exec_create(
                container,
                list(command),
                stdin=True,
                tty=tty,
                environment={name: text.reveal() for name, text in env.items()},
            )
            self._id = made["Id"]
            sock = client.exec_start(self._id, tty=tty, socket=True)
        super().__init__(client, sock, tty=tty)

    def resize(self, rows: int, columns: int) -> None:
        with _gone(), self._engine.reached():
            self._engine.api.exec_resize(self._id, rows, columns)

    def signal(self, number: int) -> None:
        """The engine has no call for it: by process id, from here or, where that is not allowed, from inside."""
        pid = self._pid()
        inner = _inner_pid(pid)
        try:
            if inner:
                os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            kill = ["sh", "-c", f"kill -{int(number)} {inner}"]
            made = self._engine.api.exec_create(self._container, kill, user="0")
            self._engine.api.exec_start(made["Id"])

    def _pid(self) -> int:
        """On the engine's machine. The engine answers before the process is there: it is waited for."""
        deadline = time.monotonic() + 2
        while True:
            found = self._inspect()
            if found["Pid"] or found["ExitCode"] is not None or time.monotonic() > deadline:
                return int(found["Pid"] or 0)
            time.sleep(0.01)

    def wait(self) -> int:
        pause = 0.01
        while True:
            found = self._inspect()
            if found["ExitCode"] is not None and not found["Running"]:
                return int(found["ExitCode"])
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    def _inspect(self) -> dict[str, Any]:
        """As the engine knows it; it forgets commands with their container, which has then killed them."""
        import docker.errors

        try:
            with self._engine.reached():
                found: dict[str, Any] = self._engine.api.exec_inspect(self._id)
                return found
        except docker.errors.NotFound:
            return {"Running": False, "ExitCode": 128 + signal.SIGKILL, "Pid": 0}

    def close(self) -> None:
        with _gone(), self._engine.reached():
            if self._inspect()["ExitCode"] is None:
                self.signal(signal.SIGKILL)
        self._let_go()


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """It is no failure when the container is not there, or not running, any more."""
    import docker.errors

    with contextlib.suppress(docker.errors.APIError):
        yield


def _inner_pid(pid: int) -> int:
    """The process id that a process of this machine has in its container (proc(5), NSpid); 0 if there is none."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:  # noqa: PTH123
            lines = dict(line.split(":", 1) for line in status if ":" in line)
        inner = lines["NSpid"].split()
    except (OSError, KeyError, ValueError):
        return 0
    return int(inner[-1]) if pid and len(inner) > 1 else 0
