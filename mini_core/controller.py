"""The platform, as one object: what the HTTP API can ask of it.

The server translates HTTP to these calls and back; everything that decides lives behind them. Every method
raises MiniError for what it foresees. `actor` is the name of the key that asks.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mini_core import api, backups, hosts, releases
from mini_core.engine import backup, describe, intake, oneoffs, requests, restore, transfer, volumes
from mini_core.engine.engine import Engine
from mini_core.engine.opening import open_parts, own
from mini_core.engine.plugins import add_hook_jobs
from mini_core.errors import Cancelled, Conflict, NotFound, Unavailable, UsageError
from mini_core.hooks import Hooks
from mini_core.interfaces import EndpointSpec, OneOff, Page
from mini_core.locks import FileLock
from mini_core.logs import Filter
from mini_core.names import check_name, new_name
from mini_core.paths import Paths
from mini_core.settings import Settings
from mini_core.store.records import App, Deploy, Request
from mini_core.types import Event, LogLine, Secret

DESTROY_PATIENCE = 120.0
"""Seconds that destroying an app is waited for; it goes on afterwards."""


class Controller:
    """Made by `open_controller(settings, paths)`, which takes the data folder's lock. `start()` adopts or starts the
    router, recovers deploys, and begins reconciling; `close()` leaves apps and router running; `shutdown()` stops
    them, keeping the desired state."""

    restoring = False
    """While it is, nothing else is to be asked."""

    def __init__(self, engine: Engine, lock: FileLock) -> None:
        self._lock = lock
        self._closing = threading.Event()
        self._changing = threading.RLock()
        self._started_at = time.time()
        self.settings: Settings = engine.parts.settings
        self.paths: Paths = engine.parts.paths
        self._take(engine)

    def _take(self, engine: Engine) -> None:
        self._engine = engine
        self._parts = engine.parts
        self._store = engine.parts.store
        self.platform: str = engine.parts.platform

    def start(self) -> None:
        self._engine.start()

    def close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            with self._changing:
                self._engine.close()
                self._lock.release()

    def shutdown(self) -> None:
        self._engine.shutdown()

    @property
    def homeless(self) -> bool:
        """Somebody has removed the data folder: nothing of it can be kept any more, nor found again."""
        return not self._lock.in_place

    # --- the platform

    def status(self, base_url: str) -> api.StatusInfo:
        """base_url: what the client used to reach us, from which URLs of apps derive where no domain is set."""
        return self._engine.status(self.apps(base_url), base_url, self._started_at)

    def doctor(self) -> api.DoctorInfo:
        return api.DoctorInfo(checks=self._engine.checks())

    def plugins(self) -> tuple[api.PluginInfo, ...]:
        return self._parts.hooks.infos()

    def buildpacks(self) -> tuple[api.BuildpackInfo, ...]:
        return self._parts.hooks.buildpack_infos()

    def endpoints(self) -> Mapping[str, tuple[EndpointSpec, ...]]:
        """Plugin → its endpoints."""
        return self._parts.hooks.endpoints()

    def pages(self) -> Mapping[str, tuple[Page, ...]]:
        """Plugin → its pages."""
        return self._parts.hooks.pages()

    def plan(self, archive: Path, options: api.DeployOptions) -> api.PlanInfo:
        """archive: stays the caller's."""
        with intake.unpacked(self._parts, archive, f"plan-{secrets.token_hex(8)}") as (source, _):
            planned = intake.plan_source(self._parts, "", source, {}, path=options.path, buildpack=options.buildpack)
            return planned.info(self._parts.builder().render(planned.plan))

    def events(self, *, app: str = "", after: int = 0, limit: int = 100, follow: bool = False) -> Iterator[Event]:
        """Events newer than `after`; without `after`, the last `limit` ones."""
        events = self._store.events
        count = events.count
        found = events.after(after, app=app, limit=limit) if after else events.last(app=app, limit=limit)
        last = after
        while True:
            for item in found:
                yield item
                last = item.id
            if not follow or self._closing.is_set():
                return
            events.wait(count, 1.0)
            if events is not self._store.events:
                return  # the platform was restored
            count = events.count
            found = events.after(last, app=app)

    # --- keys

    def authenticate(self, key: str) -> api.KeyInfo:
        """Raises Denied."""
        return self._store.keys.check(key)

    def keys(self) -> tuple[api.KeyInfo, ...]:
        return self._store.keys.list()

    def create_key(self, request: api.NewKey, actor: str) -> api.CreatedKey:
        if not request.name.strip():
            raise UsageError("A key needs a name.", hint="mini keys create NAME")
        if request.app:
            self._store.apps.get(request.app)
        with self._store.transaction():
            key = self._store.keys.create(request)
            self._store.events.add("key.created", actor, request.app, {"key": request.name})
        return api.CreatedKey(name=request.name, key=key)

    def revoke_key(self, name: str, actor: str) -> None:
        with self._store.transaction():
            self._store.keys.revoke(name)
            self._store.events.add("key.revoked", actor, data={"key": name})

    # --- apps

    def apps(self, base_url: str) -> tuple[api.AppInfo, ...]:
        with self._store.transaction():  # one look, and one connection for all of its queries
            return tuple(describe.app_info(self._parts, app, base_url) for app in self._store.apps.all())

    def app(self, name: str, base_url: str) -> api.AppInfo:
        return describe.app_info(self._parts, self._store.apps.get(name), base_url)

    def create_app(self, request: api.NewApp, actor: str, base_url: str) -> api.AppInfo:
        return describe.app_info(self._parts, self._create(request.name, actor), base_url)

    def _create(self, name: str, actor: str) -> App:
        with self._store.transaction():
            app = self._store.apps.create(check_name(name) if name else new_name(self._store.apps.names()), actor)
            self._store.events.add("app.created", actor, app.name)
            return app

    def rename_app(self, name: str, new: str, actor: str) -> None:
        with self._store.transaction():
            app = self._store.apps.get(name)
            self._engine.queue.check_idle(app)
            self._store.apps.rename(app.id, check_name(new))
            self._store.keys.rename_app(name, new)
            self._store.meta.next_generation()
            add_hook_jobs(self._parts, "mini_app_rename", new, {"old": name, "new": new})
            self._store.events.add("app.renamed", actor, new, {"old": name})
        self._engine.worker.wake()
        self._engine.publish()

    def destroy_app(self, name: str, actor: str) -> None:
        """Returns when nothing of the app is left; what is stuck is retried and shows in `status`."""
        job = self._engine.housekeeper.condemn(self._store.apps.get(name), actor)
        if not self._engine.worker.wait_for(job, DESTROY_PATIENCE):
            error = next((item.error for item in self._store.jobs.all() if item.id == job), "")
            raise Unavailable(
                f"{name} is not gone yet{': ' + error if error else ''}.",
                hint="It is tried again until it is done: mini status",
                code="destroying",
            )

    def wake(self, app: str) -> None:
        """Starts a sleeping app and returns when it is routed; many callers, one start."""
        self._engine.sleeper.wake(app)

    # --- deploys: each of these returns at once; the work is a stored job

    def deploy(self, app: str, archive: Path, options: api.DeployOptions, actor: str, base_url: str) -> api.DeployInfo:
        """archive: a tar.gz, which the controller takes over (moves)."""
        requests.check_env(options.env)
        intake.check_disk(self._parts)
        found = self._app_to_deploy(app, options, actor)
        upload = intake.take_upload(self._parts, archive)
        env = {name: Secret(item) for name, item in options.env.items()}
        kept = intake.without_env(options)
        request = Request(options=kept, env=env)
        return self._info(self._engine.queue.submit_archive(found, request, actor, upload, base_url))

    def _app_to_deploy(self, name: str, options: api.DeployOptions, actor: str) -> App:
        try:
            return self._store.apps.get(name)
        except NotFound:
            if not options.create:
                raise
            return self._create(name, actor)

    def _info(self, deploy: Deploy) -> api.DeployInfo:
        return describe.deploy_info(self._parts, deploy)

    def _submit(self, app: App, kind: str, request: Request, actor: str, reason: str) -> api.DeployInfo:
        return self._info(self._engine.queue.submit(app, kind, request, actor, reason))

    def deploys(self, app: str = "", *, limit: int = 50) -> tuple[api.DeployInfo, ...]:
        number = self._store.apps.get(app).id if app else None
        return tuple(self._info(item) for item in self._store.deploys.list(number, limit=limit))

    def deploy_info(self, deploy: int) -> api.DeployInfo:
        return self._info(self._store.deploys.get(deploy))

    def deploy_events(self, deploy: int, *, after: int = 0, follow: bool = True) -> Iterator[api.DeployEvent]:
        self._store.deploys.get(deploy)
        return self._engine.journal.follow(deploy, after, follow=follow)

    def cancel_deploy(self, deploy: int, actor: str) -> api.DeployInfo:
        return self._info(self._engine.queue.cancel(deploy, actor))

    def releases(self, app: str) -> tuple[api.ReleaseInfo, ...]:
        found = self._store.apps.get(app)
        return tuple(describe.release_info(found, item) for item in self._store.releases.all(found.id))

    def release(self, app: str, version: int) -> api.ReleaseInfo:
        found = self._store.apps.get(app)
        return describe.release_info(found, self._store.releases.get(found.id, version))

    def rollback(self, app: str, request: api.Rollback, actor: str) -> api.DeployInfo:
        found = self._store.apps.get(app)
        requests.current_release(self._parts, found)
        version = request.version
        if version is None:  # which release is the one before, is not known before that deploy has ended
            self._engine.queue.check_idle(found, f", or name the release: mini rollback vN -a {app}")
            version = requests.previous_version(self._parts, found)
        stored = self._store.releases.get(found.id, version)
        if stored.state != "live":
            raise Conflict(f"v{version} never went live.", hint=f"mini releases {app} lists those that did.")
        return self._submit(found, "rollback", Request(version=version), actor, f"rollback to v{version}")

    def env(self, app: str, *, build: bool = False) -> dict[str, str]:
        """In clear: the server masks unless asked to reveal."""
        env = self._store.apps.env(self._store.apps.get(app).id, build=build)
        return {name: item.reveal() for name, item in env.items()}

    def change_env(self, app: str, change: api.EnvChange, actor: str) -> api.DeployInfo | None:
        """None where nothing needs to restart."""
        requests.check_env(change.set)
        found = self._store.apps.get(app)
        new = {name: Secret(item) for name, item in change.set.items()}
        old = self._store.apps.env(found.id, build=change.build)
        wanted = {name: item for name, item in {**old, **new}.items() if name not in change.unset}
        busy = self._store.deploys.unfinished(found.id)
        if wanted == old and not busy:
            return None
        reason = requests.describe_env_change(change)
        if not change.build and (found.release is not None or busy):
            return self._submit(found, "env", Request(env=new, unset=change.unset), actor, reason)
        with self._store.transaction():
            self._store.apps.set_env(found.id, new, build=change.build)
            self._store.apps.unset_env(found.id, change.unset, build=change.build)
            self._store.events.add("env.changed", actor, found.name, {"change": reason, "build": change.build})
        return None

    def scale(self, app: str, request: api.Scale, actor: str) -> api.DeployInfo | None:
        found = self._store.apps.get(app)
        limits = requests.limits_change(request)
        if found.release is None and not request.quantities and not self._store.deploys.unfinished(found.id):
            requests.limit_first(self._parts, found, request, actor)
            return None
        stored = requests.current_release(self._parts, found)
        requests.check_scale(stored, request)
        same_limits = releases.merge_limits(found.limits, limits) == dict(found.limits)
        alone = same_limits and not self._store.deploys.unfinished(found.id)
        if alone and request.quantities.items() <= self._store.apps.formation(found.id).items():
            return None
        reason = f"scale {request.describe()}"
        if alone and found.state == "stopped":
            self._store.apps.set_formation(found.id, request.quantities)
            self._store.events.add("app.scaled", actor, found.name, {"change": reason})
            return None
        wanted = Request(quantities=request.quantities, limits={} if same_limits else limits)
        return self._submit(found, "scale", wanted, actor, reason)

    def restart(self, app: str, actor: str, *, process: str = "") -> api.DeployInfo:
        found = self._store.apps.get(app)
        stored = requests.current_release(self._parts, found)
        requests.check_scale(stored, api.Scale(process=process))
        if found.state == "stopped":
            raise Conflict(f"{app} is stopped.", hint=f"mini start {app}")
        return self._submit(found, "restart", Request(process=process), actor, f"restart {process}".strip())

    def stop(self, app: str, actor: str) -> None:
        with self._store.transaction():
            found = self._store.apps.get(app)
            requests.current_release(self._parts, found)
            self._engine.queue.check_idle(found)
            self._store.apps.change(found.id, state="stopped", asleep=0)
            for item in self._store.instances.find(app=found.id, phase="live"):
                self._store.instances.change(item.id, phase="retired", routed=0)
            self._store.meta.next_generation()
            self._store.events.add("app.stopped", actor, found.name)
        self._engine.publish()
        self._engine.await_retired(found)

    def start_app(self, app: str, actor: str) -> api.DeployInfo:
        found = self._store.apps.get(app)
        requests.current_release(self._parts, found)
        return self._submit(found, "start", Request(), actor, "start")

    # --- watching

    def ps(self, app: str) -> tuple[api.InstanceInfo, ...]:
        return self._engine.ps(self._store.apps.get(app))

    def logs(
        self,
        app: str,
        *,
        lines: int = 100,
        follow: bool = False,
        process: str = "",
        source: str = "",
        since: float = 0.0,
        pattern: str = "",
    ) -> Iterator[LogLine]:
        book = self._parts.book
        log = book.of(self._store.apps.get(app).handle)
        wanted = Filter(process=process, source=source, since=since, pattern=pattern).compiled()
        if follow:
            return log.follow(max(lines, 0), wanted, lambda: self._closing.is_set() or self._parts.book is not book)
        return iter(log.tail(max(lines, 0), wanted, since))

    # --- one-offs

    def run(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        """A command in a new instance of the current release, its streams connected."""
        found = self._asked(app, "app.run", request, actor)
        return oneoffs.run(self._parts, self._engine.reconciler, found, request)

    def start_run(self, app: str, request: api.OneOffRequest, actor: str) -> api.Started:
        """The same, with its output in the app's log."""
        return oneoffs.start(self._parts, self._asked(app, "app.run", request, actor), request)

    def stop_run(self, app: str, name: str, actor: str) -> None:
        found = self._store.apps.get(app)
        oneoffs.stop(self._parts, found, name)
        self._store.events.add("run.stopped", actor, found.name, {"name": name})
        self._engine.await_retired(found)

    def exec(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        """A command in the running instance `request.instance`, or in the first one where it is ""."""
        return oneoffs.execute(self._parts, self._asked(app, "app.exec", request, actor), request)

    def _asked(self, app: str, kind: str, request: api.OneOffRequest, actor: str) -> App:
        found = self._store.apps.get(app)
        self._store.events.add(kind, actor, found.name, {"command": " ".join(request.command[:1])})
        return found

    # --- domains, volumes, maintenance

    def domains(self, app: str, base_url: str) -> tuple[api.DomainInfo, ...]:
        found = self._store.apps.get(app)
        host, _ = hosts.split_port(self._parts.url(found, base_url).partition("://")[2])
        first = requests.domain_info(self._parts, host, base_url, default=True)
        added = self._store.apps.domains(found.id)
        return (first, *(requests.domain_info(self._parts, item, base_url, default=False) for item in added))

    def add_domain(self, app: str, domain: str, actor: str, base_url: str) -> api.DomainInfo:
        found = self._store.apps.get(app)
        name = requests.check_domain(self._parts, domain)
        with self._store.transaction():
            self._store.apps.add_domain(found.id, name)
            self._store.meta.next_generation()
            self._store.events.add("domain.added", actor, found.name, {"domain": name})
        self._engine.publish()
        return requests.domain_info(self._parts, name, base_url, default=False)

    def remove_domain(self, app: str, domain: str, actor: str) -> None:
        found = self._store.apps.get(app)
        name = hosts.canonical(domain)
        with self._store.transaction():
            self._store.apps.remove_domain(found.id, name)
            self._store.meta.next_generation()
            self._store.events.add("domain.removed", actor, found.name, {"domain": name})
        self._engine.publish()

    def volumes(self, app: str) -> tuple[api.VolumeChange, ...]:
        found = volumes.of(self._parts, self._store.apps.get(app))
        return tuple(api.VolumeChange(target=item.target, name=item.name) for item in found)

    def add_volume(self, app: str, request: api.VolumeChange, actor: str) -> api.DeployInfo | None:
        found = self._store.apps.get(app)
        added = volumes.new(self._parts, found, request)
        return self._change_volumes(found, Request(volumes=(added,)), actor, f"volumes add {added.target}")

    def remove_volume(self, app: str, target: str, actor: str) -> api.DeployInfo | None:
        """Once no instance has it mounted, its files go, too."""
        found = self._store.apps.get(app)
        gone = volumes.removable(self._parts, found, target)
        request = Request(unmounted=(gone.name,))
        info = self._change_volumes(found, request, actor, f"volumes remove {gone.target}")
        data = {"app": found.id, "name": gone.name, "deploy": info.id if info else 0}
        self._store.jobs.add(volumes.REMOVAL, found.name, data=data)
        self._engine.worker.wake()
        return info

    def _change_volumes(self, app: App, request: Request, actor: str, reason: str) -> api.DeployInfo | None:
        if app.release is not None:
            return self._submit(app, "volumes", request, actor, reason)
        self._store.apps.replace_volumes(app.id, releases.changed_volumes(self._parts, app, request))
        self._store.events.add("volumes.changed", actor, app.name, {"change": reason})
        return None

    def export_volume(self, app: str, target: str, actor: str) -> Iterator[bytes]:
        """The files of the volume with this target or name, as a tar."""
        found = self._store.apps.get(app)
        volume = volumes.find(self._parts, found, target)
        self._store.events.add("volume.exported", actor, found.name, {"target": volume.target})
        return self._parts.runtime.export_volume(found.handle, volume.name)

    # --- the whole platform

    def backup_size(self, *, images: bool) -> int:
        """Bytes that a backup would have, about."""
        return backup.size(self._parts, images=images)

    def backup(self, actor: str, *, images: bool) -> Iterator[bytes]:
        """The bytes of a backup file (see `backups`). images: of the releases that can be run, too."""
        self._store.events.add("platform.backup", actor, data={"images": images})
        return backup.write(self._parts, images=images)

    def restore(self, file: BinaryIO, actor: str, *, replacing: bool) -> Iterator[api.RestoreEvent]:
        """Makes this platform the one in the backup. file: whole, and at its beginning; may be closed at the end.

        replacing: even if that removes the apps that are here. Everything goes on until the new platform takes over,
        and stays where it cannot be made; closing the iterator before that gives up.
        """
        head = backups.read_head(file)
        with self._changing:
            if self.restoring:
                raise Conflict("The platform is being restored already.", code="restoring")
            restore.check(self._parts, head, replacing=replacing)
            self.restoring = True
        return restore.narrate(lambda say, stop: self._restore(file, actor, say, stop))

    def _restore(self, file: BinaryIO, actor: str, say: Callable[[str], None], stop: Callable[[], None]) -> None:
        def go_on() -> None:
            stop()
            if self._closing.is_set():
                raise Cancelled("The server stops.", code="stopping")

        try:
            restore.stage(self._parts, file, actor, say, go_on)
            self._change_over(go_on)
        except BaseException:
            self.restoring = not self._engine.running and not self._closing.is_set()
            raise
        self.restoring = False

    def _change_over(self, go_on: Callable[[], None]) -> None:
        """The engine ends, the files change, another begins. Apps and router go on."""
        with self._changing:
            go_on()
            self._engine.close()
            try:
                transfer.commit(self.paths)
            finally:  # where even that failed, what was is opened again
                parts, notice = open_parts(self.settings, self.paths, self._parts.hooks)
                self._take(Engine(parts, notice))
                self._engine.start()

    # --- maintenance

    def maintenance(self, app: str, on: bool, actor: str) -> None:
        with self._store.transaction():
            found = self._store.apps.get(app)
            self._store.apps.change(found.id, maintenance=int(on))
            self._store.meta.next_generation()
            self._store.events.add(f"maintenance.{'on' if on else 'off'}", actor, found.name)
        self._engine.publish()


def open_controller(settings: Settings, paths: Paths, *, hooks: Hooks | None = None) -> Controller:
    """The controller of the data folder, not started yet. Takes the folder's lock, opens and migrates the store.

    settings: with `port` and `bind` as they are to be used. hooks: instead of those of the installed plugins.
    Raises Conflict where another controller has the lock.
    """
    lock = own(paths.data)
    try:
        parts, notice = open_parts(settings, paths, hooks)
        return Controller(Engine(parts, notice), lock)
    except BaseException:
        lock.release()
        raise
