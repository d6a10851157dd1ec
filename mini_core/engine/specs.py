"""From a release to instances: the environment, the limits and the command of each, its id and its address."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping, Sequence

from mini_core.engine.parts import Parts
from mini_core.errors import Unavailable
from mini_core.store.instances import Taken
from mini_core.store.records import App, Extras, Instance, StoredRelease
from mini_core.types import Endpoint, InstanceKind, InstanceSpec, Limits, ProcessType, Secret, iter_env

ONE_SHOT: frozenset[InstanceKind] = frozenset(("release", "oneoff", "cron"))


def idle_of(parts: Parts, extras: Extras) -> float:
    """Seconds without a request after which an app sleeps, 0 for never: what its release says, else the server."""
    return parts.settings.idle if extras.idle is None else extras.idle


def processes_of(stored: StoredRelease) -> tuple[ProcessType, ...]:
    """What can be scaled. An image that starts something by itself, and a static site, have a `web` without a
    command."""
    named = tuple(item for item in stored.release.processes if item.name != "release")
    plan = stored.release.plan
    if any(item.name == "web" for item in named) or not (plan.dockerfile or plan.static):
        return named
    return (ProcessType(name="web", source="image"), *named)


def limits_of(parts: Parts, stored: StoredRelease, process: str) -> Limits:
    """The process type's own, else the app's, else the platform's, each number for itself."""
    given = stored.release.limits
    order = (given.get(process, Limits()), given.get("", Limits()), parts.settings.limits)

    def first(name: str) -> float | None:
        return next((item for limits in order if (item := getattr(limits, name)) is not None), None)

    memory, pids = first("memory"), first("pids")
    return Limits(memory=_whole(memory), cpu=first("cpu"), pids=_whole(pids))


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def environment(parts: Parts, stored: StoredRelease, endpoint: Endpoint | None) -> dict[str, Secret]:
    """Strongest last: the plan's values, plugins', the app's own, PORT and HOST."""
    env = {entry.name: Secret(entry.value) for entry in iter_env(stored.release.plan, "value")}
    env |= stored.addons
    env |= stored.release.env
    env["HOST"] = Secret("0.0.0.0" if parts.isolated else "127.0.0.1")
    if endpoint is not None:
        env["PORT"] = Secret(str(endpoint.port))
    return env


def spec_of(
    parts: Parts,
    app: App,
    stored: StoredRelease,
    item: Instance,
    *,
    command: Sequence[str] | None = None,
    env: Mapping[str, Secret] | None = None,
    tty: bool = False,
    stdin: bool = False,
) -> InstanceSpec:
    """What the runtime is to start for the instance: the same every time. command, env: for one-offs."""
    release = stored.release
    process = next((p for p in release.processes if p.name == item.process), None)
    labels = {
        **parts.labels(app),
        "mini.release": str(release.version),
        "mini.process": item.process,
        "mini.instance": item.id,
        "mini.home": f"{socket.gethostname()}:{parts.paths.data}",
    }
    return InstanceSpec(
        id=item.id,
        app=app.handle,
        release=release.version,
        process=item.process,
        kind=item.kind,
        index=item.index,
        image=release.image,
        plan=release.plan,
        command=tuple(command) if command is not None else (process.command if process else ()),
        env={**environment(parts, stored, item.endpoint), **(env or {})},
        endpoint=item.endpoint,
        volumes=release.volumes,
        limits=limits_of(parts, stored, item.process),
        labels=labels,
        grace=parts.settings.grace,
        tty=tty,
        stdin=stdin,
    )


def new_instance(
    parts: Parts,
    app: App,
    stored: StoredRelease,
    process: str,
    index: int,
    kind: InstanceKind,
    *,
    deploy: int | None = None,
    command: str = "",
    attached: bool = False,
) -> Instance:
    """Written to the store, id and address chosen, before anything is made of it."""
    version = stored.release.version
    with parts.allocating:
        for _ in range(10):
            item = Instance(
                id=f"{app.handle}-v{version}-{process[:20].lower()}-{index}-{secrets.token_hex(4)}",
                app=app.id,
                release=version,
                process=process,
                index=index,
                kind=kind,
                deploy=deploy,
                phase="new",
                endpoint=_address(parts, stored) if kind == "web" else None,
                created_at=time.time(),
                command=command,
                attached=attached,
            )
            try:
                parts.store.instances.add(item)
            except Taken:
                continue
            return item
    raise Unavailable("No free address for another instance.", hint="mini ps shows what runs.", code="no-address")


def _address(parts: Parts, stored: StoredRelease) -> Endpoint:
    """The runtime's; where every instance has ports of its own, with the port that the app is known to use."""
    endpoint = parts.runtime.allocate(parts.store.instances.endpoints())
    release = stored.release
    declared = release.plan.port or next(iter(release.image.ports), None)
    own_ports = "side-by-side-ports" in parts.runtime.abilities and not endpoint.host.startswith("127.")
    return Endpoint(host=endpoint.host, port=declared) if own_ports and declared else endpoint
