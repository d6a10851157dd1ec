"""An instance's folder: what the runtime writes before it starts the shim, and what the shim writes (see `shim`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from mini_core.errors import StartError
from mini_core.types import Endpoint, InstanceSpec, Limits, Value, decode, encode

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def safe_name(name: str) -> str:
    """The name, where it may be a folder's. Raises StartError: ids and names of apps are never paths."""
    if not _NAME.fullmatch(name):
        raise StartError(f'"{name}" cannot be a name')
    return name


class Record(Value):
    """What is kept of an InstanceSpec: all but its environment, which is secret. image: its ref. restarts: how often
    it was started again."""

    id: str
    app: str
    release: int
    process: str
    kind: str
    index: int = 1
    image: str = ""
    endpoint: Endpoint | None = None
    grace: float = 10.0
    limits: Limits = Limits()
    labels: Mapping[str, str]
    restarts: int = 0


class State(Value):
    """Written by the shim once the instance runs. shim: its pid, 0 where the controller holds the streams itself."""

    shim: int
    pid: int
    started_at: float


class Exit(Value):
    """Written by the shim when it has ended."""

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    ended_at: float | None = None


class InstanceFolder:
    """One folder below `instances/`. Reading never raises for files that are not there (yet)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @property
    def log(self) -> Path:
        return self.path / "log"

    def exists(self) -> bool:
        return (self.path / "spec.json").exists()

    def create(self, spec: InstanceSpec) -> None:
        """Makes it, or makes it ready for another start of the same instance."""
        before = self.record()
        record = Record(
            id=spec.id,
            app=spec.app,
            release=spec.release,
            process=spec.process,
            kind=spec.kind,
            index=spec.index,
            image=spec.image.ref,
            endpoint=spec.endpoint,
            grace=spec.grace,
            limits=spec.limits,
            labels=spec.labels,
            restarts=before.restarts + 1 if before else 0,
        )
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("exit.json", "state.json", "stop"):
            (self.path / name).unlink(missing_ok=True)
        write_atomically(self.path / "spec.json", encode(record))

    def record(self) -> Record | None:
        return self._read("spec.json", Record)

    def state(self) -> State | None:
        return self._read("state.json", State)

    def exit(self) -> Exit | None:
        return self._read("exit.json", Exit)

    def write_state(self, state: State) -> None:
        write_atomically(self.path / "state.json", encode(state))

    def write_exit(self, status: Exit) -> None:
        with contextlib.suppress(FileNotFoundError):
            write_atomically(self.path / "exit.json", encode(status))

    def ask_to_stop(self, grace: float) -> None:
        with contextlib.suppress(FileNotFoundError):
            write_atomically(self.path / "stop", str(grace).encode())

    def held(self) -> bool:
        """Whether a shim (or, for an attached one-off, the controller) lives."""
        descriptor = self._open_lock(os.O_RDONLY)
        if descriptor is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def hold(self) -> int:
        """Takes the lock; the descriptor to close when done. Raises BlockingIOError where it is held."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return descriptor

    def remove(self) -> None:
        """The record goes first, so that a removal cut short leaves nothing that looks like an instance."""
        (self.path / "spec.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _open_lock(self, flags: int) -> int | None:
        try:
            return os.open(self.path / "lock", flags | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return decode(kind, (self.path / name).read_bytes())
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None


def write_atomically(path: Path, data: bytes) -> None:
    """Readers see the old content or the new, never a part."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)
