"""`mini php`: a command of the plugin's own."""

from __future__ import annotations

import click
from mini_core.interfaces import CommandContext


@click.group()
def php() -> None:
    """About the PHP apps of this server."""


@php.command()
@click.argument("app", required=False)
@click.pass_obj
def version(context: CommandContext, app: str | None) -> None:
    """Says which image the app's current release runs on."""
    name = context.app(app)
    release = context.client().get(f"/v1/apps/{name}/releases")[0]
    context.data(release, f"{name} v{release['version']}: {release['image']}")
