"""mini as the scoring uses it: planning, a builder and a runtime, through their public interfaces."""

from __future__ import annotations

import random
import secrets
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mini_core.errors import MiniError, Unavailable
from mini_core.hooks import Hooks
from mini_core.hookspecs import Context
from mini_core.interfaces import Builder, BuildRequest, Runtime
from mini_core.planned import Planned
from mini_core.planning import make_plan
from mini_core.plugins import load_plugins
from mini_core.sources import FolderSource
from mini_core.testing import RecordingJob
from mini_core.types import Endpoint, Image, InstanceSpec, Plan, ProcessType, Secret, iter_env, replace

BUILD_SECONDS = 1200.0


class Platform:
    """runtime: its name, or "" for Docker where it answers and local processes otherwise."""

    def __init__(self, folder: Path, runtime: str = "") -> None:
        self.id = f"corpus-{uuid.uuid4().hex[:12]}"
        self.hooks = Hooks(load_plugins())
        self._buildpacks = self.hooks.buildpacks()
        self._folder, self._wanted = folder, runtime
        self._builder: Builder | None = None
        self._runtime: Runtime | None = None

    def plan(self, folder: Path, env: Mapping[str, str] | None = None) -> Planned:
        """As `mini plan` makes it. Raises what planning raises."""
        return make_plan(FolderSource(folder), self._buildpacks, build_env=env or {}, amend=self.hooks.amend_plan)

    @property
    def runtime(self) -> Runtime:
        self._choose()
        assert self._runtime
        return self._runtime

    def build(self, app: str, plan: Plan, source: Path) -> tuple[Image, RecordingJob, float]:
        """The image, what was said, and the seconds it took. Raises what the builder raises."""
        self._choose()
        assert self._builder
        request = BuildRequest(
            id=uuid.uuid4().hex[:12], app=app, plan=plan, source=source, build_env={}, labels={"mini.platform": self.id}
        )
        job = RecordingJob(BUILD_SECONDS)
        begun = time.monotonic()
        return self._builder.build(request, job), job, time.monotonic() - begun

    def remove(self, *images: Image) -> None:
        for image in images:
            if self._builder:
                self._builder.remove(image)

    @contextmanager
    def started(
        self, app: str, image: Image, plan: Plan, process: ProcessType | None, env: Mapping[str, str]
    ) -> Iterator[InstanceSpec]:
        """An instance with a random PORT; stopped and removed afterwards."""
        spec = self._spec(app, image, plan, process, env)
        self.runtime.start(spec, RecordingJob(60.0))
        try:
            yield spec
        finally:
            self.runtime.stop(spec.id, grace=1.0)
            self.runtime.remove(spec.id)

    def close(self) -> None:
        if self._runtime:
            self._runtime.shutdown()

    def _choose(self) -> None:
        if self._runtime:
            return
        context = Context(
            platform=self.id, data=self._folder / "data", cache=self._folder / "cache", images={}, settings={}
        )
        context.data.mkdir(parents=True, exist_ok=True)
        context.cache.mkdir(parents=True, exist_ok=True)
        runtimes, builders = self.hooks.runtimes(context), self.hooks.builders(context)
        wanted = [self._wanted] if self._wanted else ["docker", "process"]
        problem = MiniError(f"no runtime named {', '.join(wanted)}; there are: {', '.join(runtimes) or 'none'}")
        for runtime in (runtimes[name] for name in wanted if name in runtimes):
            try:
                runtime.check()
            except Unavailable as error:
                problem = error
                continue
            self._runtime = runtime
            self._builder = next(item for item in builders.values() if item.produces in runtime.accepts)
            return
        raise problem

    def _spec(
        self, app: str, image: Image, plan: Plan, process: ProcessType | None, env: Mapping[str, str]
    ) -> InstanceSpec:
        kind = process.name if process else "web"
        endpoint = replace(self.runtime.allocate(()), port=random.randrange(20000, 32000))
        host = "0.0.0.0" if "isolation" in self.runtime.abilities else "127.0.0.1"
        values = {entry.name: entry.value for entry in iter_env(plan, "value")}
        values |= {entry.name: secrets.token_hex(24) for entry in iter_env(plan, "generated")}
        values |= {entry.name: "corpus" for entry in iter_env(plan, "required")}
        values |= {"HOST": host, **env, "PORT": str(endpoint.port)}
        name = f"{app}-{uuid.uuid4().hex[:8]}"
        labels = {"platform": self.id, "app": app, "release": "1", "process": kind, "instance": name}
        return InstanceSpec(
            id=name,
            app=app,
            release=1,
            process=kind,
            kind="web" if kind == "web" else "worker",
            image=image,
            plan=plan,
            command=process.command if process else (),
            env={key: Secret(text) for key, text in values.items()},
            endpoint=endpoint if kind == "web" else None,
            labels={f"mini.{key}": text for key, text in labels.items()},
        )


def address(platform: Platform, spec: InstanceSpec) -> Endpoint | None:
    """Where the instance answers: at its PORT, or, as the core does it too, at the only port it listens on."""
    status = platform.runtime.status(spec.id)
    if status is None or status.state != "running" or spec.endpoint is None:
        return None
    endpoint = status.endpoint or spec.endpoint
    listening = platform.runtime.listening(spec.id) or ()
    ports = [item.port for item in listening if item.host not in ("127.0.0.1", "::1")]
    if endpoint.port in ports or not ports:
        return endpoint
    return replace(endpoint, port=min(ports))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mini-corpus-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
