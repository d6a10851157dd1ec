"""What should run (the store) and what does (the runtime), made the same: at start, when woken, and every few seconds.

Nothing here waits: whatever takes time is done by a pool, one thing at a time for each instance. Intervals are
monotonic, so that a jump of the clock neither stops nor hastens anything.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from mini_core.engine.collect import Collectors
from mini_core.engine.describe import crash_note
from mini_core.engine.health import SETTLED, own_check, probe
from mini_core.engine.job import QuietJob
from mini_core.engine.parts import Parts
from mini_core.engine.routing import Publisher, target_of
from mini_core.engine.specs import ONE_SHOT, spec_of
from mini_core.engine.supervise import CALM, FAILURES, crashed, is_due, judge
from mini_core.errors import MiniError, NotFound
from mini_core.store.records import App, Instance
from mini_core.types import InstanceStatus, to_data

log = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two looks at everything."""

RECOVERING = 0.3
"""Seconds between looks while an instance is on its way to health."""

ROUTER_INTERVAL = 3.0
WORKERS = 16

RETRY_PROBE = 2.0
"""Seconds after a probe that failed."""

ONE_SHOT_PATIENCE = 120.0
"""Seconds for a command to be made before its absence means that it has ended."""

PATHLESS_INTERVAL = 30.0
"""Seconds between probes of an app without a health path: "/" may be expensive."""


