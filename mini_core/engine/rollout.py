"""A set of instances takes over from another: started side by side, watched until healthy, then switched."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from mini_core.engine.health import Healthy, Watch
from mini_core.engine.parts import Parts
from mini_core.engine.specs import new_instance, processes_of, spec_of
from mini_core.interfaces import Job
from mini_core.store.records import App, Instance, StoredRelease
from mini_core.types import InstanceSpec, Value

AT_ONCE = 4
"""Instances that are started side by side."""

LOOK_EVERY, LOOK_SLOWLY = 0.02, 0.25
"""Seconds between looks at starting instances: a tenth of what they have taken so far, within these bounds."""


class Team(Value):
    """new: to be started. kept: go on. old: to be retired once the new ones are routed."""

    new: tuple[Instance, ...] = ()
    kept: tuple[Instance, ...] = ()
    old: tuple[Instance, ...] = ()


def assemble(
    parts: Parts,
    app: App,
    stored: StoredRelease,
    quantities: Mapping[str, int],
    *,
    deploy: int | None,
    renew: frozenset[str] | None = frozenset(),
) -> Team:
    """What has to start and to go, so that each process type has its quantity of instances of this release.

    renew: process types whose instances are replaced though they are of this release; None renews all. The new
    ones are in the store, with id and address, when this returns.
    """
    live = parts.store.instances.standing(app.id)
    kept, new = [], []
    for process in processes_of(stored):
        kind = "web" if process.name == "web" else "worker"
        for index in range(1, quantities.get(process.name, 0) + 1):
            staying = [item for item in live if (item.process, item.index) == (process.name, index)]
            fitting = [item for item in staying if item.release == stored.release.version]
            if fitting and renew is not None and process.name not in renew:
                kept.append(fitting[0])
            else:
                new.append(new_instance(parts, app, stored, process.name, index, kind, deploy=deploy))  # type: ignore[arg-type]
    old = tuple(item for item in live if item not in kept)
    return Team(new=tuple(new), kept=tuple(kept), old=old)


def specs_of(parts: Parts, app: App, stored: StoredRelease, team: Team) -> dict[str, InstanceSpec]:
    return {item.id: spec_of(parts, app, stored, item) for item in team.new}


def start(parts: Parts, specs: Mapping[str, InstanceSpec], job: Job) -> None:
    """All of them, a few at a time. Raises the first error, once those that had begun are done."""

    def one(spec: InstanceSpec) -> None:
        job.check()
        parts.runtime.start(spec, job)
        parts.store.instances.change(spec.id, started_at=time.time())

    if specs:
        with ThreadPoolExecutor(min(len(specs), AT_ONCE), thread_name_prefix="start") as pool:
            list(pool.map(one, specs.values()))


def wait_healthy(
    parts: Parts,
    app: App,
    specs: Mapping[str, InstanceSpec],
    job: Job,
    where: Callable[[int], str] = lambda _: "",
) -> dict[str, Healthy]:
    """Returns when all are healthy. Raises InstanceFailed for the first that cannot become so, and Cancelled.

    where: see Watch.
    """
    host, isolated = parts.hosts(app)[0], parts.isolated
    waiting = {
        name: Watch(parts.runtime, spec, app.name, host, isolated=isolated, where=where) for name, spec in specs.items()
    }
    healthy: dict[str, Healthy] = {}
    began = time.monotonic()
    while True:
        for name, watch in list(waiting.items()):
            job.check()
            if answer := watch.look():
                healthy[name] = answer
                del waiting[name]
                parts.store.instances.change(name, healthy=1)
                parts.store.instances.set_found(name, answer.found)
                for warning in answer.warnings:
                    job.emit(warning, kind="warning")
        if not waiting:
            return healthy
        time.sleep(min(max((time.monotonic() - began) / 10, LOOK_EVERY), LOOK_SLOWLY))


def cannot_overlap(parts: Parts, old: tuple[Instance, ...]) -> bool:
    """Whether old instances hold a port that new ones would want too: they ignore PORT, and share the machine's."""
    return "side-by-side-ports" not in parts.runtime.abilities and any(item.found for item in old)
