"""`mini run` and `mini exec`."""

from __future__ import annotations

import click

from mini_core.cli.base import on_app, pass_context
from mini_core.cli.context import Context
from mini_core.errors import Unavailable


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, metavar="[--] COMMAND...", type=click.UNPROCESSED)
@on_app
@pass_context
def run(context: Context, command: tuple[str, ...]) -> None:
    """Runs COMMAND in a new process of the app's current release."""
    raise Unavailable(f"Not yet: {command[0]}")


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, metavar="[--] COMMAND...", type=click.UNPROCESSED)
@on_app
@pass_context
def exec_(context: Context, command: tuple[str, ...]) -> None:
    """Runs COMMAND in a running process of the app."""
    raise Unavailable(f"Not yet: {command[0]}")
