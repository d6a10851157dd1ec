"""`mini deploys`: list, show, attach, cancel."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mini_core import api
from mini_core.cli.base import APP, HOST, JSON, DefaultGroup, on_server, options, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import age, moment, seconds, table
from mini_core.cli.view import failure_lines, follow
from mini_core.client.http import segment


@click.group(cls=DefaultGroup)
def deploys() -> None:
    """Lists, shows, attaches to and cancels deploys."""


@deploys.command("list")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@options(APP, HOST, JSON)
@pass_context
def list_(context: Context, limit: int) -> None:
    """Lists the last deploys, of all apps or, with -a, of one."""
    path = f"/v1/apps/{segment(context.app())}/deploys" if context.app_option else "/v1/deploys"
    found = context.client().get(path, tuple[api.DeployInfo, ...], limit=limit)
    head = ("id", "app", "what", "state", "release", "by", "started", "took")
    context.data(found, table(head, (_row(item) for item in found)))
    if not found:
        context.info("No deploys yet. Make one: mini deploy .")


def _row(item: api.DeployInfo) -> tuple[str, ...]:
    took = seconds(item.finished_at - item.created_at) if item.finished_at else ""
    state = "unchanged" if item.unchanged else item.state
    release = f"v{item.release}" if item.release else ""
    return str(item.id), item.app, item.kind, state, release, item.actor, f"{age(item.created_at)} ago", took


@deploys.command()
@click.argument("id", type=int)
@click.option("--log", is_flag=True, help="Print everything that it wrote.")
@on_server
@pass_context
def show(context: Context, id: int, log: bool) -> None:  # noqa: A002 - the argument's name
    """Shows a deploy and, if it failed, why."""
    client = context.client()
    info = client.get(f"/v1/deploys/{id}", api.DeployInfo)
    events = client.stream(f"/v1/deploys/{id}/events", api.DeployEvent)
    if log and context.json:
        for event in events:
            context.line(event, "")
        return
    context.data(info, [*_lines(info), *_end(context, info)])
    if log:
        click.echo()
        for event in events:
            if event.kind in ("output", "info", "warning"):
                click.echo(event.text)
    else:
        context.info(f"Everything that it wrote: mini deploys show {id} --log")


def _end(context: Context, info: api.DeployInfo) -> Iterator[str]:
    if info.state in ("failed", "cancelled"):
        yield ""
        yield from failure_lines(context, info)


def _lines(info: api.DeployInfo) -> Iterator[str]:
    yield f"Deploy {info.id} of {info.app}: {'unchanged' if info.unchanged else info.state}"
    yield f"What:     {info.kind}{f' ({info.reason})' if info.reason and info.reason != info.kind else ''}"
    yield f"By:       key {info.actor}, {moment(info.created_at)}"
    if info.finished_at:
        yield f"Took:     {seconds(info.finished_at - info.created_at)}"
    if info.state in ("running", "waiting"):
        yield f"Step:     {info.step}"
    if info.release:
        yield f"Release:  v{info.release}"
    if info.url and info.state == "done":
        yield f"URL:      {info.url}"


@deploys.command()
@click.argument("id", type=int)
@on_server
@pass_context
def attach(context: Context, id: int) -> None:  # noqa: A002
    """Follows a deploy from its beginning. The exit code is the deploy's."""
    info = context.client().get(f"/v1/deploys/{id}", api.DeployInfo)
    follow(context, info, done="", numbered=info.kind == "deploy")


@deploys.command()
@click.argument("id", type=int)
@on_server
@pass_context
def cancel(context: Context, id: int) -> None:  # noqa: A002
    """Stops a deploy. What ran before goes on running."""
    info = context.client().post(f"/v1/deploys/{id}/cancel", None, api.DeployInfo)
    context.data(info, "")
    context.info(f"Deploy {info.id} of {context.named(info.app)} is being cancelled.")
