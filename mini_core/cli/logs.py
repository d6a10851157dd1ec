"""`mini logs` and `mini events`."""

from __future__ import annotations

import re
import time

import click

from mini_core.cli import params
from mini_core.cli.base import APP, HOST, JSON, on_app, options, pass_context
from mini_core.cli.context import Context, colours
from mini_core.cli.output import moment
from mini_core.client.http import segment
from mini_core.types import Event, LogLine

COLOURS = ("cyan", "green", "magenta", "blue", "yellow")


@click.command()
@click.argument("app", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="How many of the last.")
@click.option("--process", default="", metavar="NAME", help="Only of web, worker or web.2.")
@click.option(
    "--source", default=None, type=click.Choice(["app", "build", "router", "platform"]), help="Only what these wrote."
)
@click.option("--since", default=None, type=params.moment, help="Only after 30m ago, 02:00 or a date.")
@click.option("--grep", default="", metavar="RE", help="Only lines that match.")
@on_app
@pass_context
def logs(
    context: Context,
    app: str,
    follow: bool,
    lines: int,
    process: str,
    source: str | None,
    since: float | None,
    grep: str,
) -> None:
    """Shows what an app, its builds and the router wrote, in this release and earlier ones."""
    from mini_core.client.follow import follow_logs

    _check_pattern(grep)
    path = f"/v1/apps/{segment(context.app(app))}/logs"
    query = {"lines": lines, "process": process, "source": source or "", "since": since, "pattern": grep}
    client = context.client()
    found = follow_logs(client, path, say=context.info, **query) if follow else client.stream(path, LogLine, **query)
    import sys

    painted = colours(sys.stdout)
    for line in found:
        context.line(line, _shown(line, painted))


def _shown(line: LogLine, painted: bool) -> str:
    clock = time.strftime("%m-%d %H:%M:%S", time.localtime(line.at))
    who = line.process or line.source
    head = f"{clock} {who:<9} "
    if painted:
        head = click.style(head, fg=COLOURS[sum(who.encode()) % len(COLOURS)])
    return head + line.text


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {error}", param_hint="--grep") from None


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1), help="How many of the last.")
@options(APP, HOST, JSON)
@pass_context
def events(context: Context, follow: bool, limit: int) -> None:
    """Shows who did what, and what happened, on the server or, with -a, to one app."""
    from mini_core.client.follow import follow_events

    client, app = context.client(), context.app() if context.app_option else ""
    last = 0
    for event in client.stream("/v1/events", Event, app=app, limit=limit):
        last = max(last, event.id)
        context.line(event, _event_line(event))
    if follow:
        for event in follow_events(client, say=context.info, after=last, app=app):
            context.line(event, _event_line(event))


TIMES = {"crashing_since", "next_try"}
"""Seconds since the epoch, among an event's data."""


def _event_line(event: Event) -> str:
    shown = {name: item for name, item in event.data.items() if item is not False and item not in (None, "", [], {})}
    shown |= {name: moment(shown[name]).partition(" ")[2] for name in TIMES & shown.keys()}
    details = " ".join(f"{name}={item}" for name, item in shown.items())
    return f"{moment(event.at)}  {event.kind:<18} {event.app:<16} {event.actor:<10} {details}".rstrip()
