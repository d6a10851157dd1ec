"""The real HTTP API, over a controller that keeps everything in memory and deploys as a test has scripted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from waitress.server import create_server

from mini_core import api, backups
from mini_core.controller import Controller
from mini_core.errors import Conflict, Denied, NotFound, PlanError
from mini_core.interfaces import EndpointSpec, Page
from mini_core.paths import Paths
from mini_core.server.app import create_app
from mini_core.server.channel import end_loop
from mini_core.settings import Settings
from mini_core.types import Check, Event, Limits, LogLine, Plan, ProcessType, replace, to_data

KEY = "mini_right"
Script = Callable[["FakeController", int], Iterator[api.DeployEvent]]


def step(seq: int, name: str, phase: str, took: float = 0.0) -> api.DeployEvent:
    return api.DeployEvent(seq=seq, at=1.0, kind="step", text=name, data={"phase": phase, "seconds": took})


def said(seq: int, text: str, kind: str = "output") -> api.DeployEvent:
    return api.DeployEvent(seq=seq, at=1.0, kind=kind, text=text)


STORY = (
    step(1, "planned", "begin"),
    said(2, "python 3.13 (from .python-version) · pip · Flask → gunicorn", "info"),
    step(3, "planned", "end", 0.1),
    step(4, "built", "begin"),
    said(5, "Collecting flask"),
    said(6, "Successfully installed flask"),
    step(7, "built", "end", 2.0),
    step(8, "released", "begin"),
    step(9, "released", "end", 0.0),
    step(10, "starting", "begin"),
    step(11, "starting", "end", 0.3),
    said(12, "healthy after 0.8 s", "info"),
    step(13, "healthy", "end", 0.5),
    step(14, "routed", "begin"),
    step(15, "routed", "end", 0.01),
    said(16, "", "done"),
)


class FakeController(Controller):
    def __init__(self, paths: Paths) -> None:
        self.settings, self.paths, self.platform = Settings(), paths, "p-1"
        self.known: dict[str, api.AppInfo] = {}
        self.variables: dict[str, dict[str, str]] = {}
        self.jobs: dict[int, api.DeployInfo] = {}
        self.sources: list[bytes] = []
        self.options: list[api.DeployOptions] = []
        self.calls: list[tuple[Any, ...]] = []
        self.keys_seen: list[str] = []
        self.lines: list[LogLine] = []
        self.script: Script = lambda _, after: (event for event in STORY if event.seq > after)
        self.outcome: dict[str, Any] = {"state": "done", "release": 1}
        self.go_on = threading.Event()
        self.cut = False
        self.backup_bytes = 100_000
        self.restored = [
            api.RestoreEvent(kind="info", text="Taking over"),
            api.RestoreEvent(kind="done", text="Restored"),
        ]

    # --- the platform

    def status(self, base_url: str) -> api.StatusInfo:
        return api.StatusInfo(
            version="0.1.0",
            platform=self.platform,
            state="degraded",
            runtime="docker",
            router="proxy",
            url=base_url,
            pid=4711,
            started_at=time.time() - 100,
            apps=tuple(self.known.values()),
            problems=("blog: web.1 crashed 14 times since 02:03: mini logs blog",),
            disk_free=10**10,
            disk_used=10**6,
        )

    def doctor(self) -> api.DoctorInfo:
        bad = Check(name="disk", state="error", detail="1 GB free", hint="Remove something")
        return api.DoctorInfo(checks=(Check(name="engine", state="ok", detail="Docker 20.10"), bad))

    def backup_size(self, *, images: bool) -> int:
        return self.backup_bytes

    def backup(self, actor: str, *, images: bool) -> Iterator[bytes]:
        self.calls.append(("backup", images))
        head = backups.Head(mini="0.1.0", schema=1, platform="p-1", runtime="docker", created_at=1.0)
        writer = backups.Writer(head)
        writer.left_out += ["the image of shop: there is no builder kaniko"]
        yield writer.begin()
        yield from writer.part(backups.Part(name="volumes/blog/data", kind="volume", app="blog"), [b"x" * 100_000])
        if self.cut:
            raise RuntimeError("gone in the middle")
        yield from writer.end(["blog", "shop"])

    def restore(self, file: BinaryIO, actor: str, *, replacing: bool) -> Iterator[api.RestoreEvent]:
        self.calls.append(("restore", backups.verify(file).apps, replacing))
        yield from self.restored

    def export_volume(self, app: str, target: str, actor: str) -> Iterator[bytes]:
        self.calls.append(("export_volume", app, target))
        return iter([b"a tar"])

    def plugins(self) -> tuple[api.PluginInfo, ...]:
        return (api.PluginInfo(name="sick", version="1", origin="sick-dist", state="broken", reason="no such module"),)

    def buildpacks(self) -> tuple[api.BuildpackInfo, ...]:
        return (api.BuildpackInfo(name="php", description="an index.php", plugin="php", version="1"),)

    def endpoints(self) -> Mapping[str, tuple[EndpointSpec, ...]]:
        return {}

    def pages(self) -> Mapping[str, tuple[Page, ...]]:
        return {}

    def plan(self, archive: Path, options: api.DeployOptions) -> api.PlanInfo:
        if options.buildpack:
            raise PlanError(f"no buildpack named {options.buildpack}", hint="There are: php.")
        return api.PlanInfo(plan=Plan(buildpack="php", summary=("PHP",)), files={"Dockerfile": "FROM php\n"})

    def events(self, *, app: str = "", after: int = 0, limit: int = 100, follow: bool = False) -> Iterator[Event]:
        yield Event(id=1, at=1.0, kind="app.created", actor="admin", app=app or "blog", data={"reason": "test"})

    def authenticate(self, key: str) -> api.KeyInfo:
        self.keys_seen.append(key)
        if key != KEY:
            raise Denied("No such key.", hint="Set the right one: mini config set-api-key")
        return api.KeyInfo(name="admin", created_at=1.0)

    def keys(self) -> tuple[api.KeyInfo, ...]:
        return (api.KeyInfo(name="admin", created_at=time.time() - 60),)

    def create_key(self, request: api.NewKey, actor: str) -> api.CreatedKey:
        self.calls.append(("key", request.name, request.app, request.expires_in))
        return api.CreatedKey(name=request.name, key="mini_new")

    def revoke_key(self, name: str, actor: str) -> None:
        self.calls.append(("revoke", name))

    # --- apps

    def apps(self, base_url: str) -> tuple[api.AppInfo, ...]:
        return tuple(self.known.values())

    def app(self, name: str, base_url: str) -> api.AppInfo:
        if name not in self.known:
            raise NotFound(f"No app {name}.", hint="See which there are: mini apps")
        return self.known[name]

    def create_app(self, request: api.NewApp, actor: str, base_url: str) -> api.AppInfo:
        name = request.name or "blue-sky"
        if name in self.known:
            raise Conflict(f"There is an app {name} already.", hint="Choose another name.")
        self.known[name] = api.AppInfo(name=name, state="new", created_at=time.time(), url=f"http://{name}.localhost")
        return self.known[name]

    def rename_app(self, name: str, new: str, actor: str) -> None:
        self.known[new] = replace(self.app(name, ""), name=new)
        del self.known[name]

    def destroy_app(self, name: str, actor: str) -> None:
        self.app(name, "")
        del self.known[name]

    # --- deploys

    def deploy(self, app: str, archive: Path, options: api.DeployOptions, actor: str, base_url: str) -> api.DeployInfo:
        self.sources.append(archive.read_bytes())
        archive.unlink()
        self.options.append(options)
        if app not in self.known:
            self.create_app(api.NewApp(name=app), actor, base_url)
        return self.job(app, "deploy", actor)

    def job(self, app: str, kind: str, actor: str, reason: str = "") -> api.DeployInfo:
        number, now = 41 + len(self.jobs), time.time()
        self.jobs[number] = api.DeployInfo(
            id=number, app=app, kind=kind, state="running", step="received", actor=actor, created_at=now, reason=reason
        )
        return self.jobs[number]

    def deploys(self, app: str = "", *, limit: int = 50) -> tuple[api.DeployInfo, ...]:
        return tuple(job for job in self.jobs.values() if app in ("", job.app))[:limit]

    def deploy_info(self, deploy: int) -> api.DeployInfo:
        if deploy not in self.jobs:
            raise NotFound(f"No deploy {deploy}.", hint="See the last ones: mini deploys")
        return self.jobs[deploy]

    def deploy_events(self, deploy: int, *, after: int = 0, follow: bool = True) -> Iterator[api.DeployEvent]:
        job = self.jobs[deploy]
        url = f"http://{job.app}.localhost:8080"
        ended = replace(job, **{"finished_at": time.time(), "url": url, **self.outcome})
        for event in self.script(self, after):
            if event.kind in ("done", "failed", "cancelled"):
                self.jobs[deploy] = ended
                event = replace(event, data=to_data(ended))
            yield event
        self.jobs[deploy] = ended

    def cancel_deploy(self, deploy: int, actor: str) -> api.DeployInfo:
        return self.deploy_info(deploy)

    def releases(self, app: str) -> tuple[api.ReleaseInfo, ...]:
        gone = replace(self.release(app, 1), current=False, image_kept=False)
        return (self.release(app, 2), gone, replace(self.release(app, 0), current=False, state="failed"))

    def release(self, app: str, version: int) -> api.ReleaseInfo:
        return api.ReleaseInfo(
            version=version,
            created_at=time.time() - 3600,
            created_by="admin",
            reason="deploy",
            runtime="docker",
            current=True,
            image="sha256:abc",
            commit="0123456789abcdef",
            changed=2,
            processes=(ProcessType(name="web", command=("gunicorn", "app:app")),),
            limits={"": Limits(memory=512 * 1024 * 1024)},
            env={"A": "1"},
        )

    def rollback(self, app: str, request: api.Rollback, actor: str) -> api.DeployInfo:
        self.calls.append(("rollback", app, request.version))
        return self.job(app, "rollback", actor, reason=f"rollback to v{request.version or 1}")

    def env(self, app: str, *, build: bool = False) -> dict[str, str]:
        self.app(app, "")
        return dict(self.variables.get(app, {}))

    def change_env(self, app: str, change: api.EnvChange, actor: str) -> api.DeployInfo | None:
        before = self.env(app)
        after = {name: item for name, item in {**before, **change.set}.items() if name not in change.unset}
        self.variables[app] = after
        return None if after == before or change.build else self.job(app, "env", actor)

    def scale(self, app: str, request: api.Scale, actor: str) -> api.DeployInfo | None:
        self.calls.append(("scale", app, dict(request.quantities), request.memory, request.cpu, request.process))
        return self.job(app, "scale", actor)

    def restart(self, app: str, actor: str, *, process: str = "") -> api.DeployInfo:
        self.calls.append(("restart", app, process))
        return self.job(app, "restart", actor)

    def stop(self, app: str, actor: str) -> None:
        self.calls.append(("stop", app))

    def start_app(self, app: str, actor: str) -> api.DeployInfo:
        return self.job(app, "start", actor)

    # --- watching and the rest

    def ps(self, app: str) -> tuple[api.InstanceInfo, ...]:
        self.app(app, "")
        fine = api.InstanceInfo(
            name="web.1",
            id="i-1",
            process="web",
            index=1,
            release=2,
            state="running",
            since=time.time() - 300,
            memory=100 * 1024 * 1024,
            memory_limit=512 * 1024 * 1024,
            cpu=0.02,
            endpoint="10.0.0.2:8000",
            command="gunicorn app:app",
        )
        note = "crashed 14 times since 02:03, out of memory (512 MB), next try in 60 s"
        return fine, replace(fine, name="web.2", state="crashed", note=note, hint="mini logs blog --process web.2")

    def logs(self, app: str, **query: Any) -> Iterator[LogLine]:
        self.calls.append(("logs", app, query))
        return iter([line for line in self.lines if line.at >= query["since"]])

    def domains(self, app: str, base_url: str) -> tuple[api.DomainInfo, ...]:
        return (api.DomainInfo(domain="blog.localhost", url="http://blog.localhost", kind="default"),)

    def add_domain(self, app: str, domain: str, actor: str, base_url: str) -> api.DomainInfo:
        return api.DomainInfo(domain=domain, url=f"http://{domain}", kind="added", dns=f"{domain}. A 192.0.2.1")

    def remove_domain(self, app: str, domain: str, actor: str) -> None:
        self.calls.append(("remove_domain", app, domain))

    def volumes(self, app: str) -> tuple[api.VolumeChange, ...]:
        return (api.VolumeChange(target="/data", name="data"),)

    def add_volume(self, app: str, request: api.VolumeChange, actor: str) -> api.DeployInfo | None:
        return self.job(app, "volumes", actor)

    def remove_volume(self, app: str, target: str, actor: str) -> api.DeployInfo | None:
        self.calls.append(("remove_volume", app, target))
        return None

    def maintenance(self, app: str, on: bool, actor: str) -> None:
        self.calls.append(("maintenance", app, on))


class FakeServer:
    """The API on a port of 127.0.0.1, or on a unix socket, where no key is needed."""

    def __init__(self, controller: FakeController, *, socket: Path | None = None) -> None:
        self.controller = controller
        app = create_app(controller, trusted=socket is not None)
        where: dict[str, Any] = {"unix_socket": str(socket)} if socket else {"host": "127.0.0.1", "port": 0}
        self._server = create_server(app, threads=8, clear_untrusted_proxy_headers=False, **where)
        self.url = "" if socket else f"http://127.0.0.1:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        end_loop(self._server, self._thread)
        self._server.task_dispatcher.shutdown()
