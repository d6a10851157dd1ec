"""The router's folder: what is in it, and the locks that say who runs.

settings.json   the RouterSettings it was last started with
routes.json     the table in force, for workers that start
master.lock     held (flock) by the master while it lives; its pid is inside
workers.lock    held, shared, by every worker that holds the listening sockets
router.sock     the master's control socket
router.log      one line a request (see accesslog), and router.log.1
master.log      what the processes print
counters        requests in flight by app and worker
spool/          request bodies that are being received
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import threading
from pathlib import Path

import msgspec

from mini_core.locks import is_at
from mini_core.paths import SOCKET_PATH_LIMIT, private_folder
from mini_core.types import RouterSettings, RouteTable, decode, encode


class State:
    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def create(self) -> None:
        private_folder(self.folder)
        self.folder.chmod(0o700)
        (self.folder / "spool").mkdir(mode=0o700, exist_ok=True)

    @property
    def control(self) -> Path:
        path = self.folder / "router.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT + 10:
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return private_folder(Path(tempfile.gettempdir()) / f"mini-router-{os.getuid()}-{digest}") / "router.sock"

    # --- settings and table

    def read_settings(self) -> RouterSettings:
        """Raises FileNotFoundError before the first start."""
        return decode(RouterSettings, (self.folder / "settings.json").read_bytes())

    def write_settings(self, settings: RouterSettings) -> None:
        _replace(self.folder / "settings.json", encode(settings))

    def read_table(self) -> RouteTable | None:
        try:
            return decode(RouteTable, (self.folder / "routes.json").read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def write_table(self, table: RouteTable) -> None:
        _replace(self.folder / "routes.json", encode(table))

    # --- locks

    @property
    def _master_lock(self) -> Path:
        return self.folder / "master.lock"

    @property
    def _workers_lock(self) -> Path:
        return self.folder / "workers.lock"

    def lock_master(self) -> int | None:
        """The lock's descriptor, or None while another master holds it. Kept by passing the descriptor on."""
        return _lock(self._master_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lock_worker(self) -> int:
        """The lock's descriptor. It is unlocked, not closed, when the listening sockets are: it tells `is_ours`."""
        fd = _lock(self._workers_lock, fcntl.LOCK_SH)
        assert fd is not None  # who locks out workers does so for a moment
        return fd

    def is_ours(self, lock: int) -> bool:
        """Whether the folder is still the one in which a master or a worker took this lock."""
        return is_at(lock, self._master_lock) or is_at(lock, self._workers_lock)

    def workers_alive(self) -> bool:
        """Some process still holds the listening sockets."""
        fd = _lock(self._workers_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if fd is None:
            return True
        os.close(fd)
        return False

    def master_alive(self) -> bool:
        fd = self.lock_master()
        if fd is None:
            return True
        os.close(fd)
        return False


def _lock(path: Path, kind: int) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, kind)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _replace(path: Path, data: bytes) -> None:
    """Writes a file in one step: readers see the old or the new content, after a power cut too."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with contextlib.closing(os.fdopen(fd, "wb")) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
