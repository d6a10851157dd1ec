"""A deploy as the user sees it: events in, lines on stderr out; in the end the URL, or why not."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import urlsplit

import click

from mini_core import api
from mini_core.cli.context import Context, colours, without_stop
from mini_core.client.follow import LAST, follow_deploy
from mini_core.client.http import segment
from mini_core.errors import Unavailable
from mini_core.types import from_data

INDENT = "      "
LOOKUP_PATIENCE = 1.0
"""Seconds that the end of a deploy waits for this machine's answer about a name."""
SILENT = ("maintenance", "stopped")
"""States of an app that answers no request, whatever is deployed."""
STEP_WORDS = {
    "received": "taking the source",
    "planned": "planning",
    "built": "building",
    "released": "making the release",
    "release": "release phase",
    "starting": "starting",
    "healthy": "waiting until healthy",
    "routed": "switching routes",
    "drained": "finishing the old release's requests",
}


class Lines:
    """Whole lines, one open line that may get an end, one passing line at the bottom of a terminal."""

    def __init__(self) -> None:
        self._open = ""
        self._passing = False
        self._live = colours(sys.stderr)

    def line(self, text: str) -> None:
        self._clear()
        click.echo(text, err=True)

    def begin(self, text: str) -> None:
        """A line that `end` may finish."""
        self._clear()
        click.echo(text, err=True, nl=False)
        self._open = text

    def update(self, text: str) -> None:
        """Behind the open line, on a terminal, until its end comes."""
        if self._live and self._open:
            click.echo(f"\r\x1b[K{self._open} {text}", err=True, nl=False)

    def end(self, text: str) -> None:
        """On the open line, or, where others came in between, on one of its own."""
        if self._open:
            click.echo(f"\r\x1b[K{self._open} {text}" if self._live else f" {text}", err=True)
            self._open = ""
        else:
            self.line(INDENT + text)

    def passing(self, text: str) -> None:
        """Shown on a terminal until the next line comes."""
        if self._live and not self._open:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{text[:width]}", err=True, nl=False)
            self._passing = True

    def close(self) -> None:
        self._clear()

    def _clear(self) -> None:
        if self._open:
            click.echo("", err=True)
        if self._passing:
            click.echo("\r\x1b[K", err=True, nl=False)
        self._open, self._passing = "", False


