"""Locks that live as long as the process that holds them (flock(2)), and whether their files are still there."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from mini_core.errors import Conflict
from mini_core.paths import private_folder


@dataclass(frozen=True)
class FileLock:
    """Held until it is released, or its process ends. Programs that are executed don't inherit it. folder: see
    `keep_folder`."""

    path: Path
    descriptor: int
    folder: int

    @classmethod
    def take(cls, path: Path, refusal: Conflict) -> FileLock:
        """Raises `refusal` where another process has it. The folder is made."""
        private_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise refusal from None
        return cls(path, descriptor, keep_folder(path.parent))

    @property
    def in_place(self) -> bool:
        return is_at(self.descriptor, self.path)

    def release(self) -> None:
        os.close(self.descriptor)
        os.close(self.folder)


def keep_folder(folder: Path) -> int:
    """A descriptor, for as long as which is open nobody tidies the folder up: one for running processes may be below
    /tmp, where systemd-tmpfiles(8) removes what is old, but for folders that are locked, and all below them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at the path: False once that was removed or replaced, with all that is
    around it. What cannot be looked at now is not taken to be gone."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
