"""The plugin passes the contracts that all builders and runtimes must pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mini_core.interfaces import Builder, Runtime
from mini_core.testing import BuilderContract, Files, RuntimeContract
from mini_core.types import Image, Plan, Step, Toolchain
from mini_docker.runtime import DockerRuntime

pytestmark = pytest.mark.docker


class TestBuilder(BuilderContract):
    @pytest.fixture
    def builder(self, platform) -> Builder:
        return platform.builder

    @pytest.fixture
    def plan(self) -> Plan:
        return Plan(
            buildpack="python",
            toolchains=(Toolchain(name="python", version="3.13"),),
            runtime="python",
            steps=(Step(name="look", argv=("ls",)),),
        )

    @pytest.fixture
    def files(self) -> Files:
        return {"app.py": "print('hello')\n"}


class TestClassicBuilder(TestBuilder):
    @pytest.fixture
    def builder(self, platform) -> Builder:
        from mini_docker.builder import DockerBuilder

        return DockerBuilder(platform.engine, platform.id, {}, {"builder": "classic"}, cache=platform.cache)


class TestRuntime(RuntimeContract):
    @pytest.fixture
    def make_runtime(self, platform) -> Callable[[], Runtime]:
        return lambda: DockerRuntime(platform.engine, platform.id)

    @pytest.fixture
    def image(self, python_image: Image) -> Image:
        return python_image


class TestRuntimeWithPublishedPorts(TestRuntime):
    """As on Docker Desktop, where containers have no address that the host can reach."""

    @pytest.fixture
    def make_runtime(self, platform) -> Callable[[], Runtime]:
        published = {"addresses": "published"}
        runtime = DockerRuntime(platform.engine, platform.id, published)
        return lambda: runtime if not runtime.network._last else DockerRuntime(platform.engine, platform.id, published)
