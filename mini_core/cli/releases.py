"""`mini releases` and `mini rollback`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from mini_core import api
from mini_core.cli.base import DefaultGroup, on_app, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import age, memory, moment, plural, table
from mini_core.cli.view import follow
from mini_core.client.http import segment
from mini_core.errors import UsageError


@click.group(cls=DefaultGroup)
def releases() -> None:
    """Lists an app's releases and shows one."""


@releases.command("list")
@click.argument("app", default="")
@on_app
@pass_context
def list_(context: Context, app: str) -> None:
    """Lists the releases, the newest first."""
    name = context.app(app)
    found = context.client().get(f"/v1/apps/{segment(name)}/releases", tuple[api.ReleaseInfo, ...])
    head = ("release", "", "created", "by", "what", "commit", "image")
    context.data(found, table(head, (_row(item) for item in found)))
    if not found:
        context.info(f"No releases of {context.named(name)} yet. Make one: mini deploy . {name}")


def _row(item: api.ReleaseInfo) -> tuple[str, ...]:
    commit = item.commit[:8] + (f" +{item.changed}" if item.commit and item.changed else "")
    kept = "" if item.image_kept else "gone"
    state = "current" if item.current else "failed" if item.state == "failed" else ""
    return f"v{item.version}", state, f"{age(item.created_at)} ago", item.created_by, item.reason, commit, kept


@releases.command()
@click.argument("release")
@on_app
@pass_context
def show(context: Context, release: str) -> None:
    """Shows one release, such as v3, whole."""
    name = context.app()
    path = f"/v1/apps/{segment(name)}/releases/{_version(release)}"
    found = context.client().get(path, api.ReleaseInfo)
    context.data(found, list(_lines(found)))


def _lines(item: api.ReleaseInfo) -> Iterator[str]:
    from mini_core.explain import command_line, headline

    state = " (current)" if item.current else " (failed, never live)" if item.state == "failed" else ""
    yield f"v{item.version}{state}: {item.reason}"
    yield f"Created:   {moment(item.created_at)} by key {item.created_by}"
    if item.commit:
        changed = f" and {plural(item.changed, 'changed file')}" if item.changed else ""
        yield f"Commit:    {item.commit}{changed}"
    yield f"Image:     {item.image}{'' if item.image_kept else ' (gone)'}"
    if item.plan:
        yield f"Plan:      {headline(item.plan)}"
    yield f"Runtime:   {item.runtime}"
    for process in item.processes:
        yield f"Process:   {process.name}: {command_line(process.command) or 'what the image starts'}"
    for name, limit in item.limits.items():
        shown = [memory(limit.memory)] if limit.memory else []
        shown += [f"{limit.cpu:g} CPU"] if limit.cpu else []
        yield f"Limits:    {name or 'all'}: {', '.join(shown)}"
    if item.volumes:
        yield f"Volumes:   {' '.join(volume.target for volume in item.volumes)}"
    if item.env:
        yield f"Variables: {' '.join(sorted(item.env))}"
    if item.plugins:
        yield f"Plugins:   {', '.join(f'{name} {version}' for name, version in sorted(item.plugins.items()))}"


@click.command()
@click.argument("release", default="", metavar="[vN]")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@on_app
@pass_context
def rollback(context: Context, release: str, detach: bool) -> None:
    """Runs the release vN again, with its configuration; by default the one before the current."""
    name = context.app()
    request = api.Rollback(version=_version(release) if release else None)
    info = context.client().post(f"/v1/apps/{segment(name)}/rollback", request, api.DeployInfo)
    to = (info.reason if info else "").removeprefix("rollback ")
    follow(context, info, done=f"Rolled {context.named(name)} back {to}; this is {{version}}.", detach=detach)


def _version(text: str) -> int:
    match = re.fullmatch(r"v?(\d+)", text)
    if not match:
        raise UsageError(f"Not a release: {text}", hint="Write it as v3. They are in: mini releases")
    return int(match[1])
