"""`mini env`: an app's environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from mini_core import api
from mini_core.cli.base import DefaultGroup, on_app, pass_context
from mini_core.cli.context import Context
from mini_core.cli.view import follow, without_deploy
from mini_core.client.envfile import OWN, check_key, parse_env, read_env_file, render_env, text_of
from mini_core.client.http import segment
from mini_core.errors import ConfigError, NotFound, UsageError

BAKED_IN = ("VITE_", "NEXT_PUBLIC_", "REACT_APP_", "GATSBY_")
"""Beginnings of variables that these frameworks write into the pages which they build."""

_build = click.option("--build", is_flag=True, help="Variables that only the build sees.")
_detach = click.option("--detach", is_flag=True, help="Do not wait for the end.")


@click.group(cls=DefaultGroup)
def env() -> None:
    """Sets and shows an app's environment. A change restarts the app."""


def _get(context: Context, app: str, build: bool, reveal: bool) -> dict[str, str]:
    path = f"/v1/apps/{segment(app)}/env"
    return context.client().get(path, dict[str, str], build=build, reveal=reveal)


def _change(context: Context, app: str, change: api.EnvChange, done: str, detach: bool) -> None:
    info = context.client().patch(f"/v1/apps/{segment(app)}/env", change, api.DeployInfo)
    nothing = f"{done}."
    if (baked := [name for name in change.set if name.startswith(BAKED_IN)]) and not change.build:
        told = " ".join(f"{name}=…" for name in baked)
        context.warn(f"The build does not see {', '.join(baked)}. For that: mini env set --build {told} -a {app}")
    if change.build:
        nothing += " The next deploy uses it."
    elif info is None:
        nothing = without_deploy(
            context, app, done, f"Nothing to change: {context.named(app)} has these values already"
        )
    follow(context, info, done=f"{done}; this is {{version}}.", nothing=nothing, detach=detach)


def without_own(context: Context, found: dict[str, str]) -> dict[str, str]:
    """Without the variables that the platform sets, saying so."""
    if own := [name for name in OWN if name in found]:
        context.info(f"Left out: {', '.join(own)} (the platform sets {'it' if len(own) == 1 else 'them'})")
    return {name: item for name, item in found.items() if name not in OWN}


@env.command("list")
@click.argument("app", default="")
@_build
@click.option("--reveal", is_flag=True, help="Show the values.")
@on_app
@pass_context
def list_(context: Context, app: str, build: bool, reveal: bool) -> None:
    """Lists the variables, their values masked."""
    name = context.app(app)
    found = _get(context, name, build, reveal)
    context.data(found, [f"{key}={item}" for key, item in sorted(found.items())])
    if not found:
        context.info(f"No variables of {context.named(name)}. Set one: mini env set KEY=VALUE")


@env.command()
@click.argument("key")
@_build
@on_app
@pass_context
def get(context: Context, key: str, build: bool) -> None:
    """Prints the value of KEY."""
    name = context.app()
    found = _get(context, name, build, True)
    if key not in found:
        raise NotFound(f"{key} is not set for {context.named(name)}", hint="Those that are: mini env list")
    context.data({key: found[key]}, "")
    if not context.json:
        click.echo(found[key])


@env.command("set")
@click.argument("assignments", nargs=-1, metavar="KEY=VALUE...")
@click.option("--from-file", "files", multiple=True, metavar="KEY=FILE", help="Take the value from a file.")
@_build
@_detach
@on_app
@pass_context
def set_(context: Context, assignments: tuple[str, ...], files: tuple[str, ...], build: bool, detach: bool) -> None:
    """Sets variables. KEY alone asks for its value, or reads it from stdin. The last line break of what is read from
    stdin or a file is left out."""
    if not assignments and not files:
        raise UsageError("Nothing to set", hint="For example: mini env set KEY=VALUE")
    name = context.app()
    found = dict(_assignment(text) for text in assignments) | dict(_from_file(text) for text in files)
    for key in (key for key, item in found.items() if item == "-"):
        context.info(f"{key} is a dash now. To read it from stdin: mini env set {key}")
    for own in OWN:
        if own in found:
            raise UsageError(f"{own} cannot be set: the platform gives each process its own", hint="Leave it out.")
    done = f"Set {', '.join(found)} for {context.named(name)}"
    _change(context, name, api.EnvChange(set=found, build=build), done, detach)


def _assignment(text: str) -> tuple[str, str]:
    key, given, value = text.partition("=")
    check_key(key)
    if given:
        return key, text_of(os.fsencode(value), f"the value of {key}")
    if sys.stdin.isatty():
        return key, click.prompt(key, hide_input=True, err=True)
    if not (data := sys.stdin.buffer.read()):
        raise UsageError(f"Nothing on stdin for {key}", hint=f"To set it empty: mini env set {key}=")
    return key, _one_value(data, "stdin")


def _from_file(text: str) -> tuple[str, str]:
    key, _, file = text.partition("=")
    check_key(key)
    try:
        return key, _one_value(Path(file).read_bytes(), file)
    except OSError as error:
        raise ConfigError(f"{file or text}: {error.strerror}", hint="Write it as KEY=FILE.") from None


def _one_value(data: bytes, name: str) -> str:
    text = text_of(data, name)
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


@env.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_build
@_detach
@on_app
@pass_context
def unset(context: Context, keys: tuple[str, ...], build: bool, detach: bool) -> None:
    """Removes variables."""
    name = context.app()
    known = _get(context, name, build, False)
    if unknown := [key for key in keys if key not in known]:
        context.info(f"Not set for {context.named(name)}: {', '.join(unknown)}")
    keys = tuple(key for key in keys if key in known)
    if not keys:
        context.data(None, "")
        return
    change = api.EnvChange(unset=keys, build=build)
    _change(context, name, change, f"Unset {', '.join(keys)} for {context.named(name)}", detach)


@env.command("import")
@click.argument("file", metavar="FILE|-")
@_build
@_detach
@on_app
@pass_context
def import_(context: Context, file: str, build: bool, detach: bool) -> None:
    """Sets what a .env or JSON FILE sets, PORT and HOST excepted; - is stdin."""
    name = context.app()
    stdin = file == "-"
    found = parse_env(text_of(sys.stdin.buffer.read(), "stdin"), "stdin") if stdin else read_env_file(Path(file))
    found = without_own(context, found)
    if not found:
        raise ConfigError(f"{'stdin' if stdin else file} sets nothing", hint="It has lines such as KEY=VALUE.")
    done = f"Set {', '.join(found)} for {context.named(name)}"
    _change(context, name, api.EnvChange(set=found, build=build), done, detach)


@env.command()
@click.argument("app", default="")
@_build
@on_app
@pass_context
def export(context: Context, app: str, build: bool) -> None:
    """Prints all variables with their values, as a .env file."""
    found = _get(context, context.app(app), build, True)
    context.data(found, render_env(found).removesuffix("\n"))
