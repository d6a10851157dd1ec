"""`mini domains` and `mini maintenance`."""

from __future__ import annotations

import click

from mini_core import api
from mini_core.cli.base import DefaultGroup, on_app, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import table
from mini_core.client.http import segment


@click.group(cls=DefaultGroup)
def domains() -> None:
    """Lists, adds and removes an app's domains."""


@domains.command("list")
@click.argument("app", default="")
@on_app
@pass_context
def list_(context: Context, app: str) -> None:
    """Lists the domains under which an app answers."""
    path = f"/v1/apps/{segment(context.app(app))}/domains"
    found = context.client().get(path, tuple[api.DomainInfo, ...])
    head = ("domain", "url", "kind", "dns", "note")
    context.data(found, table(head, ((item.domain, item.url, item.kind, item.dns, item.note) for item in found)))


@domains.command()
@click.argument("domain")
@on_app
@pass_context
def add(context: Context, domain: str) -> None:
    """Lets an app answer at DOMAIN, and says which DNS record that needs."""
    name = context.app()
    path = f"/v1/apps/{segment(name)}/domains"
    found = context.client().post(path, api.DomainChange(domain=domain), api.DomainInfo)
    context.data(found, "")
    context.info(f"Added {found.domain} to {context.named(name)}: {found.url}")
    for text in (f"DNS record to make: {found.dns}" if found.dns else "", found.note):
        if text:
            context.info(text)


@domains.command()
@click.argument("domain")
@on_app
@pass_context
def remove(context: Context, domain: str) -> None:
    """Stops answering at DOMAIN."""
    name = context.app()
    context.client().delete(f"/v1/apps/{segment(name)}/domains/{segment(domain)}")
    context.info(f"Removed {domain} from {context.named(name)}.")


@click.command()
@click.argument("switch", default="", type=click.Choice(["on", "off", ""]), metavar="[on|off]")
@on_app
@pass_context
def maintenance(context: Context, switch: str) -> None:
    """Answers requests with a page that says the app is being worked on, while on. Without a word: shows which."""
    name = context.app()
    if not switch:
        state = context.client().get(f"/v1/apps/{segment(name)}", api.AppInfo).state
        switch = "on" if state == "maintenance" else "off"
        context.data({"on": switch == "on"}, switch)
        return
    context.client().put(f"/v1/apps/{segment(name)}/maintenance", api.Toggle(on=switch == "on"))
    context.info(f"Maintenance of {context.named(name)} is {switch}.")
