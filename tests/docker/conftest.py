"""A platform of the tests' own on a real engine: labels with a random id, and everything removed by them."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_core.interfaces import BuildRequest
from mini_core.testing import RecordingJob, write_files
from mini_core.types import (
    Cache,
    Image,
    InstanceSpec,
    Plan,
    ProcessType,
    Secret,
    Step,
    Toolchain,
    replace,
)
from mini_docker.builder import DockerBuilder
from mini_docker.cache import BuildCache
from mini_docker.engine import Engine
from mini_docker.runtime import DockerRuntime

PYTHON = Plan(
    buildpack="python",
    toolchains=(Toolchain(name="python", version="3.13"),),
    runtime="python",
    steps=(
        Step(name="virtual environment", argv=("python", "-m", "venv", ".venv"), files=("runtime.txt",)),
        Step(
            name="install",
            argv=("pip", "install", "-r", "requirements.txt"),
            files=("requirements.txt",),
            caches=(Cache(name="pip", variable="PIP_CACHE_DIR"),),
        ),
    ),
    bin=(".venv/bin",),
    processes=(ProcessType(name="web", command=("python", "app.py")),),
)

APP = """
import http.server, os, itsdangerous
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
print("ready", flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""

FILES = {"runtime.txt": "python-3.13\n", "requirements.txt": "itsdangerous==2.2.0\n", "app.py": APP}


class DockerPlatform:
    """A builder and a runtime of one platform; `engine.api` is docker-py's client for looking behind the scenes."""

    def __init__(self, engine: Engine) -> None:
        self.id = f"test{uuid.uuid4().hex[:12]}"
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="mini-docker-"))
        self.cache = BuildCache(engine, self.folder, {})
        self.builder = DockerBuilder(engine, self.id, {}, cache=self.cache)
        self.runtime = DockerRuntime(engine, self.id)
        self._numbers = itertools.count(1)

    def request(self, plan: Plan, source: Path, app: str = "blog", **build_env: str) -> BuildRequest:
        return BuildRequest(
            id=str(next(self._numbers)),
            app=app,
            plan=plan,
            source=source,
            build_env={name: Secret(text) for name, text in build_env.items()},
            labels={"mini.platform": self.id, "mini.app": app},
        )

    def build(self, plan: Plan, source: Path, **build_env: str) -> tuple[Image, RecordingJob]:
        job = RecordingJob(300)
        return self.builder.build(self.request(plan, source, **build_env), job), job

    def spec(self, image: Image, *command: str, web: bool = True, **fields: Any) -> InstanceSpec:
        endpoint = self.runtime.allocate(()) if web else None
        env = {"HOST": "0.0.0.0", **({"PORT": str(endpoint.port)} if endpoint else {}), **fields.pop("env", {})}
        spec = InstanceSpec(
            id=f"{self.id}-{next(self._numbers)}",
            app="blog",
            release=1,
            process="web" if web else "worker",
            kind="web" if web else "worker",
            image=image,
            plan=PYTHON,
            command=command,
            env={name: Secret(text) for name, text in env.items()},
            endpoint=endpoint,
        )
        return replace(spec, **fields)

    def start(self, spec: InstanceSpec) -> InstanceSpec:
        self.runtime.start(spec, RecordingJob())
        return spec

    def clean(self) -> None:
        self.runtime.destroy("blog")
        self.runtime.destroy("contract")
        self.runtime.shutdown()
        self.builder.prune((), ())
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def engine() -> Engine:
    made = Engine()
    made.connect().close()
    return made


@pytest.fixture(scope="module")
def platform(engine: Engine) -> Iterator[DockerPlatform]:
    made = DockerPlatform(engine)
    yield made
    made.clean()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("source"), FILES)


@pytest.fixture(scope="module")
def image(platform: DockerPlatform, source: Path) -> Image:
    return platform.build(PYTHON, source)[0]


@pytest.fixture
def python_image() -> Image:
    """A base image as it is, for tests that need only some Python."""
    return Image(kind="docker", builder="docker", ref="python:3.13-slim")


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    numbers = itertools.count()
    return lambda files: write_files(tmp_path / f"source{next(numbers)}", files)
