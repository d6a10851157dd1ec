"""How long a redeploy takes beside `docker build` and `docker run` of the same Dockerfile.

    python tests/benchmarks/docker_builds.py [ROUNDS]

Prints medians of one run, rounds interleaved: an unchanged source, one with a changed line, and one with a changed list
of dependencies (installed anew, from the package manager's cache); and the start until it answers. Needs an engine and
a `docker` command that builds with BuildKit by itself (20.10 to 22, or with buildx).
"""

from __future__ import annotations

import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from mini_core.interfaces import BuildRequest
from mini_core.testing import RecordingJob, write_files
from mini_core.types import Cache, Endpoint, InstanceSpec, Plan, ProcessType, Secret, Step, Toolchain, replace
from mini_docker.builder import DockerBuilder
from mini_docker.cache import BuildCache
from mini_docker.engine import Engine
from mini_docker.runtime import DockerRuntime

PLAN = Plan(
    buildpack="python",
    toolchains=(Toolchain(name="python", version="3.13"),),
    runtime="python",
    steps=(
        Step(name="venv", argv=("python", "-m", "venv", ".venv"), files=("requirements.txt",)),
        Step(
            name="install",
            argv=("pip", "install", "-r", "requirements.txt"),
            files=("requirements.txt",),
            caches=(Cache(name="pip", variable="PIP_CACHE_DIR"),),
        ),
    ),
    bin=(".venv/bin",),
    processes=(ProcessType(name="web", command=("python", "-m", "http.server", "8080")),),
)

REQUIREMENTS = "flask==3.1.3\n"
FILES = {"requirements.txt": REQUIREMENTS, **{f"pkg/module{n}.py": f"x = {n}\n" * 50 for n in range(300)}}


def answered(address: str) -> None:
    """Returns at the first answer."""
    while True:
        connection = http.client.HTTPConnection(address, 8080, timeout=5)
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
            return
        except OSError:
            time.sleep(0.01)
        finally:
            connection.close()


class Docker:
    """Plain docker commands."""

    def __init__(self, source: Path, mark: str) -> None:
        self.tag = f"bench-{mark}"
        self._source = source
        client = shutil.which("docker", path="/usr/bin:" + os.environ["PATH"])
        assert client, "no docker command"
        self._client = client

    def _do(self, *words: str) -> str:
        env = {**os.environ, "DOCKER_BUILDKIT": "1"}
        return subprocess.run(
            [self._client, *words], env=env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def build(self) -> None:
        self._do("build", "-q", "-t", self.tag, str(self._source))

    def run(self) -> None:
        self._do("run", "-d", "--init", "-m", "512m", "--name", self.tag, self.tag)
        answered(self._do("inspect", "-f", "{{.NetworkSettings.IPAddress}}", self.tag))

    def end(self) -> None:
        self._do("rm", "-f", self.tag)

    def clean(self) -> None:
        self._do("rmi", "-f", self.tag)


class Mini:
    """The same through the plugin."""

    def __init__(self, source: Path, mark: str) -> None:
        engine = Engine()
        self.builder = DockerBuilder(engine, mark, {}, cache=BuildCache(engine, source.with_name(mark), {}))
        self._runtime = DockerRuntime(engine, mark)
        self._source, self._mark, self._number = source, mark, 0

    def build(self) -> None:
        self._number += 1
        request = BuildRequest(
            id=str(self._number), app="bench", plan=PLAN, source=self._source, build_env={}, labels={}
        )
        self._image = self.builder.build(request, RecordingJob(600))

    def run(self) -> None:
        endpoint: Endpoint = self._runtime.allocate(())
        self._spec = InstanceSpec(
            id=f"{self._mark}-{self._number}",
            app="bench",
            release=1,
            process="web",
            image=self._image,
            plan=PLAN,
            env={"PORT": Secret(str(endpoint.port))},
            endpoint=endpoint,
        )
        self._runtime.start(self._spec, RecordingJob())
        answered(endpoint.host)

    def end(self) -> None:
        self._runtime.stop(self._spec.id, grace=0)
        self._runtime.remove(self._spec.id)

    def clean(self) -> None:
        self._runtime.shutdown()
        self.builder.prune((), ())


def timed(what: Callable[[], None]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def main(rounds: int) -> None:
    mark = f"bench{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        source = write_files(Path(folder), FILES)
        both = {"docker": Docker(source, mark), "mini": Mini(source, mark)}
        write_files(source, both["mini"].builder.render(replace(PLAN)))  # type: ignore[union-attr]
        seen: dict[tuple[str, str], list[float]] = {}
        for one in both.values():
            one.build()
        for number in range(rounds):
            (source / "pkg" / "module0.py").write_text(f"changed = {number}\n")
            (source / "requirements.txt").write_text(REQUIREMENTS)
            for name, one in both.items():
                seen.setdefault((name, "changed: build"), []).append(timed(one.build))
                seen.setdefault((name, "unchanged: build"), []).append(timed(one.build))
                seen.setdefault((name, "run until it answers"), []).append(timed(one.run))
                one.end()
            for name, one in both.items():  # a list of its own for each: the engine would share the installed layer
                (source / "requirements.txt").write_text(f"{REQUIREMENTS}# {name} {mark} {number}\n")
                seen.setdefault((name, "dependencies: build"), []).append(timed(one.build))
        for one in both.values():
            one.clean()
    for what in ("unchanged: build", "changed: build", "dependencies: build", "run until it answers"):
        raw, ours = (statistics.median(seen[(name, what)]) for name in both)
        print(f"{what:24} docker {raw:6.2f} s   mini {ours:6.2f} s   ratio {ours / raw:4.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
