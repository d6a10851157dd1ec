"""`mini plugins` and `mini buildpacks`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from mini_core import api
from mini_core.cli.base import DefaultGroup, on_server, pass_context
from mini_core.cli.context import Context
from mini_core.cli.main import COMMANDS
from mini_core.cli.output import table


@click.group(cls=DefaultGroup)
def plugins() -> None:
    """Lists the plugins."""


@plugins.command("list")
@click.option("--remote", is_flag=True, help="Those of the server instead of those installed here.")
@on_server
@pass_context
def list_plugins(context: Context, remote: bool) -> None:
    """Lists all plugins: version, hooks, where they come from, and why one is broken."""
    found = _asked(context) if remote or not context.address().is_local else _installed()
    context.data(found, _table(found))


def _asked(context: Context) -> tuple[api.PluginInfo, ...]:
    return context.client().get("/v1/plugins", tuple[api.PluginInfo, ...])


def _installed() -> tuple[api.PluginInfo, ...]:
    from mini_core.paths import find_paths
    from mini_core.plugins import find_commands, load_plugins
    from mini_core.settings import load_settings

    settings = load_settings(find_paths().settings)
    good, broken = find_commands(COMMANDS)
    infos = load_plugins(disabled=settings.disabled, required=settings.required).infos()
    known = tuple(_with_commands(info, good) for info in infos)
    return (*known, *broken)


def _with_commands(info: api.PluginInfo, commands: object) -> api.PluginInfo:
    from importlib.metadata import EntryPoint

    from mini_core.types import replace

    assert isinstance(commands, dict)
    own = [
        name
        for name, point in commands.items()
        if isinstance(point, EntryPoint) and point.dist is not None and point.dist.name == info.origin
    ]
    return replace(info, commands=tuple(own)) if own else info


def _table(found: Iterable[api.PluginInfo]) -> list[str]:
    items = list(found)
    lines = table(
        ("plugin", "version", "state", "from", "hooks", "commands"),
        (
            (
                info.name,
                info.version,
                info.state,
                info.origin,
                " ".join(hook.removeprefix("mini_") for hook in info.hooks),
                " ".join(info.commands),
            )
            for info in items
        ),
    )
    return lines + [f"{info.name}: {info.reason}" for info in items if info.reason]


@click.group(cls=DefaultGroup)
def buildpacks() -> None:
    """Lists the buildpacks."""


@buildpacks.command("list")
@click.option("--remote", is_flag=True, help="Those of the server instead of those installed here.")
@on_server
@pass_context
def list_buildpacks(context: Context, remote: bool) -> None:
    """Lists all buildpacks and what they recognise."""
    if remote or not context.address().is_local:
        found = context.client().get("/v1/buildpacks", tuple[api.BuildpackInfo, ...])
    else:
        found = _buildpacks_here()
    head = ("buildpack", "looks for", "plugin", "version")
    context.data(found, table(head, ((item.name, item.description, item.plugin, item.version) for item in found)))


def _buildpacks_here() -> tuple[api.BuildpackInfo, ...]:
    from mini_core.hooks import Hooks
    from mini_core.plugins import load_plugins

    return Hooks(load_plugins()).buildpack_infos()