class Reconciler:
    """also: further duties, called at every look; what they raise is logged. waking: what stands for a deploy in
    instances that are being woken."""

    def __init__(
        self,
        parts: Parts,
        publisher: Publisher,
        collectors: Collectors,
        also: tuple[Callable[[], None], ...] = (),
        waking: Callable[[], Collection[int]] = frozenset,
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._publisher = publisher
        self._collectors = collectors
        self._also = also
        self._waking = waking
        self._wake = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._next_probe: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._ages: dict[str, tuple[float, float]] = {}
        self._router_due = 0.0
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="reconcile")
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self.engine_problem = ""
        self.router_problem = ""
        self.statuses: Mapping[str, InstanceStatus] = {}
        self.sessions: set[str] = set()
        """Instances whose streams a client holds: they are left alone."""

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """Look now."""
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        pause = 0.0
        while not self._closed:
            self._wake.wait(pause)
            self._wake.clear()
            if self._closed:
                return
            pause = self._look_safely()

    def _look_safely(self) -> float:
        try:
            return self.look()
        except Exception:
            log.exception("reconciling failed; trying again")
            return INTERVAL

    # --- one look

    def look(self) -> float:
        """Everything once; seconds until the next look."""
        for duty in (self._check_router, *self._also):
            try:
                duty()
            except Exception:
                log.exception("%s failed", getattr(duty, "__qualname__", duty))
        with self._lock:
            busy = frozenset(self._busy)  # before both: what is seen of these may be over when it is acted upon
        try:
            found = self._parts.runtime.list()  # before the store: what is made is written down first
            self.engine_problem = ""
        except MiniError as error:
            self.engine_problem = error.message
            return INTERVAL
        statuses = {status.id: status for status in found}
        self.statuses = statuses
        with self._store.transaction():
            instances = self._store.instances.find()
            running = self._under_way()
            apps = {app.id: app for app in self._store.apps.all()}
        known = {item.id for item in instances}
        for name in statuses.keys() - known:
            self._do(name, partial(self._remove_orphan, name))
        self._collectors.sync(instances, statuses)
        for item in instances:
            if item.id not in busy and (app := apps.get(item.app)):
                self._act(app, item, statuses.get(item.id), running)
        self._forget(known)
        return RECOVERING if any(item.phase == "live" and not item.healthy for item in instances) else INTERVAL

    def _under_way(self) -> set[int]:
        return {deploy.id for deploy in self._store.deploys.unfinished()} | set(self._waking())

    def _forget(self, known: set[str]) -> None:
        for table in (self._next_probe, self._failures, self._ages, self._parts.lent):
            for name in table.keys() - known:
                table.pop(name, None)

    def _age(self, item: Instance) -> float:
        """Seconds since the instance was started. The clock is asked once, and may be set afterwards."""
        began, now = item.started_at or item.created_at, time.monotonic()
        known, since = self._ages.get(item.id, (0.0, 0.0))
        if known != began:
            since = now - max(time.time() - began, 0.0)
            self._ages[item.id] = began, since
        return now - since

    def _act(self, app: App, item: Instance, status: InstanceStatus | None, running: set[int]) -> None:
        if item.kind in ONE_SHOT:
            if item.kind != "release" or item.deploy not in running:
                self._act_on_one_shot(item, status)
            return
        if status is not None and status.state == "paused":
            self._do(item.id, lambda: self._resume(app, item))
            return
        verdict = judge(item, status, running)
        if verdict == "retire":
            self._do(item.id, lambda: self._retire(item))
        elif verdict in ("missing", "crashed") and not app.hold:
            self._act_on_ended(app, item, status)
        elif verdict == "restarted" and status is not None:
            self._came_back(app, item, status)
        elif verdict == "adopt" and status is not None:
            self._act_on_running(app, item, status)

    def _act_on_one_shot(self, item: Instance, status: InstanceStatus | None) -> None:
        held = item.id in self.sessions
        if item.phase == "retired" or (item.phase == "live" and item.attached and not held):
            self._do(item.id, lambda: self._retire(item))
            return
        over = status.state in ("exited", "gone") if status else self._age(item) > ONE_SHOT_PATIENCE
        if not held and (over or item.kind == "release"):
            self._do(item.id, lambda: self._end_one_shot(item, status))

    def _end_one_shot(self, item: Instance, status: InstanceStatus | None) -> None:
        """How a command that nobody waits for has ended is an event, and its last line in the app's log."""
        app, code = self._store.apps.by_id(item.app), status.exit_code if status else None
        if item.kind != "release":
            kind, named = ("cron", {"entry": item.process}) if item.kind == "cron" else ("run", {"name": item.name})
            data = {**named, "instance": item.id, "exit_code": code}
            self._store.events.add(f"{kind}.{'done' if code == 0 else 'failed'}", "platform", app.name, data)
        self._retire(item)
        if item.kind != "release" and status is not None:
            oom = " (out of memory)" if status.oom else ""
            self._collectors.remark(app, item, f"Exited with code {code}{oom}")

    def _act_on_ended(self, app: App, item: Instance, status: InstanceStatus | None) -> None:
        if item.next_try is None:
            self._do(item.id, lambda: self._note_crash(app, item, status))
        elif is_due(item, time.time()):
            self._do(item.id, lambda: self._revive(app, item))

    def _came_back(self, app: App, item: Instance, status: InstanceStatus) -> None:
        """The engine restarts it by itself: counted, and watched until it is healthy again."""
        changes = to_data(crashed(item, status, time.time())) if item.next_try is None else {}
        changes |= {"next_try": None, "engine_restarts": status.restarts, "healthy": 0, "started_at": time.time()}
        with self._store.transaction():
            self._store.instances.change(item.id, **changes)
            if item.next_try is None:
                data = {"instance": item.id, "name": item.name, "crashes": item.crashes + 1, "restarted_by": "engine"}
                self._store.events.add("instance.crashed", "platform", app.name, data | {"oom": status.oom})
        if item.next_try is None:
            self._remark_crash(app, item)
        self._next_probe.pop(item.id, None)
        self._do(item.id, lambda: self._unroute(app, item))

    def _act_on_running(self, app: App, item: Instance, status: InstanceStatus) -> None:
        if item.healthy and not status.supervised:
            self._do(f"supervise {item.id}", lambda: self._parts.runtime.supervise(item.id))
        now, age = time.monotonic(), self._age(item)
        if not item.healthy and is_due(item, time.time()):
            return self._do(item.id, lambda: self._revive(app, item))  # it runs, but answers no more
        if item.healthy and item.crashes and age > CALM:
            self._store.instances.change(item.id, crashes=0, crashing_since=None, oom=0)
        if item.kind != "web":
            if not item.healthy and age >= SETTLED:
                self._store.instances.change(item.id, healthy=1, next_try=None)
            return None
        first = now + random.uniform(0.2, 1.0) * PATHLESS_INTERVAL if item.healthy else now
        if now >= self._next_probe.setdefault(item.id, first):
            self._next_probe[item.id] = now + 3600.0  # until the answer is there
            self._do(f"probe {item.id}", lambda: self._probe(app, item, status))
        return None

    def _do(self, name: str, work: Callable[[], None]) -> None:
        """In the pool, unless that is being done already."""
        with self._lock:
            if name in self._busy or self._closed:
                return
            self._busy.add(name)

        def run() -> None:
            try:
                work()
            except NotFound:
                pass  # it was removed meanwhile
            except Exception as error:
                log.warning("%s: %s", name, error, exc_info=not isinstance(error, MiniError))
            finally:
                with self._lock:
                    self._busy.discard(name)

        self._pool.submit(run)

    # --- what is done

    def _remove_orphan(self, name: str) -> None:
        if self._parts.runtime.status(name) is None or self._store.instances.find(id=name):
            return  # it was on its way out, or on its way in
        self._parts.runtime.remove(name)
        self._store.events.add("instance.orphan", "platform", data={"instance": name})

    def _retire(self, item: Instance) -> None:
        """Drain, stop, cut, keep the last words, remove. The address is free again after that."""
        parts = self._parts
        if item.phase == "new" and item.deploy in self._under_way():
            return
        if self._store.instances.get(item.id).phase != item.phase:
            return  # it went live since we looked
        target = target_of(item) if item.kind == "web" else None
        if target is not None:
            if not self._publisher.up_to_date():
                return
            with suppress(MiniError):
                parts.router.drain(target, parts.settings.drain)
        parts.runtime.stop(item.id, grace=parts.settings.grace)
        if target is not None:
            with suppress(MiniError):
                parts.router.cut(target)
        self._collectors.finish(item)
        parts.runtime.remove(item.id)
        self._store.instances.delete(item.id)

    def _note_crash(self, app: App, item: Instance, status: InstanceStatus | None) -> None:
        crash = crashed(item, status, time.time())
        with self._store.transaction():
            self._store.instances.change(item.id, healthy=0, **to_data(crash))
            data = {"instance": item.id, "name": item.name, **to_data(crash)}
            ended = status is not None and status.state == "exited"
            self._store.events.add(f"instance.{'crashed' if ended else 'missing'}", "platform", app.name, data)
        if ended:
            self._remark_crash(app, item)
        self._unroute(app, item)
        self._wake.set()

    def _remark_crash(self, app: App, item: Instance) -> None:
        """In the app's log, where one looks for the cause."""
        stored = self._store.releases.get(app.id, item.release)
        note = crash_note(self._parts, self._store.instances.get(item.id), stored)
        self._collectors.remark(app, item, note[0].upper() + note[1:])

    def _unroute(self, app: App, item: Instance) -> None:
        """Out of the routes, unless it is the last one there: that is only restarted."""
        with self._store.transaction():
            others = [o for o in self._store.instances.find(app=app.id, routed=1) if o.id != item.id and o.healthy]
            if not others or not item.routed:
                return
            self._store.instances.change(item.id, routed=0)
            self._store.meta.next_generation()
        self._publisher.push()

    def _revive(self, app: App, item: Instance) -> None:
        """Started anew under its own name and address."""
        stored = self._store.releases.get(app.id, item.release)
        if self._store.instances.get(item.id).phase != "live":
            return None
        self._collectors.finish(item)
        self._parts.runtime.remove(item.id)
        try:
            self._parts.runtime.start(spec_of(self._parts, app, stored, item), QuietJob(60.0))
        except (MiniError, OSError) as error:  # such as a full disk
            log.warning("%s of %s could not be started: %s", item.name, app.name, error)
            return self._store.instances.change(item.id, **to_data(crashed(item, None, time.time())))
        now = time.time()
        self._store.instances.change(item.id, started_at=now, next_try=None, engine_restarts=0, healthy=0)
        self._next_probe.pop(item.id, None)
        self._failures.pop(item.id, None)
        self._store.events.add("instance.restarted", "platform", app.name, {"instance": item.id, "name": item.name})
        return self._wake.set()

    def _resume(self, app: App, item: Instance) -> None:
        """Somebody has paused it: nothing of it is lost."""
        stored = self._store.releases.get(app.id, item.release)
        self._parts.runtime.start(spec_of(self._parts, app, stored, item), QuietJob(60.0))
        self._store.events.add("instance.resumed", "platform", app.name, {"instance": item.id, "name": item.name})
        self._wake.set()

    # --- health

    def _probe(self, app: App, item: Instance, status: InstanceStatus) -> None:
        address = item.address
        stored = self._store.releases.get(app.id, item.release)
        health = stored.release.plan.health
        if address is None:
            return
        answer = probe(address, health.path, self._parts.hosts(app)[0])
        if answer.ok and status.health == "unhealthy":
            answer = own_check(status)
        interval = health.interval if health.path else max(health.interval, PATHLESS_INTERVAL)
        if answer.ok:
            self._failures.pop(item.id, None)
            self._next_probe[item.id] = time.monotonic() + interval * random.uniform(0.8, 1.2)
            if not item.healthy or not item.routed:
                self._healthy_again(item)
            return
        self._next_probe[item.id] = time.monotonic() + (RETRY_PROBE if item.healthy else RECOVERING)
        if item.healthy:
            self._failures[item.id] = self._failures.get(item.id, 0) + 1
            if self._failures[item.id] >= FAILURES:
                self._unhealthy(app, item, answer.detail)
        elif self._age(item) > health.timeout and item.next_try is None:
            self._unhealthy(app, item, answer.detail)

    def _healthy_again(self, item: Instance) -> None:
        with self._store.transaction():
            if self._store.instances.get(item.id).phase != "live":
                return
            self._store.instances.change(item.id, healthy=1, routed=1, next_try=None)
            self._store.meta.next_generation()
        self._publisher.push()
        self._wake.set()

    def _unhealthy(self, app: App, item: Instance, detail: str) -> None:
        crash = crashed(item, None, time.time())
        with self._store.transaction():
            self._store.instances.change(item.id, healthy=0, **to_data(crash))
            data = {"instance": item.id, "name": item.name, "detail": detail}
            self._store.events.add("instance.unhealthy", "platform", app.name, data)
        self._remark_crash(app, item)
        self._failures.pop(item.id, None)
        self._unroute(app, item)
        self._wake.set()

    # --- the router

    def _check_router(self) -> None:
        """Adopted, or started again if it is gone, and given the table that it should serve."""
        if time.monotonic() < self._router_due and self._publisher.up_to_date() and not self.router_problem:
            return
        self._router_due = time.monotonic() + ROUTER_INTERVAL
        self._do("router", self._mend_router)

    def _mend_router(self) -> None:
        parts = self._parts
        try:
            generation = parts.router.status().get("generation")
            wanted = self._store.meta.generation
            if not self._publisher.up_to_date() or (generation is not None and int(generation) < wanted):
                self._publisher.push(again=True)
            self.router_problem = ""
        except MiniError as error:
            self.router_problem = error.message
            try:
                parts.router.start(parts.router_settings)
                self._publisher.push(again=True)
            except MiniError as again:
                self.router_problem = again.message
                return
            self.router_problem = ""
            self._store.events.add("router.restarted", "platform", data={"reason": error.message})
