"""`mini env`: an app's environment."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mini_core import api
from mini_core.cli.base import DefaultGroup, on_app, pass_context
from mini_core.cli.context import Context
from mini_core.cli.view import follow
from mini_core.client.envfile import check_key, parse_env, read_env_file, render_env
from mini_core.client.http import segment
from mini_core.errors import ConfigError, NotFound, UsageError

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
    later = " They are used by the next deploy." if change.build else ""
    follow(context, info, done=f"{done}; this is {{version}}.", nothing=f"{done}.{later}", detach=detach)


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
    """Sets variables. KEY alone asks for its value, or reads it from stdin."""
    if not assignments and not files:
        raise UsageError("Nothing to set", hint="For example: mini env set KEY=VALUE")
    name = context.app()
    found = dict(_assignment(text) for text in assignments) | dict(_from_file(text) for text in files)
    if "PORT" in found:
        raise UsageError("PORT cannot be set: the platform gives each process its own", hint="Leave it out.")
    done = f"Set {', '.join(found)} for {context.named(name)}"
    _change(context, name, api.EnvChange(set=found, build=build), done, detach)


def _assignment(text: str) -> tuple[str, str]:
    key, given, value = text.partition("=")
    check_key(key)
    if given:
        return key, value
    if sys.stdin.isatty():
        return key, click.prompt(key, hide_input=True, err=True)
    return key, sys.stdin.read().removesuffix("\n")


def _from_file(text: str) -> tuple[str, str]:
    key, _, file = text.partition("=")
    try:
        return check_key(key), Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {file!r}: {error}", hint="Write it as KEY=FILE; the file is text.") from None


@env.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_build
@_detach
@on_app
@pass_context
def unset(context: Context, keys: tuple[str, ...], build: bool, detach: bool) -> None:
    """Removes variables."""
    name = context.app()
    change = api.EnvChange(unset=keys, build=build)
    _change(context, name, change, f"Unset {', '.join(keys)} for {context.named(name)}", detach)


@env.command("import")
@click.argument("file", metavar="FILE|-")
@_build
@_detach
@on_app
@pass_context
def import_(context: Context, file: str, build: bool, detach: bool) -> None:
    """Sets what a .env or JSON FILE sets, PORT excepted; - is stdin."""
    name = context.app()
    found = parse_env(sys.stdin.read(), "stdin") if file == "-" else read_env_file(Path(file))
    if not found:
        raise ConfigError(f"{'stdin' if file == '-' else file} sets nothing", hint="It has lines such as KEY=VALUE.")
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
