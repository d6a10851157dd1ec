"""What the store holds, in the words of the API."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mini_core import api
from mini_core.engine.causes import signal_name
from mini_core.engine.failures import megabytes
from mini_core.engine.parts import Parts
from mini_core.engine.specs import ONE_SHOT, idle_of, limits_of, processes_of
from mini_core.errors import NotFound
from mini_core.store.records import App, Deploy, Instance, StoredRelease
from mini_core.types import InstanceStatus

NO_IMAGE = "its image is not here: deploy again"
"""Of an app that was restored without."""

LOOPING = 3
"""Crashes after which an app is called crashed, not just restarted."""


def deploy_info(parts: Parts, deploy: Deploy) -> api.DeployInfo:
    app = parts.store.apps.by_id(deploy.app)
    urls = parts.urls(app, deploy.base_url)
    before = [item.id for item in parts.store.deploys.unfinished(app.id) if item.id < deploy.id]
    return api.DeployInfo(
        id=deploy.id,
        app=app.name,
        kind=deploy.kind,
        state=deploy.state,
        step=deploy.step,
        actor=deploy.actor,
        created_at=deploy.created_at,
        finished_at=deploy.finished_at,
        release=deploy.release,
        unchanged=deploy.unchanged,
        url=urls[0],
        urls=urls,
        failure=deploy.failure,
        waiting_for=before[-1] if before and deploy.state == "waiting" else None,
        reason=deploy.reason,
    )


def release_info(app: App, stored: StoredRelease) -> api.ReleaseInfo:
    """Values of the environment are not shown: only its names."""
    release = stored.release
    return api.ReleaseInfo(
        version=release.version,
        created_at=release.created_at,
        created_by=release.created_by,
        reason=release.reason,
        runtime=release.runtime,
        current=release.version == app.release,
        image=release.image.ref,
        image_kept=stored.image_kept,
        commit=release.origin.commit if release.origin else "",
        changed=release.origin.changed if release.origin else 0,
        plan=release.plan,
        processes=processes_of(stored),
        env=dict.fromkeys(release.env, "[REDACTED]"),
        limits=release.limits,
        volumes=release.volumes,
        plugins=release.plugins,
        state=stored.state,
    )


def app_info(parts: Parts, app: App, base_url: str) -> api.AppInfo:
    store = parts.store
    live = store.instances.standing(app.id)
    stored = store.releases.get(app.id, app.release) if app.release is not None else None
    urls = parts.urls(app, base_url)
    worst = max(live, key=lambda item: item.crashes, default=None)
    formation = store.apps.formation(app.id) if stored is None else _formation(parts, app, stored)
    return api.AppInfo(
        name=app.name,
        state=_state(parts, app, live, formation),
        created_at=app.created_at,
        release=app.release,
        url=urls[0],
        urls=urls,
        domains=store.apps.domains(app.id),
        runtime=stored.release.runtime if stored else "",
        buildpack=stored.release.plan.buildpack if stored else "",
        formation=formation,
        running=_running(live),
        deployed_at=app.deployed_at,
        note=_note(parts, app, stored, worst),
        idle=idle_of(parts, stored.extras) if stored and formation.get("web") else 0.0,
    )


def _note(parts: Parts, app: App, stored: StoredRelease | None, worst: Instance | None) -> str:
    if worst is not None:
        return f"{worst.name} {crash_note(parts, worst, stored)}" if worst.crashes else ""
    if stored is None:
        last = parts.store.deploys.list(app.id, limit=1)
        return f"deploy {last[0].id} failed" if last and last[0].state == "failed" else ""
    return NO_IMAGE if not stored.image_kept and app.state == "running" else ""


def _formation(parts: Parts, app: App, stored: StoredRelease) -> dict[str, int]:
    kept = parts.store.apps.formation(app.id)
    return {item.name: kept.get(item.name, 0) for item in processes_of(stored)}


def _running(live: Sequence[Instance]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in live:
        if item.healthy:
            counts[item.process] = counts.get(item.process, 0) + 1
    return counts


def _state(parts: Parts, app: App, live: Sequence[Instance], formation: Mapping[str, int]) -> api.AppState:
    if app.maintenance:
        return "maintenance"
    if app.state == "stopped":
        return "stopped"
    if app.asleep:
        return "asleep"
    if app.release is None:
        return "deploying" if parts.store.deploys.running(app.id) else "new"
    if any(item.crashes >= LOOPING and not item.healthy for item in live):
        return "crashed"
    healthy = sum(item.healthy for item in live)
    return "running" if healthy >= sum(formation.values()) else "degraded"


def instance_info(
    parts: Parts, app: App, item: Instance, status: InstanceStatus | None, stored: StoredRelease | None
) -> api.InstanceInfo:
    process = stored.release.process(item.process) if stored else None
    crashed = bool(item.crashes) and item.phase == "live"
    return api.InstanceInfo(
        name=item.name,
        id=item.id,
        process=item.process,
        index=item.index,
        release=item.release,
        state=_instance_state(item, status),
        command=_command(process.command) if process else item.command,
        since=item.started_at or (status.started_at if status else None),
        restarts=item.crashes,
        memory=status.memory if status else None,
        memory_limit=limits_of(parts, stored, item.process).memory if stored else None,
        cpu=status.cpu if status else None,
        endpoint=str(item.address) if item.address else "",
        note=crash_note(parts, item, stored) if crashed else "",
        hint=f"mini logs {app.name} --process {item.name}" if crashed else "",
    )


def _command(argv: Sequence[str]) -> str:
    return argv[2] if len(argv) == 3 and tuple(argv[:2]) == ("sh", "-c") else " ".join(argv)


def _instance_state(item: Instance, status: InstanceStatus | None) -> str:
    if item.phase == "retired":
        return "stopping"
    if item.kind in ONE_SHOT:
        return "starting" if status is None else "running" if status.state == "running" else "stopping"
    if status is None or status.state in ("exited", "gone") or status.exit_code is not None:
        return "crashed" if item.crashes else "starting"  # after a start of the platform all are still to be started
    if item.healthy:
        return "running"
    return "unhealthy" if item.crashes else "starting"


def crash_note(parts: Parts, item: Instance, stored: StoredRelease | None) -> str:
    """`crashed 14 times since 02:03, out of memory (512 MB), next try in 60 s`."""
    times = "once" if item.crashes == 1 else f"{item.crashes} times"
    words = [f"crashed {times}"]
    if item.crashing_since is not None:
        words[0] += f" since {time.strftime('%H:%M', time.localtime(item.crashing_since))}"
    memory = limits_of(parts, stored, item.process).memory if stored else None
    if item.oom:
        words.append(f"out of memory ({megabytes(memory)})" if memory else "out of memory")
    elif item.signal:
        words.append(signal_name(item.signal))
    elif item.exit_code is not None:
        words.append(f"exit code {item.exit_code}")
    elif item.next_try is not None:
        words.append("not answering")
    if item.next_try is not None and not item.healthy:
        words.append(f"next try in {max(round(item.next_try - time.time()), 0)} s")
    return ", ".join(words)


def find_instance(parts: Parts, app: App, name: str) -> Instance:
    """The running instance of a name such as "web.1", or the first one where the name is "" or a process type.
    Raises NotFound."""
    live = [item for item in parts.store.instances.standing(app.id) if item.healthy]
    for item in live:
        if name in ("", item.name, item.process):
            return item
    what = name or "instance"
    raise NotFound(f"{app.name} has no running {what}.", hint=f"mini ps {app.name}", code="no-instance")
