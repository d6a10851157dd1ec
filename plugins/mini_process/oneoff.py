"""A command whose streams the controller holds: one-offs and commands beside a running instance."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mini_core.errors import StartError

CHUNK = 1 << 16
GRACE = 3.0  # seconds from SIGTERM to SIGKILL when it is let go while it runs
LINGER = 0.5  # seconds that streams are read after the command has ended, for what it left behind
# Popen starts the session; that the terminal on descriptor 0 becomes its controlling one is done in the child.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


class LocalCommand:
    """Implements OneOff. on_end is called once, when it has ended and been let go."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        tty: bool,
        stdin: bool,
        on_end: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._on_end = on_end
        self._ended = threading.Lock()
        self._write_lock = threading.Lock()
        self._tty = tty
        if tty:
            self._start_in_terminal(argv, env, cwd)
        else:
            self._start_with_pipes(argv, env, cwd, stdin)

    def _start_in_terminal(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        master, terminal = os.openpty()
        try:
            wrapped = (sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, *argv)
            env = {"TERM": "xterm", **env}
            self._process = _popen(wrapped, argv[0], env, cwd, stdin=terminal, stdout=terminal, stderr=terminal)
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(terminal)
        self._input: int | None = master
        self._outputs = {master: "stdout"}

    def _start_with_pipes(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: bool) -> None:
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        self._process = _popen(argv, argv[0], env, cwd, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._input = _take(self._process.stdin)
        outputs = {_take(self._process.stdout): "stdout", _take(self._process.stderr): "stderr"}
        self._outputs = {descriptor: name for descriptor, name in outputs.items() if descriptor is not None}

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self) -> Iterator[tuple[str, bytes]]:
        with selectors.DefaultSelector() as selector:
            for descriptor, name in self._outputs.items():
                selector.register(descriptor, selectors.EVENT_READ, name)
            ended_at: float | None = None
            while selector.get_map():
                for key, _ in selector.select(0.1):
                    data = _read(key.fd)
                    if data:
                        yield key.data, data
                    else:
                        selector.unregister(key.fd)
                if ended_at is None and self._process.poll() is not None:
                    ended_at = time.monotonic()
                if ended_at is not None and time.monotonic() > ended_at + LINGER:
                    return

    def write(self, data: bytes) -> None:
        with self._write_lock, contextlib.suppress(BrokenPipeError, OSError):
            while data and self._input is not None:
                data = data[os.write(self._input, data) :]

    def close_stdin(self) -> None:
        with self._write_lock:
            if self._tty and self._input is not None:
                with contextlib.suppress(OSError):
                    os.write(self._input, b"\x04")  # end of file, where the terminal is in its usual mode
            elif self._input is not None:
                os.close(self._input)
                self._input = None

    def resize(self, rows: int, columns: int) -> None:
        if self._tty and self._input is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)

    def wait(self) -> int:
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def close(self) -> None:
        if not self._ended.acquire(blocking=False):
            return
        if self._process.poll() is None:
            self.signal(signal.SIGHUP if self._tty else signal.SIGTERM)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
        code = self.wait()
        with self._write_lock:
            for descriptor in {self._input, *self._outputs} - {None}:
                os.close(descriptor)  # type: ignore[arg-type]
            self._input, self._outputs = None, {}
        self._on_end(code)


def _popen(
    argv: Sequence[str], name: str, env: Mapping[str, str], cwd: Path, *, stdin: int, stdout: int, stderr: int
) -> subprocess.Popen[bytes]:
    if "/" not in name and shutil.which(name, path=env.get("PATH", os.defpath)) is None:
        raise StartError(f"{name}: command not found", code="command-not-found")
    try:
        return subprocess.Popen(
            argv, env=dict(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except FileNotFoundError:
        raise StartError(f"{name}: command not found", code="command-not-found") from None
    except OSError as error:
        raise StartError(f"{name}: {error.strerror}", code="command-not-found") from None


def _take(stream: object) -> int | None:
    """The descriptor of one of Popen's files, taken from it: this object closes it, not the garbage collector."""
    if stream is None:
        return None
    descriptor = os.dup(stream.fileno())  # type: ignore[attr-defined]
    stream.close()  # type: ignore[attr-defined]
    return descriptor


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:  # EIO: the terminal's other end is closed
        return b""