class DeployView:
    """numbered: steps are counted, as in `mini deploy`. thing: what is started ("container", "process")."""

    def __init__(self, context: Context, app: str, *, numbered: bool, thing: str) -> None:
        self.lines = Lines()
        self._context = context
        self._app = app
        self._numbered = numbered
        self._thing = thing
        self._held: list[str] | None = None
        self._shown: deque[str] = deque(maxlen=500)
        self._done = False

    def event(self, event: api.DeployEvent) -> None:
        if event.kind == "step":
            self._step(event.text, str(event.data.get("phase", "")))
        elif event.kind == "progress":
            self.lines.passing(INDENT + event.text)
        elif event.kind == "warning":
            self._show(INDENT + self._context.style("Warning: ", fg="yellow") + event.text)
        elif event.kind == "info" and event.text.startswith("healthy after "):
            self._healthy(event.text)
        elif event.kind == "info" and event.text.startswith("Waiting for deploy "):
            self.lines.line(event.text)
        elif event.kind == "info" and event.text.startswith("Unchanged"):
            self._held = [line for line in self._held or [] if "Warning" in line]  # the last line says the rest
        elif event.kind in ("output", "info"):
            self._shown.append(event.text)
            self._show((INDENT + event.text).rstrip())

    def has_shown(self, tail: tuple[str, ...]) -> bool:
        """Whether the user has just read these lines."""
        return all(line in self._shown for line in tail)

    def _step(self, step: str, phase: str) -> None:
        if (step, phase) == ("planned", "begin"):
            self._held = []  # what is said of the plan reads better below the next heading
        elif (step, phase) == ("built", "begin"):
            self.lines.line(self._heading(2, f'Building image "app-{self._app}"...'))
            self._release()
        elif (step, phase) == ("starting", "begin"):
            self._release()
            self.lines.begin(self._heading(3, f"Starting {self._thing}..."))
        elif (step, phase) == ("healthy", "end"):
            self._healthy()
        elif (step, phase) == ("drained", "begin"):
            self.lines.passing(f"{INDENT}Open requests of the old release are finished...")

    def _healthy(self, text: str = "") -> None:
        """Said once, by the server, which says nothing where nothing had to start."""
        if not self._done:
            self.lines.end(f"Done.  ({text})" if text else "Done.")
        self._done = True

    def _heading(self, number: int, text: str) -> str:
        return f"[{number}/3] {text}" if self._numbered else text

    def _show(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
        else:
            self.lines.line(text)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for text in held:
            self.lines.line(text)

    def close(self) -> None:
        self._release()
        self.lines.close()


def follow(
    context: Context,
    info: api.DeployInfo | None,
    *,
    done: str,
    nothing: str = "Nothing to change.",
    detach: bool = False,
    numbered: bool = False,
    after: int = 0,
) -> None:
    """Shows a deploy to its end and what came of it; ends the command with 1 where it failed.

    info: what the server answered; None where nothing had to be deployed. done: what to say in the end, with
    `{version}` for the release.
    """
    if info is None:
        context.data(None, "")
        context.info(nothing)
        return
    if detach:
        context.data(info, "")
        begun = f"waits for deploy {info.waiting_for}" if info.waiting_for else "started"
        context.info(f"Deploy {info.id} {begun}. Follow: mini deploys attach {info.id}")
        return
    try:
        app = context.client().get(f"/v1/apps/{segment(info.app)}", api.AppInfo)
        view = DeployView(context, info.app, numbered=numbered, thing=_thing(context, app))
        lookup = Lookup(info.url)
        ended = _watch(context, info, view, after)
    except KeyboardInterrupt:
        context.info(f"Deploy {info.id} goes on. Follow: mini deploys attach {info.id}")
        raise click.exceptions.Exit(130) from None
    except Unavailable as error:
        error.hint = f"{error.hint.rstrip('.')}, then: mini deploys show {info.id}"
        raise
    if context.json:
        context.document(ended)
    if ended.state in ("failed", "cancelled"):
        _show_failure(context, ended, app, view)
    _show_success(context, ended, app, done, nothing, lookup)


def _watch(context: Context, info: api.DeployInfo, view: DeployView, after: int) -> api.DeployInfo:
    """Shows a deploy's events; how it ended."""
    before, context.say = context.say, view.lines.line
    try:
        for event in follow_deploy(context.client(), info.id, say=view.lines.passing, after=after):
            view.event(event)
            if event.kind in LAST:
                return from_data(api.DeployInfo, event.data)
    finally:
        context.say = before
        view.close()
    return info


def _thing(context: Context, app: api.AppInfo) -> str:
    runtime = app.runtime or context.client().get("/v1/status", api.StatusInfo).runtime
    return "process" if runtime == "process" else "container"


def _show_failure(context: Context, info: api.DeployInfo, before: api.AppInfo, view: DeployView) -> NoReturn:
    for line in failure_lines(context, info, seen=view):
        context.info(line)
    context.info(f"Look at it again: mini deploys show {info.id}")
    if before.release is not None:
        context.info(f"{before.name} goes on with v{before.release}.")
    raise click.exceptions.Exit(1)


def _show_success(
    context: Context, info: api.DeployInfo, before: api.AppInfo, done: str, nothing: str, lookup: Lookup
) -> None:
    if info.unchanged and info.kind == "deploy":
        context.info(f"Unchanged: {context.named(info.app)} runs this source with this configuration already.")
    elif info.unchanged:
        context.info(nothing)
    elif done:
        context.info(done.format(version=f"v{info.release}" if info.release else "the release"))
    note = ""
    if info.kind != "deploy" or before.state in SILENT:  # a deploy makes no app silent
        app = context.client().get(f"/v1/apps/{segment(info.app)}", api.AppInfo)
        note = why_silent(context, app) if app.state in SILENT else ""
    if note:
        context.info(note)
    if not context.json and info.kind == "deploy":
        show_url(context, info, lookup, live=not note)


def why_silent(context: Context, app: api.AppInfo) -> str:
    """Why the app answers no request although nothing is wrong, and what changes that; "" where it does."""
    named = context.named(app.name)
    if app.state == "maintenance":
        return f"{named} is in maintenance: its visitors are told so until mini maintenance off -a {app.name}"
    if app.state == "stopped":
        return f"{named} is stopped. Start it: mini start {app.name}"
    if app.state == "asleep":
        return f"{named} is asleep: the next request wakes it."
    if app.formation.get("web") == 0:
        return f"{named} is scaled to web=0. Start it: mini scale web=1 -a {app.name}"
    return ""


def without_deploy(context: Context, name: str, done: str, unchanged: str) -> str:
    """What to say of a change for which nothing was deployed: it waits for the app to run, or it was none."""
    app = context.client().get(f"/v1/apps/{segment(name)}", api.AppInfo)
    if app.release is None:
        return f"{done}. The first deploy uses it."
    return f"{done}. {why_silent(context, app)}" if app.state == "stopped" else f"{unchanged}."


def show_url(context: Context, info: api.DeployInfo, lookup: Lookup, *, live: bool = True) -> None:
    """The last line of a deploy, on stdout."""
    if not info.url:
        context.info(f"Deployed {context.named(info.app)}.")
        return
    text = f"Your app {'is live' if live else 'will be'} at: {info.url}"
    if not live:
        click.echo(text)
        return
    with contextlib.suppress(UnicodeEncodeError, LookupError):
        "🚀".encode(sys.stdout.encoding or "utf-8")
        text = f"🚀 {text}"
    click.echo(text)
    for other in [url for url in info.urls if url != info.url and ".nip.io" not in url]:
        click.echo(f"   Also at: {other}")
    if alternative := lookup.alternative(info.url):
        click.echo(f"   Where *.localhost does not resolve: {alternative}")


class Lookup:
    """Asks this machine for the address of a URL's host while other things go on: its answer may take seconds."""

    def __init__(self, url: str) -> None:
        self._url, self._found = url, ""
        self._thread = threading.Thread(target=self._ask, name="lookup", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        self._found = without_localhost(self._url)

    def alternative(self, url: str) -> str:
        """See `without_localhost`; "" while there is no answer."""
        if url != self._url:
            return without_localhost(url)
        self._thread.join(LOOKUP_PATIENCE)
        return self._found


def without_localhost(url: str) -> str:
    """The wildcard DNS name that stands for a `*.localhost` one, where this machine does not resolve that; or ""."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.endswith(".localhost"):
        return ""
    try:
        socket.getaddrinfo(host, parts.port or 80)
    except OSError:
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{host.removesuffix('.localhost')}.127.0.0.1.nip.io{port}"
    return ""


def failure_lines(context: Context, info: api.DeployInfo, seen: DeployView | None = None) -> Iterator[str]:
    """Which step failed and why, the last lines of its log unless the user has just seen them, and what to do."""
    error = context.style("Error: ", fg="red", bold=True)
    failure = info.failure
    if info.state == "cancelled":
        how = without_stop(failure.message) if failure else "Cancelled"
        yield f"{error}Deploy {info.id} was {how[0].lower()}{how[1:]}"
        return
    if failure is None:
        yield f"{error}Deploy {info.id} failed"
        return
    step = failure.step or info.step
    said = failure.message.startswith(step) or (step == "received" and info.kind != "deploy")
    during = "" if said else f" ({STEP_WORDS.get(step, step)})"
    yield f"{error}Deploy {info.id} failed{during}: {without_stop(failure.message)}"
    if failure.tail and not (seen and seen.has_shown(failure.tail)):
        yield from ((INDENT + line).rstrip() for line in failure.tail)
    if failure.hint:
        yield failure.hint
