"""Builds images and runs instances on a Docker Engine.

Settings, `[plugins.docker]` in server.toml: `builder = "classic"` does without BuildKit; `addresses = "published"`
publishes ports on 127.0.0.1 even where containers can be reached by address; `memory` (MB) and `pids` are the limits
of instances that have none of their own; `cache_gb` (10) is what builds may leave in BuildKit's cache, `cache_days`
(14) how long it is kept without a use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_core.hookspecs import Context, hookimpl
from mini_core.interfaces import Builder, CheckRun, Runtime

if TYPE_CHECKING:
    from mini_docker.cache import BuildCache
    from mini_docker.engine import Engine
    from mini_docker.network import Network


class DockerPlugin:
    """Made without I/O; builder, runtime and checks share one engine."""

    def __init__(self) -> None:
        self._made: Engine | None = None
        self._images: Mapping[str, str] = {}
        self._platform, self._data = "", Path()
        self._network: Network | None = None
        self._cache: BuildCache | None = None

    @property
    def _engine(self) -> Engine:
        from mini_docker.engine import Engine

        if self._made is None:
            self._made = Engine()
        return self._made

    @hookimpl
    def mini_build(self, context: Context) -> Iterable[Builder]:
        from mini_docker.builder import DockerBuilder
        from mini_docker.cache import BuildCache

        self._images = context.images
        settings = _settings(context)
        self._cache = BuildCache(self._engine, context.data / "plugins" / "docker", settings)
        return [
            DockerBuilder(
                self._engine,
                context.platform,
                context.images,
                settings,
                cache=self._cache,
                reserve=context.disk_reserve,
            )
        ]

    @hookimpl
    def mini_run(self, context: Context) -> Iterable[Runtime]:
        from mini_docker.runtime import DockerRuntime

        self._platform, self._data = context.platform, context.data
        runtime = DockerRuntime(self._engine, context.platform, _settings(context))
        self._network = runtime.network
        return [runtime]

    @hookimpl
    def mini_doctor(self) -> Iterable[CheckRun]:
        from mini_docker.checks import Checks

        return [Checks(self._engine, self._images, self._network, self._cache, self._platform, self._data)]


def _settings(context: Context) -> Mapping[str, Any]:
    return context.settings.get("docker", {})
