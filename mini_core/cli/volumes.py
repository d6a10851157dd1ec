"""`mini volumes`: storage that outlives releases."""

from __future__ import annotations

from pathlib import Path

import click

from mini_core import api
from mini_core.cli.base import YES, DefaultGroup, on_app, options, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import table
from mini_core.cli.view import follow
from mini_core.client.http import segment
from mini_core.quantities import size

_detach = click.option("--detach", is_flag=True, help="Do not wait for the end.")


@click.group(cls=DefaultGroup)
def volumes() -> None:
    """Lists, adds, removes and exports an app's volumes."""


@volumes.command("list")
@click.argument("app", default="")
@on_app
@pass_context
def list_(context: Context, app: str) -> None:
    """Lists the volumes and where the app sees them."""
    name = context.app(app)
    found = context.client().get(f"/v1/apps/{segment(name)}/volumes", tuple[api.VolumeChange, ...])
    context.data(found, table(("target", "name"), ((item.target, item.name) for item in found)))
    if not found:
        context.info(f"No volumes of {context.named(name)}. Add one: mini volumes add /data")


@volumes.command()
@click.argument("target", metavar="PATH")
@click.option("--name", "volume", default="", help="Its name; by default from the path.")
@_detach
@on_app
@pass_context
def add(context: Context, target: str, volume: str, detach: bool) -> None:
    """Keeps what the app writes to PATH (absolute) across releases."""
    name = context.app()
    change = api.VolumeChange(target=target, name=volume)
    info = context.client().post(f"/v1/apps/{segment(name)}/volumes", change, api.DeployInfo)
    done = f"Added a volume at {target} to {context.named(name)}."
    follow(context, info, done=done, nothing=done, detach=detach)


@volumes.command()
@click.argument("target", metavar="PATH")
@_detach
@on_app
@options(YES)
@pass_context
def remove(context: Context, target: str, detach: bool) -> None:
    """Removes the volume at PATH with its data."""
    name = context.app()
    context.confirm(f"Remove the volume at {target} of {context.named(name)} with all its data?")
    info = context.client().delete(f"/v1/apps/{segment(name)}/volumes", api.DeployInfo, target=target)
    done = f"Removed the volume at {target} of {context.named(name)}."
    follow(context, info, done=done, nothing=done, detach=detach)


@volumes.command()
@click.argument("target", metavar="PATH")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The tar to write; by default APP-NAME.tar.")
@on_app
@options(YES)
@pass_context
def export(context: Context, target: str, output: Path | None) -> None:
    """Writes the files of the volume at PATH into a tar. The app goes on meanwhile."""
    from mini_core.cli.backup import write

    name = context.app()
    file = output or Path(f"{name}-{target.strip('/').replace('/', '-')}.tar")
    count = write(context, file, f"/v1/apps/{segment(name)}/volumes/export", target=target)
    context.info(f"Wrote the volume at {target} of {context.named(name)} to {file} ({size(count)}).")
