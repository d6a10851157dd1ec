"""The built-in buildpacks: Python, Node, Go, static sites and Dockerfiles.

Registered as any third party's plugin would be; each buildpack is found through the hook `mini_detect`.
"""

from __future__ import annotations

from collections.abc import Iterable

from mini_core.hookspecs import hookimpl
from mini_core.interfaces import Buildpack


class BuildpacksPlugin:
    """Provides the built-in buildpacks, which are imported when asked for: most commands plan nothing."""

    @hookimpl
    def mini_detect(self) -> Iterable[Buildpack]:
        from mini_buildpacks.dockerfile import DockerfileBuildpack
        from mini_buildpacks.go import GoBuildpack
        from mini_buildpacks.node import NodeBuildpack
        from mini_buildpacks.python import PythonBuildpack
        from mini_buildpacks.static import StaticBuildpack

        return (DockerfileBuildpack(), GoBuildpack(), NodeBuildpack(), PythonBuildpack(), StaticBuildpack())
