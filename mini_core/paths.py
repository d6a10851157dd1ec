"""Where mini keeps its files. `MINI_HOME` moves all of them below one folder; otherwise the platform's usual ones."""

from __future__ import annotations

import os
from pathlib import Path

from mini_core.types import Value

SOCKET_PATH_LIMIT = 90
"""Bytes that a unix socket's path may have (104 on macOS, 108 on Linux), less the longest name put below it."""


class Paths(Value):
    """config: settings, keys, what the client remembers. data: the platform's state. cache: may be lost. run:
    sockets and locks of running processes. logs: below data."""

    config: Path
    data: Path
    cache: Path
    run: Path

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def database(self) -> Path:
        return self.data / "mini.db"

    @property
    def settings(self) -> Path:
        return self.config / "server.toml"

    @property
    def controller_socket(self) -> Path:
        return self.run / "controller.sock"

    @property
    def admin_socket(self) -> Path:
        return self.run / "admin.sock"


def find_paths(home: str | None = None) -> Paths:
    """The folders, none of them created. home: instead of the environment's `MINI_HOME`."""
    home = home or os.environ.get("MINI_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        config, data, cache = root / "config", root / "data", root / "cache"
    else:
        import platformdirs

        dirs = platformdirs.PlatformDirs("mini", appauthor=False)
        config, data, cache = dirs.user_config_path, dirs.user_data_path, dirs.user_cache_path
    return Paths(config=config, data=data, cache=cache, run=_run_folder(data))


def _run_folder(data: Path) -> Path:
    run = data / "run"
    if len(os.fsencode(run)) <= SOCKET_PATH_LIMIT - len("/plugins/proxy/worker-00.sock"):
        return run
    import hashlib  # these take longer to import than all else that a short command needs
    import tempfile

    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mini-{os.getuid() if hasattr(os, 'getuid') else 'user'}-{digest}"


def private_folder(path: Path) -> Path:
    """The folder, made for its owner alone (0700). Raises PermissionError where it belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and path.stat().st_uid not in (os.getuid(), 0):
        raise PermissionError(f"{path} belongs to another user")
    return path
