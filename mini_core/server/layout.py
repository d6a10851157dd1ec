"""Where a server is installed: a folder of virtual environments, one in force, and the state beside it.

/opt/mini/venvs/1.2.0/      one environment per version that was installed
/opt/mini/current           → the one in force
/opt/mini/bin/mini          the command, for people on the server
/var/lib/mini/              MINI_HOME: config, data, cache
/etc/mini/mini.env          the environment of the services
/run/mini/                  sockets (data/run leads there)
"""

from __future__ import annotations

import sys
from pathlib import Path

from mini_core.paths import Paths
from mini_core.types import Value

USER = "mini"
MANAGED = "managed"
"""A file in the config folder: services of the system run the platform, so that no command starts one itself."""


class Layout(Value):
    prefix: Path = Path("/opt/mini")
    home: Path = Path("/var/lib/mini")
    etc: Path = Path("/etc/mini")
    run: Path = Path("/run/mini")
    units: Path = Path("/etc/systemd/system")
    command: Path = Path("/usr/local/bin/mini")

    @property
    def venvs(self) -> Path:
        return self.prefix / "venvs"

    @property
    def current(self) -> Path:
        return self.prefix / "current"

    @property
    def python(self) -> Path:
        """Of the version in force, whichever that is when it is started."""
        return self.current / "bin" / "python"

    @property
    def environment(self) -> Path:
        return self.etc / "mini.env"


def installed_prefix(prefix: Path | None = None) -> Path | None:
    """The prefix whose environment this Python (or the one with that sys.prefix) belongs to, if it is one."""
    here = (prefix or Path(sys.prefix)).resolve()
    if here.parent.name != "venvs":
        return None
    current = here.parent.parent / "current"
    return here.parent.parent if current.is_symlink() else None


def server_python() -> str:
    """The Python that new processes of the platform are started with: an upgrade changes what it leads to."""
    prefix = installed_prefix()
    return str(Layout(prefix=prefix).python) if prefix else sys.executable


def is_managed(paths: Paths) -> bool:
    return (paths.config / MANAGED).exists()
