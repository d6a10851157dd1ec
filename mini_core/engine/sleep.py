"""Apps that nobody asks for sleep; the next request wakes them and waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from mini_core.engine import rollout
from mini_core.engine.job import QuietJob
from mini_core.engine.parts import Parts
from mini_core.engine.routing import Publisher
from mini_core.engine.specs import idle_of
from mini_core.errors import MiniError, Unavailable
from mini_core.store.records import App

CHECK_EVERY = 15.0
"""Seconds; asking the router for its activity is not free."""

TRY_AGAIN = 5.0
"""Seconds after a start that failed before the next request may cause another."""

WAKE_TIMEOUT = 120.0
"""Seconds for an app to be healthy after it was woken."""


class Sleeper:
    """`nudge` wakes the reconciler."""

    def __init__(self, parts: Parts, publisher: Publisher, nudge: Callable[[], None]) -> None:
        self._parts = parts
        self._store = parts.store
        self._publisher = publisher
        self._nudge = nudge
        self._due = 0.0
        self._lock = threading.Lock()
        self._waking: dict[int, threading.Lock] = {}
        self._began = time.monotonic()
        self._woken: dict[int, float] = {}
        self._failed: dict[str, tuple[float, MiniError]] = {}

    def check(self) -> None:
        """Puts to sleep what had no request for long enough."""
        if time.monotonic() < self._due:
            return
        found = [(app, idle) for app in self._store.apps.all() if (idle := self._idle(app)) > 0]
        limits = (CHECK_EVERY, self._parts.settings.idle, *(idle for _, idle in found))
        self._due = time.monotonic() + min(limit for limit in limits if limit > 0)
        if not found:
            return
        try:
            activity = self._parts.router.activity()
        except MiniError:
            return
        for app, idle in found:
            awake = time.monotonic() - self._woken.get(app.id, self._began)
            deployed = abs(time.time() - (app.deployed_at or 0.0))  # later than now where the clock was set back
            if min(activity.get(app.name, math.inf), awake, deployed) > idle and self._may_sleep(app):
                self.put_to_sleep(app)

    def _idle(self, app: App) -> float:
        """0 where it cannot sleep now."""
        if app.release is None or app.state != "running" or app.asleep:
            return 0.0
        return idle_of(self._parts, self._store.releases.extras(app.id, app.release))

    def _may_sleep(self, app: App) -> bool:
        busy = app.state != "running" or app.asleep or app.maintenance or self._store.deploys.unfinished(app.id)
        return not busy and any(item.kind == "web" for item in self._store.instances.standing(app.id))

    def put_to_sleep(self, app: App) -> None:
        """Its requests wait from now on; what runs of it is drained and stopped by the reconciler."""
        with self._store.transaction():
            self._store.apps.change(app.id, asleep=1)
            for item in self._store.instances.standing(app.id):
                self._store.instances.change(item.id, phase="retired", routed=0)
            self._store.meta.next_generation()
            self._store.events.add("app.asleep", "platform", app.name)
        self._publisher.push()
        self._nudge()

    def wake(self, name: str) -> None:
        """Returns when the app is routed; the first of many callers starts it. Raises NotFound, MiniError."""
        app = self._store.apps.get(name)
        with self._lock:
            lock = self._waking.setdefault(app.id, threading.Lock())
        if not lock.acquire(timeout=WAKE_TIMEOUT):
            raise Unavailable(f"{name} is still waking up.", code="waking")
        try:
            self._await_deploy(app)
            app = self._store.apps.get(name)
            if app.asleep and app.release is not None and app.state == "running":
                self._try(app)
        finally:
            lock.release()

    def _try(self, app: App) -> None:
        """What has just failed is not tried again by every request that comes."""
        at, before = self._failed.get(app.name, (-math.inf, None))
        if before is not None and time.monotonic() < at + TRY_AGAIN:
            raise before
        try:
            self._start(app)
        except MiniError as error:
            self._failed[app.name] = time.monotonic(), error
            self._store.events.add("app.wake_failed", "platform", app.name, {"message": error.message})
            raise
        self._failed.pop(app.name, None)

    def problem(self, name: str) -> str:
        """Why a sleeping app did not wake when it was last asked for."""
        return self._failed[name][1].message if name in self._failed else ""

    def _await_deploy(self, app: App) -> None:
        deadline = time.monotonic() + WAKE_TIMEOUT
        while self._store.deploys.running(app.id) and self._store.apps.by_id(app.id).asleep:
            if time.monotonic() > deadline:
                raise Unavailable(f"{app.name} is being deployed.", code="waking")
            time.sleep(0.1)

    def _start(self, app: App) -> None:
        """The request waits for what answers it: workers are started too, and looked after as ever."""
        assert app.release is not None
        stored = self._store.releases.get(app.id, app.release)
        job = QuietJob(WAKE_TIMEOUT)
        team = rollout.assemble(self._parts, app, stored, self._store.apps.formation(app.id), deploy=-app.id)
        try:
            specs = rollout.specs_of(self._parts, app, stored, team)
            rollout.start(self._parts, specs, job)
            asked = {item.id: specs[item.id] for item in team.new if item.kind == "web"}
            rollout.wait_healthy(self._parts, app, asked, job)
        except BaseException:
            for item in team.new:
                self._store.instances.change(item.id, phase="retired")
            raise
        with self._store.transaction():
            for item in team.new:
                self._store.instances.change(item.id, phase="live", routed=int(item.kind == "web"), healthy=1)
            self._store.apps.change(app.id, asleep=0)
            self._store.meta.next_generation()
            self._store.events.add("app.awake", "platform", app.name)
        self._woken[app.id] = time.monotonic()
        self._publisher.push()
        self._nudge()

    @property
    def waking(self) -> frozenset[int]:
        """What stands for a deploy in instances that are being woken."""
        return frozenset(-app for app, lock in list(self._waking.items()) if lock.locked())
