"""`mini ps`, `scale`, `restart`, `stop`, `start`."""

from __future__ import annotations

import click

from mini_core import api
from mini_core.cli import params
from mini_core.cli.base import on_app, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import age, memory, table
from mini_core.cli.view import follow, why_silent, without_deploy
from mini_core.client.http import segment
from mini_core.errors import UsageError


@click.command()
@click.argument("app", default="")
@on_app
@pass_context
def ps(context: Context, app: str) -> None:
    """Shows an app's processes: state, uptime, restarts, memory, CPU."""
    name = context.app(app)
    found = context.client().get(f"/v1/apps/{segment(name)}/ps", tuple[api.InstanceInfo, ...])
    head = ("process", "state", "release", "up", "restarts", "memory", "cpu", "address", "command")
    lines = table(head, (_row(item) for item in found))
    for item in found:
        if item.note:
            lines.append(f"{item.name} {item.note}")
        if item.hint:
            lines.append(f"  {item.hint}")
    context.data(found, lines)
    shown = context.client().get(f"/v1/apps/{segment(name)}", api.AppInfo)
    if note := why_silent(context, shown):
        context.info(note)
    elif shown.release is None and not found:
        context.info(f"Nothing of {context.named(name)} runs yet. {_why_not_yet(context, name)}")
    elif not found:
        context.info(f"Nothing of {context.named(name)} runs.")


def _why_not_yet(context: Context, name: str) -> str:
    """Of an app without a release: what came of its last deploy, or how to make one."""
    last = context.client().get(f"/v1/apps/{segment(name)}/deploys", tuple[api.DeployInfo, ...], limit=1)
    if last and last[0].state == "failed":
        return f"Its last deploy failed: mini deploys show {last[0].id}"
    if last and last[0].state in ("running", "waiting"):
        return f"Its first deploy is under way: mini deploys attach {last[0].id}"
    return f"Deploy it: mini deploy . {name}"


def _row(item: api.InstanceInfo) -> tuple[str, ...]:
    used = memory(item.memory) if item.memory is not None else ""
    limit = f" of {memory(item.memory_limit)}" if used and item.memory_limit else ""
    return (
        item.name,
        item.state,
        f"v{item.release}",
        age(item.since),
        str(item.restarts) if item.restarts else "",
        used + limit,
        f"{item.cpu:.0%}" if item.cpu is not None else "",
        item.endpoint,
        item.command,
    )


@click.command()
@click.argument("quantities", nargs=-1, metavar="PROCESS=N...")
@click.option("--memory", "limit", type=params.limit, help="Memory that each process may use, such as 512m.")
@click.option("--cpu", type=click.FloatRange(min=0), help="CPU cores that each process may use.")
@click.option("--process", default="", metavar="NAME", help="The limits are for this process only.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@on_app
@pass_context
def scale(
    context: Context, quantities: tuple[str, ...], limit: int | None, cpu: float | None, process: str, detach: bool
) -> None:
    """Sets how many of each process run, as in web=2 worker=1, and what each may use; a limit of 0 is none of its own.

    Without anything to set: shows how many there are to be.
    """
    wanted = dict(_quantity(text) for text in quantities)
    name = context.app()
    if not wanted and limit is None and cpu is None:
        _show_formation(context, name)
        return
    request = api.Scale(quantities=wanted, memory=limit, cpu=cpu, process=process)
    info = context.client().post(f"/v1/apps/{segment(name)}/scale", request, api.DeployInfo)
    what = f"{context.named(name)}: {request.describe()}"
    release = "; this is {version}" if limit is not None or cpu is not None else ""
    nothing = without_deploy(context, name, f"Scaled {what}", f"Nothing to change for {what}") if info is None else ""
    follow(context, info, done=f"Scaled {what}{release}.", nothing=nothing, detach=detach)


def _show_formation(context: Context, name: str) -> None:
    app = context.client().get(f"/v1/apps/{segment(name)}", api.AppInfo)
    if app.release is None:
        raise UsageError("Nothing to scale", hint=f"Deploy it first: mini deploy . {name}")
    context.data(app.formation, " ".join(f"{process}={count}" for process, count in app.formation.items()))


def _quantity(text: str) -> tuple[str, int]:
    process, _, count = text.partition("=")
    if not process or not count.isdigit():
        raise UsageError(f"Expected PROCESS=NUMBER, got {text}", hint="For example: mini scale web=2 worker=1")
    return process, int(count)


@click.command()
@click.argument("app", default="")
@click.option("--process", default="", metavar="NAME", help="Only processes of this type.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@on_app
@pass_context
def restart(context: Context, app: str, process: str, detach: bool) -> None:
    """Starts new processes of the current release, then stops the old ones."""
    name = context.app(app)
    info = context.client().post(f"/v1/apps/{segment(name)}/restart", None, api.DeployInfo, process=process)
    follow(context, info, done=f"Restarted {context.named(name)}.", detach=detach)


@click.command()
@click.argument("app", default="")
@click.option("--process", default="", metavar="NAME", help="Only this command of `mini run` or cron, such as run.1.")
@on_app
@pass_context
def stop(context: Context, app: str, process: str) -> None:
    """Stops an app and keeps it, until `mini start`."""
    name = context.app(app)
    if process:
        context.client().delete(f"/v1/apps/{segment(name)}/runs/{segment(process)}")
        context.info(f"Stopped {process} of {context.named(name)}.")
        return
    context.client().post(f"/v1/apps/{segment(name)}/stop")
    context.info(f"Stopped {context.named(name)}. Start it: mini start {name}")


@click.command()
@click.argument("app", default="")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@on_app
@pass_context
def start(context: Context, app: str, detach: bool) -> None:
    """Starts an app that was stopped."""
    name = context.app(app)
    info = context.client().post(f"/v1/apps/{segment(name)}/start", None, api.DeployInfo)
    follow(context, info, done=f"Started {context.named(name)}.", detach=detach)
