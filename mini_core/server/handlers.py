"""What endpoints do beyond one call of the controller, and the bodies and queries that only they have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mini_core import __version__, api
from mini_core.errors import Conflict
from mini_core.server import doctor, pieces
from mini_core.server.operation import Call, Download, masked, masked_release
from mini_core.types import Event, LogLine, Value, replace


class Alive(Value):
    """status: "ok" once requests are taken. platform: this platform's id."""

    status: str
    version: str
    platform: str


class Wake(Value):
    app: str


class Shutdown(Value):
    """purge: also removes all apps with everything they own."""

    purge: bool = False


class LimitQuery(Value):
    limit: int = 50


class FollowQuery(Value):
    """after: only what has a higher number. follow: go on until the end."""

    after: int = 0
    follow: bool = False


class EventsQuery(Value):
    """app: of one app only. after: only newer ones. limit: how many of the last. follow: go on for ever."""

    app: str = ""
    after: int = 0
    limit: int = 100
    follow: bool = False


class LogsQuery(Value):
    """lines: how many of the last. since: seconds since the epoch. pattern: a regular expression."""

    lines: int = 100
    follow: bool = False
    process: str = ""
    source: str = ""
    since: float = 0.0
    pattern: str = ""


class EnvQuery(Value):
    """build: the build-time variables. reveal: values in clear."""

    build: bool = False
    reveal: bool = False


class ProcessQuery(Value):
    process: str = ""


class TargetQuery(Value):
    target: str


class BackupQuery(Value):
    """images: of what runs and what can be rolled back to, so that a restore needs no build."""

    images: bool = False


class RestoreQuery(Value):
    """replace: even if that removes the apps that are there. upload: of a backup that has come in pieces."""

    replace: bool = False
    upload: str = ""


class PieceQuery(Value):
    """offset: where in the file the piece begins."""

    offset: int = 0


class Arrived(Value):
    """Bytes that have come."""

    size: int


# --- the platform


def health(call: Call) -> Alive:
    return Alive(status="ok", version=__version__, platform=call.controller.platform)


def status(call: Call) -> api.StatusInfo:
    info = call.controller.status(call.base_url)
    if not call.caller.app:
        return info
    apps = tuple(app for app in info.apps if app.name == call.caller.app)
    deploys = tuple(deploy for deploy in info.deploys if deploy.app == call.caller.app)
    return replace(info, apps=apps, deploys=deploys, problems=(), router_status={})


def run_doctor(call: Call) -> api.DoctorInfo:
    theirs = call.controller.doctor().checks
    known = {check.name for check in theirs}
    ours = tuple(check for check in doctor.checks(call.controller) if check.name not in known)
    return api.DoctorInfo(checks=ours + theirs)


def plan(call: Call) -> api.PlanInfo:
    assert call.archive is not None
    return call.controller.plan(call.archive, call.options)


def events(call: Call) -> Iterator[Event]:
    query = call.query
    app = query.app or call.caller.app
    call.caller.allow(app)
    return call.controller.events(app=app, after=query.after, limit=query.limit, follow=query.follow)


def backup(call: Call) -> Download:
    images = call.query.images
    size = call.controller.backup_size(images=images)
    return Download(chunks=call.controller.backup(call.actor, images=images), size=size)


def add_piece(call: Call) -> Arrived:
    assert call.file is not None
    reserve = call.controller.settings.disk_reserve
    return Arrived(size=pieces.add(_uploads(call), call.params["upload"], call.query.offset, call.file, reserve))


def restore(call: Call) -> Iterator[api.RestoreEvent]:
    with pieces.take(_uploads(call), call.query.upload) if call.query.upload else nullcontext(call.file) as file:
        assert file is not None
        yield from call.controller.restore(file, call.actor, replacing=call.query.replace)


def _uploads(call: Call) -> Path:
    return call.controller.paths.data / "uploads"


def wake(call: Call) -> None:
    call.controller.wake(call.body.app)


# --- apps


def apps(call: Call) -> tuple[api.AppInfo, ...]:
    found = call.controller.apps(call.base_url)
    return tuple(app for app in found if call.caller.app in ("", app.name))


def create_app(call: Call) -> api.AppInfo:
    call.caller.allow(call.body.name)
    return call.controller.create_app(call.body, call.actor, call.base_url)


def rename_app(call: Call) -> api.AppInfo:
    call.caller.allow("")
    call.controller.rename_app(call.app, call.body.name, call.actor)
    return call.controller.app(call.body.name, call.base_url)


# --- deploys and releases


def deploy(call: Call) -> api.DeployInfo:
    assert call.archive is not None
    return call.controller.deploy(call.app, call.archive, call.options, call.actor, call.base_url)


def deploys(call: Call) -> tuple[api.DeployInfo, ...]:
    return call.controller.deploys(call.caller.app, limit=call.query.limit)


def deploy_events(call: Call) -> Iterator[api.DeployEvent]:
    info = call.deploy()
    return call.controller.deploy_events(info.id, after=call.query.after, follow=call.query.follow)


def release(call: Call) -> api.ReleaseInfo:
    info = call.controller.release(call.app, call.params["version"])
    return info if call.query.reveal else masked_release(info)


def releases(call: Call) -> tuple[api.ReleaseInfo, ...]:
    return tuple(masked_release(info) for info in call.controller.releases(call.app))


def env(call: Call) -> dict[str, str]:
    found = call.controller.env(call.app, build=call.query.build)
    return found if call.query.reveal else masked(found)


def logs(call: Call) -> Iterator[LogLine]:
    query = call.query
    call.controller.app(call.app, call.base_url)
    return call.controller.logs(
        call.app,
        lines=query.lines,
        follow=query.follow,
        process=query.process,
        source=query.source,
        since=query.since,
        pattern=query.pattern,
    )


def export_volume(call: Call) -> Download:
    return Download(chunks=call.controller.export_volume(call.app, call.query.target, call.actor))


def revoke_key(call: Call) -> None:
    call.controller.revoke_key(call.params["key"], call.actor)


def one_off(call: Call) -> Any:
    if call.body.instance:
        raise Conflict("A one-off has no instance.", hint="Use exec for a command in a running instance.")
    return call.controller.run(call.app, call.body, call.actor)
