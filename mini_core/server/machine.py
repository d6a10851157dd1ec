"""What an installation does to a machine: really, below another folder, or only told."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from mini_core.server import state
from mini_core.server.venvs import InstallError

Say = Callable[[str], None]


class Machine:
    """root: "/" is this machine; below another folder files are written and no command is run. dry: nothing is
    done, all is told. Every change is said once."""

    def __init__(self, say: Say, *, root: Path = Path("/"), dry: bool = False) -> None:
        self.root, self.dry = root, dry
        self._say = say

    @property
    def real(self) -> bool:
        return not self.dry and self.root == Path("/")

    def at(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def run(self, *command: str) -> None:
        """Raises InstallError where the command fails."""
        if not self.real:
            self._say(f"run    {' '.join(command)}")
            return
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = (done.stderr or done.stdout).strip().splitlines()[-10:]
            raise InstallError(f"{' '.join(command)} failed (exit code {done.returncode})", tail=tail)

    def write(self, path: Path, text: str, mode: int, owner: str = "") -> bool:
        """Whether the file was not so already."""
        target = self.at(path)
        if target.is_file() and not target.is_symlink() and target.read_text("utf-8") == text:
            return False
        self._say(f"write  {path}")
        if not self.dry:
            target.parent.mkdir(parents=True, exist_ok=True)
            state.write_whole(target, text.encode(), mode)
            target.chmod(mode)
            self._give(target, owner)
        return True

    def folder(self, path: Path, mode: int, owner: str = "") -> None:
        target = self.at(path)
        if not target.is_dir():
            self._say(f"make   {path}")
        if not self.dry:
            target.mkdir(parents=True, exist_ok=True)
            target.chmod(mode)
            self._give(target, owner)

    def link(self, path: Path, to: Path) -> None:
        target = self.at(path)
        if target.is_symlink() and target.readlink() == to:
            return
        self._say(f"link   {path} → {to}")
        if not self.dry:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(to)

    def remove(self, path: Path) -> None:
        target = self.at(path)
        if not target.exists() and not target.is_symlink():
            return
        self._say(f"remove {path}")
        if self.dry:
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()

    def _give(self, target: Path, owner: str) -> None:
        if owner and self.real:
            shutil.chown(target, owner, owner)


def has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def has_systemd() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def is_root() -> bool:
    return os.geteuid() == 0
