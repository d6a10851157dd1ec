"""Fixtures: a platform of local processes in a temporary folder, cleaned up whatever happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_core.hookspecs import Context
from mini_core.interfaces import BuildRequest
from mini_core.testing import RecordingJob, write_files
from mini_core.types import Image, Plan, Secret, Toolchain
from mini_process.builder import ProcessBuilder
from mini_process.layout import Layout
from mini_process.runtime import ProcessRuntime


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Package managers' caches, shared by all tests: what one has fetched the others need not."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def layout(tmp_path: Path, shared_cache: Path) -> Layout:
    return Layout.of(
        Context(platform=uuid.uuid4().hex, data=tmp_path / "data", cache=shared_cache, images={}, settings={})
    )


@pytest.fixture
def builder(layout: Layout) -> ProcessBuilder:
    return ProcessBuilder(layout)


@pytest.fixture
def make_runtime(layout: Layout) -> Iterator[Callable[[], ProcessRuntime]]:
    yield lambda: ProcessRuntime(layout)
    ProcessRuntime(layout).shutdown()


@pytest.fixture
def runtime(make_runtime: Callable[[], ProcessRuntime]) -> ProcessRuntime:
    return make_runtime()


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., BuildRequest]:
    """A build request: plan, files (path → text), build-time variables."""

    def make(
        plan: Plan, files: dict[str, str], *, app: str = "blog", no_cache: bool = False, **env: str
    ) -> BuildRequest:
        name = uuid.uuid4().hex[:8]
        return BuildRequest(
            id=name,
            app=app,
            plan=plan,
            source=write_files(tmp_path / "sources" / name, files),
            build_env={key: Secret(text) for key, text in env.items()},
            labels={"mini.app": app},
            no_cache=no_cache,
        )

    return make


@pytest.fixture
def image(builder: ProcessBuilder, request_for: Callable[..., BuildRequest]) -> Image:
    """A build with Python on PATH and a file."""
    plan = Plan(buildpack="contract", toolchains=(Toolchain(name="python", version=">=3.9"),))
    return builder.build(request_for(plan, {"hello.txt": "hello\n"}), RecordingJob())
