"""`mini status` and `mini doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from mini_core import api
from mini_core.cli.base import on_server, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import age, moment, plural, table
from mini_core.errors import MiniError, UsageError
from mini_core.quantities import size
from mini_core.types import Check

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "error": ("error", "red"), "skipped": ("skipped", "")}


@click.command()
@on_server
@pass_context
def status(context: Context) -> None:
    """Shows the platform, its apps, what is being deployed, and problems."""
    info = context.client().get("/v1/status", api.StatusInfo)
    context.data(info, list(_lines(info)))


def _lines(info: api.StatusInfo) -> Iterator[str]:
    yield f"mini {info.version} at {info.url} ({info.runtime} runtime, {info.router} router, pid {info.pid})"
    yield f"Up since {moment(info.started_at)}; disk: {size(info.disk_used)} used, {size(info.disk_free)} free"
    if info.notice:
        yield info.notice
    apps = app_table(info.apps)
    yield from ["", *apps] if apps else ["", "No apps yet. Make one: mini deploy ."]
    if info.deploys:
        yield ""
        for deploy in info.deploys:
            yield f"Deploy {deploy.id} of {deploy.app} {deploy.state} for {age(deploy.created_at)} (key {deploy.actor})"
    if info.problems:
        yield from ["", plural(len(info.problems), "problem")]
        yield from (f"  {problem}" for problem in info.problems)


def app_table(apps: tuple[api.AppInfo, ...]) -> list[str]:
    return table(
        ("app", "state", "release", "processes", "deployed", "url", "note"),
        (
            (
                app.name,
                app.state,
                f"v{app.release}" if app.release else "",
                " ".join(f"{name}={count}" for name, count in sorted(app.formation.items())),
                f"{age(app.deployed_at)} ago" if app.deployed_at else "",
                app.url,
                app.note,
            )
            for app in apps
        ),
    )


@click.command()
@on_server
@pass_context
def doctor(context: Context) -> None:
    """Checks everything that mini needs, and says which command mends what is wrong. Exits with 1 for errors."""
    try:
        checks = context.client().get("/v1/doctor", api.DoctorInfo).checks
    except UsageError:
        raise
    except MiniError as error:
        checks = (Check(name="platform", state="error", detail=error.message, hint=error.hint), *_checks_here(context))
    width = max((len(check.name) for check in checks), default=0)
    context.data(api.DoctorInfo(checks=checks), [line for check in checks for line in _check_lines(check, width)])
    if any(check.state == "error" for check in checks):
        raise click.exceptions.Exit(1)


def _check_lines(check: Check, width: int) -> Iterator[str]:
    yield f"{MARKS[check.state][0]:<8}  {check.name:<{width}}  {check.detail}".rstrip()
    if check.hint and check.state in ("warning", "error"):
        yield f"{'':<8}  {'':<{width}}  {check.hint}"


def _checks_here(context: Context) -> Iterator[Check]:
    """What can be said without a server; of the local platform more than of one elsewhere."""
    if context.address().is_local and sys.platform != "win32":
        from mini_core.paths import find_paths
        from mini_core.server.doctor import offline_checks

        yield from (check for check in offline_checks(find_paths()) if check.name != "platform")
        return
    from mini_core.plugins import load_plugins

    for info in load_plugins().infos():
        if info.state == "broken":
            yield Check(
                name=f"plugin {info.name}", state="error", detail=info.reason, hint=f"pip install -U {info.origin}"
            )
