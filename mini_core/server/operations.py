"""The endpoints of `/v1`, each with the one call of the controller that it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mini_core import __version__, api
from mini_core.errors import Conflict
from mini_core.server import doctor
from mini_core.server.operation import Call, Operation, masked, masked_release
from mini_core.types import Event, LogLine, value


@value
class Alive:
    """status: "ok" once requests are taken. platform: this platform's id."""

    status: str
    version: str
    platform: str


@value
class Wake:
    app: str


@value
class Shutdown:
    """purge: also removes all apps with everything they own."""

    purge: bool = False


@value
class LimitQuery:
    limit: int = 50


@value
class FollowQuery:
    """after: only what has a higher number. follow: go on until the end."""

    after: int = 0
    follow: bool = False


@value
class EventsQuery:
    """app: of one app only. after: only newer ones. limit: how many of the last. follow: go on for ever."""

    app: str = ""
    after: int = 0
    limit: int = 100
    follow: bool = False


@value
class LogsQuery:
    """lines: how many of the last. since: seconds since the epoch. pattern: a regular expression."""

    lines: int = 100
    follow: bool = False
    process: str = ""
    source: str = ""
    since: float = 0.0
    pattern: str = ""


@value
class EnvQuery:
    """build: the build-time variables. reveal: values in clear."""

    build: bool = False
    reveal: bool = False


@value
class ProcessQuery:
    process: str = ""


@value
class TargetQuery:
    target: str


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


def revoke_key(call: Call) -> None:
    call.controller.revoke_key(call.params["key"], call.actor)


