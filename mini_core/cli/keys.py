"""`mini keys`: who may use the server."""

from __future__ import annotations

import click

from mini_core import api
from mini_core.cli import params
from mini_core.cli.base import HOST, YES, DefaultGroup, on_server, options, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import age, moment, table
from mini_core.client.http import segment


@click.group(cls=DefaultGroup)
def keys() -> None:
    """Lists, creates and revokes the server's keys."""


@keys.command("list")
@on_server
@pass_context
def list_(context: Context) -> None:
    """Lists the keys by name."""
    found = context.client().get("/v1/keys", tuple[api.KeyInfo, ...])
    rows = (
        (
            item.name,
            item.app or "all",
            f"{age(item.created_at)} ago",
            f"{age(item.used_at)} ago" if item.used_at else "never",
            moment(item.expires_at) if item.expires_at else "",
        )
        for item in found
    )
    context.data(found, table(("key", "app", "created", "used", "expires"), rows))


@keys.command()
@click.argument("name")
@click.option("--only", default="", metavar="APP", help="Let it reach this app only.")
@click.option("--expires-in", type=params.duration, help="Let it end after that long, such as 90d.")
@on_server
@pass_context
def create(context: Context, name: str, only: str, expires_in: float | None) -> None:
    """Makes a key and prints it, this once."""
    request = api.NewKey(name=name, app=only, expires_in=expires_in)
    found = context.client().post("/v1/keys", request, api.CreatedKey)
    context.data(found, found.key)
    context.info(f"This is the only time that the key {found.name} is shown.")


@keys.command()
@click.argument("name")
@options(HOST, YES)
@pass_context
def revoke(context: Context, name: str) -> None:
    """Ends a key at once."""
    context.confirm(f"Revoke the key {name} of {context.address().text}? Whoever uses it is locked out.")
    context.client().delete(f"/v1/keys/{segment(name)}")
    context.info(f"Revoked {name}.")
