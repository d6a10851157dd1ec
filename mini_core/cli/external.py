"""Commands of plugins: entry points in the group `mini.commands`.

For the help their names are read straight from the entry_points.txt files of what is installed, because importing
importlib.metadata would take longer than all the rest. Loading one goes through the plugin machinery.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any

import click

HEADER = "[mini.commands]"


def command_names(reserved: Collection[str]) -> dict[str, str]:
    """Name → the distribution that it comes from. A name that mini or two distributions have is left out: it is
    listed as broken by `mini plugins list`."""
    found: dict[str, set[str]] = {}
    for folder in dict.fromkeys(sys.path):
        for distribution, text in _entry_points(folder or "."):
            for name in _names(text):
                found.setdefault(name, set()).add(distribution)
    return {name: min(origins) for name, origins in found.items() if name not in reserved and len(origins) == 1}


def _entry_points(folder: str) -> list[tuple[str, str]]:
    """(distribution, text) of each entry_points.txt in a folder of sys.path that mentions the group."""
    found = []
    try:
        names = [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info"))]  # noqa: PTH208 - speed
    except OSError:
        return []
    for name in names:
        try:
            with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                text = file.read()
        except (OSError, UnicodeDecodeError):
            continue
        if HEADER in text:
            found.append((name.partition("-")[0].rpartition(".egg")[0] or name.partition("-")[0], text))
    return found


def _names(text: str) -> list[str]:
    section = text.partition(HEADER)[2].partition("\n[")[0]
    return [line.partition("=")[0].strip() for line in section.splitlines() if "=" in line and line[:1] not in "#;"]


def load_command(name: str, reserved: Collection[str]) -> click.Command | None:
    """The command of a plugin, or None where there is none of that name. Raises MiniError where it is broken."""
    from mini_core.errors import MiniError
    from mini_core.plugins import find_commands

    points, broken = find_commands(reserved)
    for info in broken:
        if info.name == name:
            raise MiniError(f"The command {name} cannot be used: {info.reason}", hint="See: mini plugins list")
    if name not in points:
        return None
    try:
        command: Any = points[name].load()
    except Exception as error:
        raise MiniError(
            f"The command {name} cannot be loaded: {type(error).__name__}: {error}", hint="See: mini plugins list"
        ) from error
    if not isinstance(command, click.Command):
        raise MiniError(f"The command {name} is not a click command", hint=f"It comes from {points[name].value}.")
    _add_options(command)
    return command


def _add_options(command: click.Command) -> None:
    """Every command of a plugin understands the options that choose server, app and output."""
    from mini_core.cli.base import APP, COMMON

    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_options(inner)
        return
    taken = {word for parameter in command.params for word in parameter.opts}
    for make in (APP, *COMMON):
        option = make()
        if not taken & set(option.opts):
            command.params.append(option)
