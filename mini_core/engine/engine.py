"""The running engine: its parts put together, started and stopped in the right order."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mini_core import __version__, api, disk, hosts
from mini_core.engine import describe, restore
from mini_core.engine.collect import Collectors, RouterLog
from mini_core.engine.cron import Cron
from mini_core.engine.housekeeping import Housekeeper
from mini_core.engine.journal import Journal
from mini_core.engine.parts import Parts
from mini_core.engine.plugins import Notifier, PluginPlatform, Worker
from mini_core.engine.queue import DeployQueue
from mini_core.engine.routing import Publisher
from mini_core.engine.sleep import Sleeper
from mini_core.errors import MiniError, Unavailable
from mini_core.reconcile import Reconciler
from mini_core.sinks import Sink
from mini_core.store.records import App, Request
from mini_core.types import Check

log = logging.getLogger(__name__)

RETIRE_PATIENCE = 60.0
"""Seconds that a stop waits for its instances to be gone."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Engine:
    def __init__(self, parts: Parts, notice: str) -> None:
        self.parts = parts
        self._store = parts.store
        self._remark = notice
        self.publisher = Publisher(parts)
        self.journal = Journal(parts.store)
        self.collectors = Collectors(parts)
        self.queue = DeployQueue(parts, self.publisher, self.journal, self.nudge)
        self.sleeper = Sleeper(parts, self.publisher, self.nudge)
        self.cron = Cron(parts, self.nudge)
        self.housekeeper = Housekeeper(parts, self.publisher, self.queue)
        self.worker = Worker(parts, self.housekeeper.kinds())
        self.reconciler = Reconciler(
            parts,
            self.publisher,
            self.collectors,
            also=(self._populate, self.queue.expire, self.sleeper.check, self.cron.check, self.housekeeper.check),
            waking=lambda: self.sleeper.waking,
        )
        self._platforms: list[PluginPlatform] = []
        self._notifiers: list[Notifier] = []
        self._router_log: RouterLog | None = None
        self.running = False
        self._restored = bool(parts.store.meta.get(restore.PENDING))

    def nudge(self) -> None:
        self.reconciler.nudge()

    def _populate(self) -> None:
        """Once after a restore; again at the next look where an engine does not answer yet."""
        if self._restored:
            restore.populate(self.parts)
            self._restored = False

    # --- life

    def start(self) -> None:
        """Raises Unavailable where the router cannot start, such as for a port in use."""
        parts = self.parts
        parts.router.start(parts.router_settings)
        self.running = True
        self._catch_up_with_router()
        parts.book.sinks = tuple(Sink(item) for item in parts.hooks.log_sinks(parts.context).values())
        self._forget_last_boot()
        if self.queue.recover():
            self.housekeeper.clean_soon()
        self.housekeeper.clean_folders()
        restore.discard(parts)
        with suppress(MiniError):
            self.publisher.push(again=True)
        self.reconciler.start()
        self.worker.start()
        self._router_log = RouterLog(parts)
        self._start_plugins()
        self._store.events.add("platform.started", "platform")

    def _catch_up_with_router(self) -> None:
        """A router that has seen more than this store (a restored one) would refuse its tables."""
        generation = int(self.router_status().get("generation") or 0)
        if generation >= self._store.meta.generation:
            self._store.meta.set("generation", str(generation + 1))

    def _forget_last_boot(self) -> None:
        """Instances that ended with the machine, or by `mini down`, have not crashed: they are started at once."""
        boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
        if boot == self._store.meta.get("boot") and not self._store.meta.get("down"):
            return
        with self._store.transaction():
            self._store.meta.set("boot", boot)
            self._store.meta.set("down", "")
            for item in self._store.instances.find(phase="live"):
                self._store.instances.change(item.id, healthy=0, next_try=0.0)

    def _start_plugins(self) -> None:
        hooks = self.parts.hooks
        for plugin in hooks.implementing("mini_start"):
            platform = PluginPlatform(self.parts, plugin, self._release_for_plugin)
            self._platforms.append(platform)
            hooks.start(plugin, platform)
        self._notifiers = [Notifier(self.parts, plugin) for plugin in hooks.implementing("mini_event")]

    def _release_for_plugin(self, name: str, reason: str) -> None:
        app = self._store.apps.get(name)
        if app.release is not None:
            self.queue.submit(app, "addon", Request(), "platform", reason)

    def close(self) -> None:
        """Apps and router go on; the next controller finds all of it again."""
        self.queue.close()
        if self.running:
            for plugin in self.parts.hooks.implementing("mini_stop"):
                self.parts.hooks.stop(plugin)
        for platform in self._platforms:
            platform.close()
        for notifier in self._notifiers:
            notifier.close()
        self.reconciler.close()
        self.worker.close()
        self.collectors.close()
        if self._router_log is not None:
            self._router_log.close()
        self.journal.close()
        self.parts.book.close()
        if self.running:
            self.parts.router.close()
        self.running = False
        self._store.close()

    def shutdown(self) -> None:
        """Ends apps and router. What should run is kept: the next start brings it back."""
        self.queue.close()
        self.reconciler.close()
        self._store.meta.set("down", "yes")
        self._store.events.add("platform.stopped", "platform")
        self.housekeeper.clear()
        with suppress(MiniError):
            self.parts.runtime.shutdown()
        self.parts.router.stop()

    # --- for the controller

    def publish(self) -> None:
        """What the store says, to the router; one that does not answer gets it from the reconciler."""
        try:
            self.publisher.push()
        except Unavailable as error:
            log.warning("the router does not answer: %s", error)
        self.nudge()

    def await_retired(self, app: App) -> None:
        """Returns when no instance of the app is on its way out any more, or after a minute."""
        deadline = time.monotonic() + RETIRE_PATIENCE
        while self._store.instances.find(app=app.id, phase="retired") and time.monotonic() < deadline:
            self.nudge()
            time.sleep(0.05)

    def router_status(self) -> Mapping[str, Any]:
        try:
            return self.parts.router.status()
        except MiniError as error:
            return {"problem": error.message}

    @property
    def notice(self) -> str:
        return " ".join(filter(None, (self._remark, self.parts.runtime.notice)))

    def ps(self, app: App) -> tuple[api.InstanceInfo, ...]:
        """All there is of the app, and what is not there because it sleeps."""
        infos = []
        for item in self._store.instances.find(app=app.id):
            try:
                status = self.parts.runtime.status(item.id)
            except MiniError:
                status = self.reconciler.statuses.get(item.id)
            stored = self._store.releases.get(app.id, item.release)
            infos.append(describe.instance_info(self.parts, app, item, status, stored))
        return tuple(infos)

    def status(self, apps: tuple[api.AppInfo, ...], base_url: str, started_at: float) -> api.StatusInfo:
        """base_url: what the client used to reach us; "" gives the platform's own address."""
        parts, problems = self.parts, self.problems(apps)
        return api.StatusInfo(
            version=__version__,
            platform=parts.platform,
            state="degraded" if problems else "ok",
            runtime=parts.runtime.name,
            router=parts.router.name,
            url=base_url or self._own_url(),
            pid=os.getpid(),
            started_at=started_at,
            domain=parts.settings.domain,
            notice=self.notice,
            router_status=self.router_status(),
            apps=apps,
            deploys=tuple(describe.deploy_info(parts, item) for item in self._store.deploys.unfinished()),
            problems=problems,
            disk_free=shutil.disk_usage(parts.paths.data).free,
            disk_used=self.disk_used(),
        )

    def _own_url(self) -> str:
        parts, domain = self.parts, self.parts.settings.domain
        host = domain if domain == "localhost" else f"{hosts.PLATFORM}.{domain}"
        suffix = "" if parts.port == 80 else f":{parts.port}"
        return f"{'https' if parts.router.https else 'http'}://{host}{suffix}"

    def problems(self, apps: Sequence[api.AppInfo]) -> tuple[str, ...]:
        """One line each, with the command that shows or mends it."""
        found = []
        try:
            disk.check(self.parts.paths.data, self.parts.settings.disk_reserve)
        except Unavailable as error:
            found.append(f"{error.message} (mini doctor)")
        if self.reconciler.engine_problem:
            found.append(f"{self.parts.runtime.name}: {self.reconciler.engine_problem} (mini doctor)")
        if self.reconciler.router_problem:
            found.append(f"router: {self.reconciler.router_problem}")
        found += [f"{app.name}: {app.note} (mini logs {app.name})" for app in apps if app.state == "crashed"]
        found += [f"{app.name}: {app.note}" for app in apps if app.note == describe.NO_IMAGE]
        for app in apps:
            if app.state == "asleep" and (problem := self.sleeper.problem(app.name)):
                found.append(f"{app.name}: does not wake: {problem} (mini logs {app.name})")
        for job in self._store.jobs.all():
            if job.attempts:
                what = f"{job.kind} {job.app}{' by ' + job.plugin if job.plugin else ''}"
                found.append(f"{what}: failed {job.attempts} times, goes on: {job.error}")
        found += [f"plugin {problem} (mini plugins list)" for problem in self.parts.hooks.problems()]
        found += [f"log sink {sink.name}: {sink.problem}" for sink in self.parts.book.sinks if sink.problem]
        return tuple(found)

    def checks(self) -> tuple[Check, ...]:
        """The runtime's state, then what plugins check."""
        runtime = self.parts.runtime
        try:
            runtime.check()
            found = [Check(name=f"runtime {runtime.name}", state="ok", detail=runtime.notice)]
        except MiniError as error:
            found = [Check(name=f"runtime {runtime.name}", state="error", detail=error.message, hint=error.hint)]
        for plugin, check in self.parts.hooks.checks():
            try:
                found += check()
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"
                found.append(Check(name=f"plugin {plugin}", state="error", detail=detail, hint="mini plugins list"))
        return tuple(found)

    def disk_used(self) -> int:
        """Bytes below the data folder that the core itself keeps: database, logs, uploads."""
        data = self.parts.paths.data
        files = [*data.glob("mini.db*"), *(data / "logs").rglob("*"), *(data / "uploads").glob("*")]
        return sum(path.stat().st_size for path in files if path.is_file())
