"""What the local platform remembers between its runs, and how others find it while it runs.

data/local.json     the flags it was last started with, the port that was chosen, whether it was put down
run/server.json     the process that serves now; left behind by one that was killed
run/server.lock     held by it
run/start.lock      held by whoever starts it
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mini_core.paths import Paths, private_folder
from mini_core.types import Value, decode, encode

if TYPE_CHECKING:
    from mini_core.settings import Settings

T = TypeVar("T")

STOPPED = "Stopped"
"""The last line of what stopping the platform says, where it was stopped."""


class Local(Value):
    """flags: of the last `mini up`, by the name of the setting. port: that was chosen. down: put down by the user,
    so that only `mini up` and `mini deploy` start it again."""

    flags: Mapping[str, Any] = {}
    port: int = 0
    down: bool = False


class Running(Value):
    """The process that serves. url: the platform's own. address: one at which the router listens, for a URL."""

    pid: int
    version: str
    port: int
    url: str
    runtime: str = ""
    notice: str = ""
    domain: str = "localhost"
    address: str = "127.0.0.1"
    started_at: float = 0.0


def local_file(paths: Paths) -> Path:
    return paths.data / "local.json"


def running_file(paths: Paths) -> Path:
    return paths.run / "server.json"


def server_lock(paths: Paths) -> Path:
    return paths.run / "server.lock"


def start_lock(paths: Paths) -> Path:
    return paths.run / "start.lock"


def load_local(paths: Paths) -> Local:
    return _load(Local, local_file(paths)) or Local()


def save_local(paths: Paths, local: Local) -> None:
    private_folder(paths.data)
    write_whole(local_file(paths), encode(local))


def settings_of(paths: Paths, given: Mapping[str, Any]) -> Settings:
    """Flags that are given now, then server.toml, then the flags of the last start. Raises ConfigError."""
    from mini_core.settings import Settings, load_settings

    written, defaults = load_settings(paths.settings), Settings()
    flags = load_local(paths).flags
    kept = {name: item for name, item in flags.items() if getattr(written, name) == getattr(defaults, name)}
    return load_settings(paths.settings, {**kept, **given})


def load_running(paths: Paths) -> Running | None:
    """What the last server said of itself; whether it still runs is another question."""
    return _load(Running, running_file(paths))


def save_running(paths: Paths, running: Running) -> None:
    write_whole(running_file(paths), encode(running))


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """The file with this content, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    partial.replace(path)


def _load(kind: type[T], path: Path) -> T | None:
    try:
        return decode(kind, path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:  # msgspec's errors are ValueErrors; a damaged file is as good as none
        return None
