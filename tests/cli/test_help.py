"""Every command explains itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest

from mini_core.cli.main import COMMANDS, SECTIONS, cli
from tests.cli.conftest import Mini


def commands() -> Iterator[tuple[str, ...]]:
    for name in COMMANDS:
        yield from below((name,), command(name))


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def below(path: tuple[str, ...], item: click.Command) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(item, click.Group):
        for name, inner in item.commands.items():
            yield from below((*path, name), inner)


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_a_command_has_a_help_text(mini: Mini, path: tuple[str, ...]):
    result = mini(*path, "--help")
    assert result.out.startswith(f"Usage: mini {' '.join(path)}")
    assert result.err == ""
    item = command(path[0])
    for name in path[1:]:
        assert isinstance(item, click.Group)
        item = item.commands[name]
    assert item.help and item.help.strip().splitlines()[0]
    for parameter in item.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and parameter.help.endswith("."), parameter.name


def test_the_overview_lists_every_command_once():
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
    for name, (module, line) in COMMANDS.items():
        importlib.import_module(f"mini_core.cli.{module}")
        assert line.endswith(".") and len(line) < 64, name


def test_mini_alone_shows_the_overview(mini: Mini):
    assert mini().out == mini("--help").out
    for name, (_, line) in COMMANDS.items():
        assert any(text.split()[:1] == [name] and line in text for text in mini().out.splitlines())


def test_every_command_that_prints_data_takes_json():
    silent = {
        ("up",),
        ("run",),
        ("exec",),
        ("down",),
        ("init",),
        ("eject",),
        ("completion",),
        ("apps", "destroy"),
        ("config", "set-host"),
        ("config", "set-api-key"),
        ("keys", "revoke"),
    }
    for path in commands():
        item = command(path[0])
        for name in path[1:]:
            assert isinstance(item, click.Group)
            item = item.commands[name]
        if isinstance(item, click.Group) or path in silent or path[0] == "server":
            continue
        assert any("--json" in parameter.opts for parameter in item.params), path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(mini: Mini, shell: str):
    assert "_MINI_COMPLETE" in mini("completion", shell).out