def one_off(call: Call) -> Any:
    if call.body.instance:
        raise Conflict("A one-off has no instance.", hint="Use exec for a command in a running instance.")
    return call.controller.run(call.app, call.body, call.actor)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/healthz",
        handler=health,
        access="open",
        response=Alive,
        summary="Whether the server takes requests",
    ),
    Operation(
        method="GET",
        path="/v1/status",
        handler=status,
        access="key",
        response=api.StatusInfo,
        summary="The platform, its apps and its problems",
    ),
    Operation(
        method="GET",
        path="/v1/doctor",
        handler=run_doctor,
        access="platform",
        response=api.DoctorInfo,
        summary="What is wrong, and what mends it",
    ),
    Operation(
        method="GET",
        path="/v1/plugins",
        handler=lambda call: call.controller.plugins(),
        access="key",
        response=tuple[api.PluginInfo, ...],
        summary="All plugins, broken ones with the reason",
    ),
    Operation(
        method="GET",
        path="/v1/buildpacks",
        handler=lambda call: call.controller.buildpacks(),
        access="key",
        response=tuple[api.BuildpackInfo, ...],
        summary="All buildpacks",
    ),
    Operation(
        method="POST",
        path="/v1/plan",
        handler=plan,
        access="key",
        content="archive",
        response=api.PlanInfo,
        summary="How a source would be built and run",
    ),
    Operation(
        method="GET",
        path="/v1/events",
        handler=events,
        access="key",
        query=EventsQuery,
        response=Event,
        stream=True,
        summary="Who did what, and what happened",
    ),
    Operation(
        method="GET",
        path="/v1/keys",
        handler=lambda call: call.controller.keys(),
        access="platform",
        response=tuple[api.KeyInfo, ...],
        summary="All keys, without their secrets",
    ),
    Operation(
        method="POST",
        path="/v1/keys",
        handler=lambda call: call.controller.create_key(call.body, call.actor),
        access="platform",
        request=api.NewKey,
        response=api.CreatedKey,
        status=201,
        summary="Make a key, shown this once",
    ),
    Operation(
        method="DELETE", path="/v1/keys/<key>", handler=revoke_key, access="platform", summary="Revoke a key at once"
    ),
    Operation(
        method="GET",
        path="/v1/apps",
        handler=apps,
        access="key",
        response=tuple[api.AppInfo, ...],
        summary="All apps that the key reaches",
    ),
    Operation(
        method="POST",
        path="/v1/apps",
        handler=create_app,
        access="key",
        request=api.NewApp,
        response=api.AppInfo,
        status=201,
        summary="Make an app without a release",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>",
        handler=lambda call: call.controller.app(call.app, call.base_url),
        response=api.AppInfo,
        summary="One app",
    ),
    Operation(
        method="DELETE",
        path="/v1/apps/<app>",
        handler=lambda call: call.controller.destroy_app(call.app, call.actor),
        summary="Remove an app with everything it owns",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/rename",
        handler=rename_app,
        request=api.Rename,
        response=api.AppInfo,
        summary="Give an app another name",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/deploys",
        handler=deploy,
        content="archive",
        response=api.DeployInfo,
        status=202,
        summary="Deploy a source",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/deploys",
        handler=lambda call: call.controller.deploys(call.app, limit=call.query.limit),
        query=LimitQuery,
        response=tuple[api.DeployInfo, ...],
        summary="An app's deploys, the newest first",
    ),
    Operation(
        method="GET",
        path="/v1/deploys",
        handler=deploys,
        access="key",
        query=LimitQuery,
        response=tuple[api.DeployInfo, ...],
        summary="All deploys, the newest first",
    ),
    Operation(
        method="GET",
        path="/v1/deploys/<int:deploy>",
        handler=lambda call: call.deploy(),
        access="key",
        response=api.DeployInfo,
        summary="One deploy, with the reason if it failed",
    ),
    Operation(
        method="GET",
        path="/v1/deploys/<int:deploy>/events",
        handler=deploy_events,
        access="key",
        query=FollowQuery,
        response=api.DeployEvent,
        stream=True,
        summary="A deploy's log",
    ),
    Operation(
        method="POST",
        path="/v1/deploys/<int:deploy>/cancel",
        handler=lambda call: call.controller.cancel_deploy(call.deploy().id, call.actor),
        access="key",
        response=api.DeployInfo,
        summary="Stop a deploy; what ran before goes on running",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/releases",
        handler=releases,
        response=tuple[api.ReleaseInfo, ...],
        summary="An app's releases, the newest first",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/releases/<int:version>",
        handler=release,
        query=EnvQuery,
        response=api.ReleaseInfo,
        summary="One release, whole",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/rollback",
        handler=lambda call: call.controller.rollback(call.app, call.body, call.actor),
        request=api.Rollback,
        response=api.DeployInfo,
        status=202,
        summary="Run an earlier release again, its configuration included",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/env",
        handler=env,
        query=EnvQuery,
        response=dict[str, str],
        summary="An app's environment, masked unless revealed",
    ),
    Operation(
        method="PATCH",
        path="/v1/apps/<app>/env",
        handler=lambda call: call.controller.change_env(call.app, call.body, call.actor),
        request=api.EnvChange,
        response=api.DeployInfo,
        status=202,
        summary="Set and unset variables; 204 where nothing restarts",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/ps",
        handler=lambda call: call.controller.ps(call.app),
        response=tuple[api.InstanceInfo, ...],
        summary="An app's instances",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/scale",
        handler=lambda call: call.controller.scale(call.app, call.body, call.actor),
        request=api.Scale,
        response=api.DeployInfo,
        status=202,
        summary="How many instances, and their limits; 204 where nothing changes",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/restart",
        handler=lambda call: call.controller.restart(call.app, call.actor, process=call.query.process),
        query=ProcessQuery,
        response=api.DeployInfo,
        status=202,
        summary="New instances of the current release, then stop the old",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/stop",
        handler=lambda call: call.controller.stop(call.app, call.actor),
        summary="Stop an app and keep it",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/start",
        handler=lambda call: call.controller.start_app(call.app, call.actor),
        response=api.DeployInfo,
        status=202,
        summary="Start a stopped app",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/logs",
        handler=logs,
        query=LogsQuery,
        response=LogLine,
        stream=True,
        summary="What an app, its builds and the router wrote",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/domains",
        handler=lambda call: call.controller.domains(call.app, call.base_url),
        response=tuple[api.DomainInfo, ...],
        summary="An app's domains",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/domains",
        handler=lambda call: call.controller.add_domain(call.app, call.body.domain, call.actor, call.base_url),
        request=api.DomainChange,
        response=api.DomainInfo,
        status=201,
        summary="Add a domain",
    ),
    Operation(
        method="DELETE",
        path="/v1/apps/<app>/domains/<domain>",
        handler=lambda call: call.controller.remove_domain(call.app, call.params["domain"], call.actor),
        summary="Remove a domain",
    ),
    Operation(
        method="GET",
        path="/v1/apps/<app>/volumes",
        handler=lambda call: call.controller.volumes(call.app),
        response=tuple[api.VolumeChange, ...],
        summary="An app's volumes",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/volumes",
        handler=lambda call: call.controller.add_volume(call.app, call.body, call.actor),
        request=api.VolumeChange,
        response=api.DeployInfo,
        status=202,
        summary="Add a volume; 204 where nothing restarts",
    ),
    Operation(
        method="DELETE",
        path="/v1/apps/<app>/volumes",
        handler=lambda call: call.controller.remove_volume(call.app, call.query.target, call.actor),
        query=TargetQuery,
        response=api.DeployInfo,
        status=202,
        summary="Remove a volume with its data; 204 where nothing restarts",
    ),
    Operation(
        method="PUT",
        path="/v1/apps/<app>/maintenance",
        handler=lambda call: call.controller.maintenance(call.app, call.body.on, call.actor),
        request=api.Toggle,
        summary="Answer with a page that says the app is being worked on",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/run",
        handler=one_off,
        request=api.OneOffRequest,
        content="upgrade",
        status=101,
        summary="A command in a new instance, its streams connected",
    ),
    Operation(
        method="POST",
        path="/v1/apps/<app>/exec",
        handler=lambda call: call.controller.exec(call.app, call.body, call.actor),
        request=api.OneOffRequest,
        content="upgrade",
        status=101,
        summary="A command in a running instance, its streams connected",
    ),
    Operation(
        method="POST",
        path="/v1/internal/wake",
        handler=wake,
        access="internal",
        request=Wake,
        summary="Start a sleeping app; answers when it is routed",
    ),
)
