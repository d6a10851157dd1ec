"""`mini run` and `mini exec`."""

from __future__ import annotations

from typing import Any

import click

from mini_core import api
from mini_core.cli.base import APP, HOST, JSON, options, pass_context
from mini_core.cli.context import Context
from mini_core.client.http import segment
from mini_core.errors import MiniError, UsageError

NOT_FOUND = 127
"""A shell's exit code for a command that is not there."""

_settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_command = click.argument("command", nargs=-1, required=True, metavar="[--] COMMAND...", type=click.UNPROCESSED)
_env = click.option("-e", "--env", "variables", multiple=True, metavar="KEY=VALUE", help="Set it for the command.")
_no_tty = click.option("--no-tty", is_flag=True, help="Give it no terminal, even where there is one.")


@click.command(context_settings=_settings)
@_command
@click.option("--detach", is_flag=True, help="Leave it running; its output goes to the app's log.")
@_env
@_no_tty
@options(APP, HOST, JSON)
@pass_context
def run(context: Context, command: tuple[str, ...], detach: bool, variables: tuple[str, ...], no_tty: bool) -> None:
    """Runs COMMAND in a new process of the app's current release. The exit code is the command's.

    A single COMMAND with spaces in it is a line for the shell.
    """
    name = context.app()
    path = f"/v1/apps/{segment(name)}/run"
    request = {"command": _argv(command), "env": _variables(variables)}
    if detach:
        started = context.client().post(f"{path}s", request, api.Started)
        context.data(started, "")
        context.info(f"Started {started.name} of {context.named(name)}.")
        context.info(f"Its output and its end: mini logs {name} --process {started.name} -f")
        return
    _hold(context, path, request, no_tty)


@click.command("exec", context_settings=_settings)
@_command
@click.option("--process", "instance", default="", metavar="NAME", help="Run it in this process, such as web.2.")
@_env
@_no_tty
@options(APP, HOST)
@pass_context
def exec_(context: Context, command: tuple[str, ...], instance: str, variables: tuple[str, ...], no_tty: bool) -> None:
    """Runs COMMAND in a running process of the app. The exit code is the command's."""
    path = f"/v1/apps/{segment(context.app())}/exec"
    request = {"command": _argv(command), "env": _variables(variables), "instance": instance}
    _hold(context, path, request, no_tty)


def _hold(context: Context, path: str, request: dict[str, Any], no_tty: bool) -> None:
    from mini_core.client.oneoff import has_terminal, run_command

    try:
        code = run_command(context.client(), path, request, tty=has_terminal() and not no_tty)
    except MiniError as error:
        if error.code == "command-not-found":
            error.exit_status = NOT_FOUND
        raise
    if code:
        raise click.exceptions.Exit(code)


def _argv(command: tuple[str, ...]) -> tuple[str, ...]:
    return ("sh", "-c", *command) if len(command) == 1 and " " in command[0].strip() else command


def _variables(texts: tuple[str, ...]) -> dict[str, str]:
    found = dict(text.partition("=")[::2] for text in texts)
    if any("=" not in text for text in texts):
        raise UsageError("Expected KEY=VALUE for --env", hint="For example: mini run -e DEBUG=1 -- COMMAND")
    return found
