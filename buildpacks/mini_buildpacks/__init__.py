"""The built-in buildpacks: Python, Node, Go, static sites and Dockerfiles.

Registered as any third party's plugin would be; each buildpack is found through the hook `mini_detect`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from mini_core.hookspecs import hookimpl
from mini_core.interfaces import Buildpack

BUILDPACKS = {
    "dockerfile": "DockerfileBuildpack",
    "go": "GoBuildpack",
    "node": "NodeBuildpack",
    "python": "PythonBuildpack",
    "static": "StaticBuildpack",
}
"""Module → class. Imported when asked for: a command that plans nothing need not load them."""


class BuildpacksPlugin:
    """Provides the built-in buildpacks."""

    @hookimpl
    def mini_detect(self) -> Iterable[Buildpack]:
        classes = (getattr(import_module(f"mini_buildpacks.{name}"), BUILDPACKS[name], None) for name in _present())
        return tuple(kind() for kind in classes if kind)


def _present() -> tuple[str, ...]:
    return tuple(name for name in BUILDPACKS if find_spec(f"mini_buildpacks.{name}"))
