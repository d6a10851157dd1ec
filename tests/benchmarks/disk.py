"""What code-only deploys leave on the engine's disk.

    python tests/benchmarks/disk.py [DEPLOYS]

Builds an app of 5 MB again and again, its code changed each time, with images of the last five kept. Prints what the
images have for themselves, and what is in BuildKit's cache besides. Needs an engine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from pathlib import Path

from mini_core.interfaces import BuildRequest
from mini_core.testing import RecordingJob, write_files
from mini_core.types import Image, Plan, ProcessType, Step, Toolchain
from mini_docker.builder import DockerBuilder
from mini_docker.cache import BuildCache
from mini_docker.engine import Engine

KEEP = 5
PLAN = Plan(
    buildpack="python",
    toolchains=(Toolchain(name="python", version="3.13"),),
    runtime="python",
    steps=(
        Step(name="venv", argv=("python", "-m", "venv", ".venv"), files=("requirements.txt",)),
        Step(name="compile", argv=(".venv/bin/python", "-m", "compileall", "-q", "pkg")),
    ),
    bin=(".venv/bin",),
    processes=(ProcessType(name="web", command=("python", "-m", "http.server", "8080")),),
)


class Bench:
    def __init__(self, folder: Path) -> None:
        self._engine, self._mark = Engine(), f"bench{uuid.uuid4().hex[:8]}"
        self._cache = BuildCache(self._engine, folder / "cache", {})
        self.builder = DockerBuilder(self._engine, self._mark, {}, cache=self._cache)
        self._source = write_files(folder / "source", {"requirements.txt": f"# {self._mark}\n"})
        (self._source / "data").write_bytes(os.urandom(5_000_000))

    def deploy(self, number: int) -> Image:
        write_files(self._source, {"pkg/code.py": f"number = {number}\n"})
        request = BuildRequest(id=str(number), app="bench", plan=PLAN, source=self._source, build_env={}, labels={})
        return self.builder.build(request, RecordingJob(600))

    def show(self, when: str) -> None:
        usage = self._cache.usage()
        images = [
            item
            for item in self._engine.api.df()["Images"]
            if (item.get("Labels") or {}).get("mini.platform") == self._mark
        ]
        alone = sum(item["Size"] - max(item["SharedSize"], 0) for item in images)
        print(
            f"{when:24} {len(images):3} images {alone / 1e6:7.1f} MB   "
            f"build cache {usage.records:3} records {usage.ours / 1e6:7.1f} MB"
        )


def main(deploys: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        kept = [bench.deploy(0)]
        bench.show("after the first deploy")
        for number in range(1, deploys + 1):
            kept.append(bench.deploy(number))
            for image in kept[:-KEEP]:
                bench.builder.remove(image)
            kept = kept[-KEEP:]
        bench.show(f"after {deploys} more")
        bench.builder.prune(kept, ["bench"])
        bench.show("after the clean-up")
        bench.builder.prune((), ())
        bench.show("without the app")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
