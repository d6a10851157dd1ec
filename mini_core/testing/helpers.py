"""What the contracts share: files, jobs that record, waiting, and a guard against side effects."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import tarfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mini_core.errors import Cancelled
from mini_core.interfaces import Job

Files = Mapping[str, str]


class RecordingJob(Job):
    """A job that keeps what is said to it. seconds: until its deadline."""

    def __init__(self, seconds: float = 120.0) -> None:
        self.deadline = time.monotonic() + seconds
        self.cancelled = threading.Event()
        self.lines: list[tuple[str, str]] = []

    def emit(self, line: str, *, kind: str = "output") -> None:
        self.lines.append((kind, line))

    def check(self) -> None:
        if self.cancelled.is_set() or time.monotonic() > self.deadline:
            raise Cancelled("cancelled")

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


def until(condition: Callable[[], Any], *, seconds: float = 20.0, what: str = "the condition") -> Any:
    """The first true answer of `condition`, asked often. Fails after `seconds`: for states without an event."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


def write_files(folder: Path, files: Files) -> Path:
    """Writes path → text below the folder."""
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), "utf-8")
    return folder


def tar_of(files: Files, target: Path) -> Path:
    """A tar.gz of path → text."""
    with tarfile.open(target, "w:gz") as tar:
        for name, text in files.items():
            data = textwrap.dedent(text).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_forbidding = threading.local()
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IMPURE = {"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind"}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not getattr(_forbidding, "on", False):
        return
    if event in _IMPURE or event in {"os.remove", "os.mkdir", "os.rename", "shutil.rmtree"}:
        raise AssertionError(f"{event}{arguments!r}: not while detecting")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
        raise AssertionError(f"opened {arguments[0]} for writing: not while detecting")


_audit_installed = False


@contextlib.contextmanager
def pure() -> Iterator[None]:
    """Fails at any process, connection or write that this thread makes inside it."""
    global _audit_installed
    if not _audit_installed:
        sys.addaudithook(_audit)
        _audit_installed = True
    _forbidding.on = True
    try:
        yield
    finally:
        _forbidding.on = False
