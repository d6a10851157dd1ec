"""Bytes to and from the engine: multiplexed output, one-offs, and connections that end with their job."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mini_core.interfaces import Job, OneOff
from mini_core.types import Secret

if TYPE_CHECKING:
    from mini_docker.engine import Client, Engine

Stream = Literal["stdout", "stderr"]
_HEADER = struct.Struct(">BxxxL")  # stream (1 stdout, 2 stderr), length: Docker's multiplexing of attach and logs


@contextlib.contextmanager
def ends_with(job: Job, close: Callable[[], None]) -> Iterator[None]:
    """Calls `close`, from another thread, when the job is cancelled or overdue before the block is left."""
    left = threading.Event()

    def watch() -> None:
        while not left.is_set():
            remaining = job.deadline - time.monotonic()
            if remaining <= 0 or job.cancelled.wait(min(remaining, 0.2)):
                if not left.is_set():
                    close()
                return

    thread = threading.Thread(target=watch, name="docker-cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()


def raw_socket(holder: Any) -> Any:
    """The socket below a streaming response or what docker-py calls a socket; None where it can't be found."""
    for path in ("_fp.fp.raw._sock", "raw._fp.fp.raw._sock", "_sock", "raw._fp.fp.channel"):
        found = holder
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return holder if hasattr(holder, "recv") else None


def unblock(holder: Any) -> None:
    """Makes whoever reads from it, in any thread, see the end."""
    sock = raw_socket(holder)
    with contextlib.suppress(OSError):
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)


def let_go(holder: Any) -> None:
    """Ends a connection for good."""
    unblock(holder)
    for item in (holder, raw_socket(holder)):
        with contextlib.suppress(Exception):
            item.close()


def receive(sock: Any, size: int = 65536) -> bytes:
    """Up to `size` bytes; b"" at the end, however it came."""
    try:
        return sock.recv(size) if hasattr(sock, "recv") else (sock.read(size) or b"")
    except (OSError, ValueError):
        return b""


def chunks(sock: Any, *, tty: bool) -> Iterator[tuple[Stream, bytes]]:
    """What a container writes, as it comes. With a terminal there is one stream and no framing."""
    buffer = bytearray()
    while data := receive(sock):
        if tty:
            yield "stdout", data
            continue
        buffer += data
        while len(buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(buffer)
            if len(buffer) < _HEADER.size + length:
                break
            yield ("stderr" if stream == 2 else "stdout"), bytes(buffer[_HEADER.size : _HEADER.size + length])
            del buffer[: _HEADER.size + length]


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
