"""`mini apps` and `mini open`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mini_core import api
from mini_core.cli.base import HOST, JSON, YES, DefaultGroup, on_app, on_server, options, pass_context
from mini_core.cli.context import Context, check_app
from mini_core.cli.output import moment, seconds
from mini_core.cli.status import app_table
from mini_core.client.http import segment


@click.group(cls=DefaultGroup)
def apps() -> None:
    """Lists, shows, creates, renames and destroys apps."""


@apps.command("list")
@on_server
@pass_context
def list_(context: Context) -> None:
    """Lists all apps."""
    found = context.client().get("/v1/apps", tuple[api.AppInfo, ...])
    context.data(found, app_table(found))
    if not found:
        context.info("No apps yet. Make one: mini deploy .")


@apps.command()
@click.argument("app", default="")
@on_app
@pass_context
def info(context: Context, app: str) -> None:
    """Shows one app."""
    found = context.client().get(f"/v1/apps/{segment(context.app(app))}", api.AppInfo)
    context.data(found, list(_lines(found)))


def _lines(app: api.AppInfo) -> Iterator[str]:
    rows = {
        "App": app.name,
        "State": f"{app.state} ({app.note})" if app.note else app.state,
        "Release": f"v{app.release}" if app.release else "none",
        "URL": " ".join(app.urls or (app.url,)),
        "Domains": " ".join(app.domains),
        "Buildpack": app.buildpack,
        "Runtime": app.runtime,
        "Processes": " ".join(f"{name}={count}" for name, count in sorted(app.formation.items())),
        "Sleeps": f"after {seconds(app.idle)} without a request" if app.idle else "never",
        "Created": moment(app.created_at),
        "Deployed": moment(app.deployed_at) if app.deployed_at else "never",
    }
    yield from (f"{name + ':':<11} {text}" for name, text in rows.items() if text)


@apps.command()
@click.argument("name", default="")
@on_server
@pass_context
def create(context: Context, name: str) -> None:
    """Makes an app without deploying anything. Without NAME it gets a friendly one."""
    found = context.client(first=True).post("/v1/apps", api.NewApp(name=check_app(name) if name else ""), api.AppInfo)
    context.data(found, found.name)
    context.info(f"Created {context.named(found.name)}. Deploy to it: mini deploy . {found.name}")


@apps.command()
@click.argument("old")
@click.argument("new")
@options(HOST, JSON)
@pass_context
def rename(context: Context, old: str, new: str) -> None:
    """Gives the app OLD the name NEW; its URL changes with it."""
    from mini_core.client.config import rename_links

    path = f"/v1/apps/{segment(check_app(old))}/rename"
    found = context.client().post(path, api.Rename(name=check_app(new)), api.AppInfo)
    rename_links(context.address().text, old, new)
    context.data(found, "")
    context.info(f"Renamed {old} to {context.named(new)}. It answers at {found.url}")


@apps.command()
@click.argument("name")
@options(HOST, YES)
@pass_context
def destroy(context: Context, name: str) -> None:
    """Removes an app with its releases, volumes and logs."""
    from mini_core.client.config import rename_links

    client = context.client()
    client.get(f"/v1/apps/{segment(check_app(name))}")
    context.confirm(f"Destroy {context.named(name)} with its releases, volumes and logs?")
    client.delete(f"/v1/apps/{segment(name)}")
    rename_links(context.address().text, name, "")
    context.info(f"Destroyed {context.named(name)}.")


@click.command("open")
@click.argument("app", default="")
@on_app
@pass_context
def open(context: Context, app: str) -> None:  # noqa: A001 - the command's name
    """Opens an app in the browser, and prints its URL."""
    import webbrowser

    from mini_core.cli.view import without_localhost

    found = context.client().get(f"/v1/apps/{segment(context.app(app))}", api.AppInfo)
    url = without_localhost(found.url) or found.url
    context.data({"url": url}, url)
    if not webbrowser.open(url):
        context.info("No browser found here: open the URL by hand.")
