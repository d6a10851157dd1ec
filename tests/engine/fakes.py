"""A runtime, a builder, a router and a buildpack that live in memory and implement the same protocols as real ones.

What they made is kept in a `World`, which outlives controllers as an engine does. Instances are threads of this
process that really listen, so that health checks and routing are the real thing. A command says how one behaves:

    serve TEXT            answers with TEXT on PORT          serve-on PORT TEXT    ignores PORT
    answer STATUS         answers with that status           loopback PORT         on its own loopback only
    exit CODE [LINE…]     writes the lines and ends          deaf                  runs, never listens
    oom                   is ended for want of memory        work                  runs
    greet NAME            writes and serves that variable    hang                  runs until it is stopped
    betray NAME           writes that variable and ends
"""

from __future__ import annotations

import http.client
import itertools
import json
import shlex
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from mini_core.errors import BuildError, MiniError, NotFound, StartError, Unavailable
from mini_core.hookspecs import Context, hookimpl
from mini_core.interfaces import BuildRequest, Job, OneOff, Source
from mini_core.testing import free_port
from mini_core.types import (
    BuildSettings,
    Endpoint,
    EnvEntry,
    Event,
    Health,
    Image,
    InstanceSpec,
    InstanceState,
    InstanceStatus,
    LogLine,
    Offer,
    Plan,
    ProcessType,
    Release,
    RouterSettings,
    RouteTable,
    Secret,
    Step,
    Strength,
    Target,
    replace,
)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class Instance:
    """A running instance: a thread that serves, or none."""

    def __init__(self, spec: InstanceSpec) -> None:
        self.spec = spec
        self.lines: list[LogLine] = []
        self.changed = threading.Condition()
        self.started_at = time.time()
        self.ended_at: float | None = None
        self.exit_code: int | None = None
        self.oom = False
        self.removed = False
        self.status = 200
        self.listening: tuple[Endpoint, ...] = ()
        self._server: Server | None = None
        self._behave(*spec.command)

    def _behave(self, verb: str = "serve", *words: str) -> None:
        endpoint = self.spec.endpoint
        if verb == "serve":
            self._serve(endpoint, words[0] if words else "hello")
        elif verb == "greet":
            secret = self.spec.env.get(words[0], Secret("nothing"))
            self.write(f"{words[0]}={secret.reveal()}")
            self._serve(endpoint, secret.reveal())
        elif verb == "serve-on":
            self._serve(Endpoint(host="127.0.0.1", port=int(words[0])), words[1])
        elif verb == "answer":
            self.status = int(words[0])
            self._serve(endpoint, "status")
        elif verb == "loopback":
            self.listening = (Endpoint(host="127.0.0.1", port=int(words[0])),)
        elif verb == "betray":
            self.write(f"cannot log in with {self.spec.env[words[0]].reveal()}")
            self.end(1)
        elif verb == "exit":
            for line in words[1:]:
                self.write(line)
            self.end(int(words[0]))
        elif verb == "oom":
            self.end(137, oom=True)
        elif verb == "sh":  # a line of app.json or a Procfile; commands that are none of the above end well
            known = {"serve", "greet", "answer", "exit", "work", "hang"}
            self._behave(*(shlex.split(words[1]) if words[1].split()[0] in known else ("exit", "0", words[1])))

    def _serve(self, endpoint: Endpoint | None, text: str) -> None:
        assert endpoint is not None
        instance = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text.encode()
                self.send_response(instance.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        try:
            self._server = Server((endpoint.host, endpoint.port), Handler)
        except OSError:
            self.write(f"address already in use: {endpoint}")
            self.end(1)
            return
        self.listening = (endpoint,)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def write(self, text: str) -> None:
        with self.changed:
            spec = self.spec
            line = LogLine(at=time.time(), app=spec.app, source="app", text=text, instance=spec.id)
            self.lines.append(line)
            self.changed.notify_all()

    def end(self, code: int, *, oom: bool = False) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        with self.changed:
            if self.exit_code is None:
                self.exit_code, self.oom, self.ended_at = code, oom, time.time()
                self.listening = ()
            self.changed.notify_all()

    def remove(self) -> None:
        self.end(143)
        with self.changed:
            self.removed = True
            self.changed.notify_all()


class World:
    """Everything that outlives a controller. `starts` counts how often each process name was started."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.images: set[str] = set()
        self.caches: set[str] = set()
        self.volumes: dict[tuple[str, str], bytes] = {}
        self.import_errors: dict[str, str] = {}
        self.builds = 0
        self.starts: dict[str, int] = {}
        self.supervised: set[str] = set()
        self.restarting: dict[str, int] = {}
        self.table = RouteTable(generation=0)
        self.tables: list[RouteTable] = []
        self.router_runs = False
        self.router_starts = 0
        self.asked: dict[str, float] = {}
        """App → seconds since its last request."""
        self.events: list[Event] = []
        self.refusals: list[str] = []
        self.addons: dict[str, str] = {}
        self.gone: list[str] = []
        self.engine_gone = False
        self.health: Literal["", "starting", "healthy", "unhealthy"] = ""
        self.destroy_error = ""
        self.paused: set[str] = set()
        self.hold_starts = threading.Event()
        self.hold_starts.set()
        self.hold_prune = threading.Event()
        self.hold_prune.set()

    def of(self, app: str) -> list[Instance]:
        return [item for item in self.instances.values() if item.spec.app == app]

    def running(self, app: str) -> list[Instance]:
        return [item for item in self.of(app) if item.exit_code is None]

    def close(self) -> None:
        for item in self.instances.values():
            item.remove()


class FakeRuntime:
    accepts = frozenset({"fake"})
    notice = ""

    def __init__(self, world: World, name: str = "fake", abilities: frozenset[str] = frozenset({"volumes"})) -> None:
        self.name = name
        self.abilities = abilities
        self._world = world

    def _reached(self) -> World:
        if self._world.engine_gone:
            raise Unavailable("the engine does not answer", hint="Start it.", code="engine-gone")
        return self._world

    def check(self) -> None:
        self._reached()

    def allocate(self, taken: Collection[Endpoint]) -> Endpoint:
        while (endpoint := Endpoint(host="127.0.0.1", port=free_port())) in taken:
            pass
        return endpoint

    def start(self, spec: InstanceSpec, job: Job) -> InstanceStatus:
        world = self._reached()
        while not world.hold_starts.wait(0.02):
            job.check()
        job.check()
        if spec.id not in world.instances:
            if spec.image.ref not in world.images:
                raise StartError(f"image {spec.image.ref} is gone")
            world.starts[spec.process] = world.starts.get(spec.process, 0) + 1
            world.instances[spec.id] = Instance(spec)
        world.paused.discard(spec.id)
        status = self.status(spec.id)
        assert status is not None
        return status

    def supervise(self, instance: str) -> None:
        self._reached().supervised.add(instance)

    def stop(self, instance: str, *, grace: float) -> None:
        if item := self._reached().instances.get(instance):
            item.end(143)

    def remove(self, instance: str) -> None:
        if item := self._reached().instances.pop(instance, None):
            item.remove()

    def status(self, instance: str) -> InstanceStatus | None:
        item = self._reached().instances.get(instance)
        if item is None:
            return None
        spec = item.spec
        state: InstanceState = "running" if item.exit_code is None else "exited"
        state = "starting" if spec.id in self._world.restarting else state
        state = "paused" if spec.id in self._world.paused else state
        return InstanceStatus(
            id=spec.id,
            app=spec.app,
            release=spec.release,
            process=spec.process,
            index=spec.index,
            state=state,
            endpoint=spec.endpoint,
            started_at=item.started_at,
            ended_at=item.ended_at,
            exit_code=self._world.restarting.get(spec.id, item.exit_code),
            restarts=int(spec.id in self._world.restarting),
            signal=9 if item.oom else None,
            oom=item.oom,
            supervised=spec.id in self._world.supervised,
            health=self._world.health,
            health_detail="curl: (22) 500" if self._world.health == "unhealthy" else "",
        )

    def listening(self, instance: str) -> tuple[Endpoint, ...] | None:
        item = self._reached().instances.get(instance)
        return item.listening if item else None

    def list(self) -> tuple[InstanceStatus, ...]:
        found = (self.status(name) for name in list(self._reached().instances))
        return tuple(status for status in found if status)

    def wait(self, instance: str, timeout: float) -> InstanceStatus | None:
        item = self._reached().instances.get(instance)
        if item is None:
            return None
        with item.changed:
            ended = item.changed.wait_for(lambda: item.exit_code is not None, timeout)
        return self.status(instance) if ended else None

    def logs(self, instance: str, *, since: float = 0.0, follow: bool = False) -> Iterator[LogLine]:
        item = self._world.instances.get(instance)
        for number in itertools.count() if item else ():
            with item.changed:
                if follow:
                    item.changed.wait_for(lambda n=number: len(item.lines) > n or item.removed)
                if number >= len(item.lines):
                    return
                line = item.lines[number]
            if line.at >= since:
                yield line

    def attach(self, spec: InstanceSpec, job: Job) -> OneOff:
        raise NotImplementedError

    def exec(self, instance: str, command: Sequence[str], *, tty: bool = False, env: Mapping[str, Secret]) -> OneOff:
        raise NotImplementedError

    def remove_volume(self, app: str, name: str) -> None:
        if self._world.destroy_error:
            raise Unavailable(self._world.destroy_error)
        self._world.gone.append(f"volume {app}/{name}")

    def volume_path(self, app: str, name: str) -> Path | None:
        return None

    def export_volume(self, app: str, name: str) -> Iterator[bytes]:
        if (app, name) not in self._world.volumes:
            raise NotFound(f"{app} has no volume {name}")
        return iter([self._world.volumes[app, name]])

    def import_volume(self, app: str, name: str, data: Iterator[bytes]) -> None:
        self._world.volumes[app, name] = b"".join(data)

    def destroy(self, app: str) -> None:
        if self._world.destroy_error:
            raise Unavailable(self._world.destroy_error)
        for item in self._world.of(app):
            self.remove(item.spec.id)
        self._world.gone.append(f"app {app}")

    def shutdown(self) -> None:
        for item in list(self._world.instances.values()):
            item.end(143)


class FakeBuilder:
    """Steps: ("print", LINE…), ("fail", LINE…), ("hang",)."""

    name, produces = "fake", "fake"

    def __init__(self, world: World) -> None:
        self._world = world

    def render(self, plan: Plan) -> dict[str, str]:
        return {"Dockerfile": "FROM scratch\n"}

    def build(self, request: BuildRequest, job: Job) -> Image:
        for step in request.plan.steps:
            verb, *lines = step.argv
            for line in lines:
                job.emit(line)
            while verb == "hang":
                job.check()
                time.sleep(0.01)
            if verb == "fail":
                raise BuildError(f"{step.name} failed", step=step.name, hint="Mend it.", tail=lines)
        self._world.builds += 1
        self._world.images.add(request.id)
        self._world.caches.add(request.app)
        return Image(kind="fake", builder="fake", ref=request.id)

    def exists(self, image: Image) -> bool:
        return image.ref in self._world.images

    def remove(self, image: Image) -> None:
        self._world.images.discard(image.ref)

    def prune(self, keep: Collection[Image], apps: Collection[str]) -> int:
        self._world.hold_prune.wait(10)
        self._world.images &= {image.ref for image in keep}
        self._world.caches &= set(apps)
        return 0

    def size(self, images: Collection[Image]) -> int:
        return 1000 * len(images)

    def export(self, images: Collection[Image]) -> Iterator[bytes]:
        refs = [image.ref for image in images]
        if not set(refs) <= self._world.images:
            raise NotFound(f"one of {refs} is gone")
        return iter([" ".join(refs).encode()])

    def import_(self, images: Sequence[tuple[Image, str]], data: Iterator[bytes]) -> tuple[Image | MiniError, ...]:
        assert b"".join(data).decode().split() == [image.ref for image, _ in images]
        return tuple(self._adopted(image, app) for image, app in images)

    def _adopted(self, image: Image, app: str) -> Image | MiniError:
        if app in self._world.import_errors:
            return BuildError(self._world.import_errors[app])
        self._world.images.add(f"{app}-{image.ref}")
        return replace(image, ref=f"{app}-{image.ref}")


class FakeRouter:
    name, https = "fake", False

    def __init__(self, world: World) -> None:
        self._world = world

    def _reached(self) -> World:
        if not self._world.router_runs:
            raise Unavailable("the router does not answer", code="router-gone")
        return self._world

    def start(self, settings: RouterSettings) -> None:
        if not self._world.router_runs:
            self._world.router_runs = True
            self._world.router_starts += 1

    def apply(self, table: RouteTable) -> None:
        world = self._reached()
        if table.generation < world.table.generation:
            raise Unavailable("a lower generation")
        world.table = table
        world.tables.append(table)

    def in_flight(self, target: Target) -> int | None:
        return 0

    def drain(self, target: Target, timeout: float) -> bool:
        self._reached()
        return True

    def cut(self, target: Target) -> None:
        self._reached()

    def status(self) -> Mapping[str, Any]:
        return {"generation": self._reached().table.generation}

    def activity(self) -> Mapping[str, float]:
        return self._reached().asked

    def close(self) -> None:
        return

    def stop(self) -> None:
        self._world.router_runs = False


def ask(world: World, host: str) -> tuple[int, str]:
    """What a client of the router gets, once."""
    route = next((item for item in world.table.routes if item.host == host), None)
    if route is None:
        return 404, ""
    if route.state != "live" or not route.targets:
        return 503, route.state
    target = route.targets[0]
    connection = http.client.HTTPConnection(target.host, target.port, timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (TimeoutError, ConnectionError, http.client.HTTPException):
        return 502, ""
    finally:
        connection.close()


class FakeBuildpack:
    """Reads app.json-like wishes from fake.json: {"web": […], "release": […], "steps": […], "health": "/x", …}."""

    name, description = "fake", "fake.json"

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        text = source.text("fake.json")
        if text is None:
            return None
        wish = json.loads(text)
        processes = [
            ProcessType(name=name, command=tuple(wish[name]))
            for name in ("web", "release", "worker", "clock")
            if name in wish
        ]
        steps = [Step(name=f"step {number}", argv=tuple(argv)) for number, argv in enumerate(wish.get("steps", ()), 1)]
        plan = Plan(
            buildpack="fake",
            summary=("fake",),
            processes=tuple(processes),
            steps=tuple(steps),
            env=tuple(EnvEntry(**entry) for entry in wish.get("env", ())),
            health=Health(
                path=wish.get("health", ""), timeout=wish.get("timeout", 1.5), interval=wish.get("interval", 10.0)
            ),
        )
        return Offer(buildpack="fake", strength=Strength.PROJECT, reason="has fake.json", plan=plan)


class FakePlugin:
    def __init__(self, world: World, *, abilities: frozenset[str] = frozenset({"volumes"})) -> None:
        self._world = world
        self._abilities = abilities

    @hookimpl
    def mini_detect(self) -> Sequence[FakeBuildpack]:
        return [FakeBuildpack()]

    @hookimpl
    def mini_build(self, context: Context) -> Sequence[FakeBuilder]:
        return [FakeBuilder(self._world)]

    @hookimpl
    def mini_run(self, context: Context) -> Sequence[FakeRuntime]:
        return [FakeRuntime(self._world, abilities=self._abilities)]

    @hookimpl
    def mini_route(self, context: Context) -> Sequence[FakeRouter]:
        return [FakeRouter(self._world)]

    @hookimpl
    def mini_release_env(self, app: str) -> Mapping[str, str]:
        return self._world.addons

    @hookimpl
    def mini_check_deploy(self, app: str, plan: Plan, release: Release | None) -> Sequence[str]:
        return self._world.refusals

    @hookimpl
    def mini_app_destroy(self, app: str) -> None:
        self._world.gone.append(f"plugin's {app}")

    @hookimpl
    def mini_event(self, event: Event) -> None:
        self._world.events.append(event)
