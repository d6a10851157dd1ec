"""Where the plugin keeps things, below `data/plugins/process` and the cache folder.

builds/DIGEST/   app/ (where the app's commands run), tools/ (commands of the toolchains), build.json (written
                 last: a build without it is a leftover)
layers/DIGEST/   app/ and tools/ as they were after the dependency steps, layer.json. The path is as long as that
                 of a build, so that a path in a file can be replaced without moving anything
caches/APP/NAME/ what a step's cache with a path keeps from one build to the next
volumes/APP/NAME/
instances/ID/    see `folders`
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from mini_core.hookspecs import Context
from mini_core.types import Image, Plan, Value

_SYSTEM_PATH = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/opt/homebrew/bin",
    "/run/current-system/sw/bin",
)


class Layout(Value):
    """root: of all that is kept. cache: what may be lost."""

    platform: str
    data: Path
    root: Path
    cache: Path

    @classmethod
    def of(cls, context: Context) -> Layout:
        data = context.data.absolute()
        return cls(
            platform=context.platform,
            data=data,
            root=data / "plugins" / "process",
            cache=context.cache.absolute() / "process",
        )

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    @property
    def layers(self) -> Path:
        return self.root / "layers"

    @property
    def caches(self) -> Path:
        return self.root / "caches"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def instances(self) -> Path:
        return self.root / "instances"

    def ref(self, build: Path) -> str:
        """What an Image says of where its build is: relative to the data folder, which may move."""
        return build.relative_to(self.data).as_posix()

    def build_of(self, image: Image) -> Path:
        return self.data / image.ref


def search_path(build: Path, plan: Plan) -> str:
    """PATH for the plan's steps and processes: its own `bin` folders, its toolchains, what the system has."""
    own = [str(build / "app" / folder) for folder in plan.bin]
    tools = [str(build / "tools" / folder) for folder in ("bin", "python/bin", "npm/bin")]
    return os.pathsep.join([*own, *tools, *(path for path in _SYSTEM_PATH if Path(path).is_dir())])


def base_environment(build: Path, plan: Plan) -> dict[str, str]:
    """What every command gets: nothing of the server's own environment but how text is encoded."""
    return {"PATH": search_path(build, plan), "LANG": "C.UTF-8" if sys.platform != "darwin" else "en_US.UTF-8"}


def passed_on(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The entries of this process' environment that commands may see."""
    return {name: environ[name] for name in names if name in environ}
