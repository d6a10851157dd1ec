"""Commands at set times, from the release that runs. A slot is written down before its run starts, so that it never
runs twice; a run that is still going lets the next slot pass; of slots that were missed, at most the last is made up
for."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from mini_core.engine.job import QuietJob
from mini_core.engine.parts import Parts
from mini_core.engine.specs import new_instance, spec_of
from mini_core.errors import MiniError
from mini_core.manifest import CronJob, shell
from mini_core.store.records import App

log = logging.getLogger(__name__)

CHECK_EVERY = 5.0
"""Seconds; slots are whole minutes."""

LATEST = timedelta(hours=24)
"""How late a missed run may still be made up for."""

START_TIMEOUT = 60.0

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def due(schedule: str, since: float, now: float) -> float | None:
    """The newest slot after `since` that has come, in the machine's own time zone. None for none, or for a schedule
    that is no schedule."""
    start = max(datetime.fromtimestamp(since), datetime.fromtimestamp(now) - LATEST)
    found: float | None = None
    try:
        for slot in CronSim(WORDS.get(schedule, schedule), start):
            if slot.timestamp() > now:
                break
            found = slot.timestamp()
    except CronSimError:
        log.warning("%s is no cron schedule", schedule)
    return found


class Cron:
    """`nudge` wakes the reconciler, which collects the output and removes what has ended."""

    def __init__(self, parts: Parts, nudge: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self._parts = parts
        self._store = parts.store
        self._nudge = nudge
        self._clock = clock
        self._next_check = 0.0
        self._looked: dict[tuple[int, str], float] = {}

    def check(self) -> None:
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + CHECK_EVERY
        looked, self._looked = self._looked, {}
        for app in self._store.apps.all():
            if app.release is None or app.state != "running":
                continue
            for entry in self._store.releases.extras(app.id, app.release).cron:
                begun = min(app.deployed_at or 0.0, looked.get((app.id, entry.name), math.inf))
                self._looked[app.id, entry.name] = self._clock()
                self._check_entry(app, app.release, entry, begun)

    def _check_entry(self, app: App, release: int, entry: CronJob, begun: float) -> None:
        """begun: since when its slots count. A deploy between a slot and the next look does not swallow it."""
        now = self._clock()
        slot = due(entry.schedule, max(self._store.cron.last(app.id, entry.name, now) or 0.0, begun), now)
        if slot is None:
            return
        if self._store.instances.find(app=app.id, kind="cron", process=entry.name):
            if self._store.cron.take(app.id, entry.name, slot, ""):
                data = {"entry": entry.name, "reason": "the run before is still going"}
                self._store.events.add("cron.skipped", "platform", app.name, data)
            return
        stored = self._store.releases.get(app.id, release)
        with self._store.transaction():
            item = new_instance(self._parts, app, stored, entry.name, 1, "cron", command=entry.command)
            if not self._store.cron.take(app.id, entry.name, slot, item.id):
                self._store.instances.delete(item.id)
                return
            self._store.instances.change(item.id, phase="live", started_at=time.time())
            self._store.events.add("cron.started", "platform", app.name, {"entry": entry.name, "instance": item.id})
        try:
            spec = spec_of(self._parts, app, stored, item, command=shell(entry.command))
            self._parts.runtime.start(spec, QuietJob(START_TIMEOUT))
        except MiniError as error:
            self._store.instances.delete(item.id)
            data = {"entry": entry.name, "message": error.message}
            self._store.events.add("cron.failed", "platform", app.name, data)
        self._nudge()
