"""The entry point of `mini`. Only the command that was typed is imported; help comes from the table alone."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mini_core.cli.context import Context

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("platform", "Start the local platform."),
    "down": ("platform", "Stop the local platform."),
    "status": ("status", "Show the platform, its apps and problems."),
    "doctor": ("status", "Find what is wrong and say what mends it."),
    "deploy": ("deploy", "Deploy a folder to a live URL."),
    "deploys": ("deploys", "List, show, attach to and cancel deploys."),
    "plan": ("plan", "Show how a folder would be built and run."),
    "init": ("plan", "Write a mini.toml from what was detected."),
    "eject": ("plan", "Write a Dockerfile and a compose.yaml."),
    "buildpacks": ("plugins", "List the buildpacks."),
    "plugins": ("plugins", "List the plugins."),
    "backup": ("backup", "Write the whole platform into one file."),
    "restore": ("backup", "Make the platform the one in a backup."),
    "open": ("apps", "Open an app in the browser."),
    "apps": ("apps", "List, show, create, rename and destroy apps."),
    "ps": ("processes", "Show an app's processes."),
    "scale": ("processes", "Set how many processes run, and their limits."),
    "restart": ("processes", "Start an app's processes anew."),
    "stop": ("processes", "Stop an app and keep it."),
    "start": ("processes", "Start a stopped app."),
    "releases": ("releases", "List an app's releases."),
    "rollback": ("releases", "Run an earlier release again."),
    "env": ("env", "Set and show an app's environment."),
    "logs": ("logs", "Show what an app, its builds and the router wrote."),
    "run": ("oneoff", "Run a command in a new process of an app."),
    "exec": ("oneoff", "Run a command in a running process of an app."),
    "events": ("logs", "Show who did what, and what happened."),
    "domains": ("domains", "List, add and remove an app's domains."),
    "volumes": ("volumes", "List, add, remove and export an app's volumes."),
    "maintenance": ("domains", "Answer with a page that says the app is being worked on."),
    "config": ("config", "Choose the server and set its key."),
    "keys": ("keys", "List, create and revoke a server's keys."),
    "server": ("server", "Install and upgrade a server."),
    "completion": ("about", "Print a shell's completion script."),
    "version": ("about", "Show the versions of client and server."),
}
"""Name → the module of `mini_core.cli` that has it, and its line in the help."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Deploy": ("deploy", "deploys", "plan", "init", "eject", "open"),
    "Apps": ("apps", "ps", "scale", "restart", "stop", "start", "releases", "rollback", "env", "logs", "run", "exec"),
    "More of an app": ("domains", "volumes", "maintenance", "events"),
    "Platform": ("up", "down", "status", "doctor", "backup", "restore", "plugins", "buildpacks"),
    "Servers": ("config", "keys", "server", "completion", "version"),
}


class Mini(click.Group):
    """Commands from the table, then those of plugins."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *_plugin_commands()})

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"mini_core.cli.{COMMANDS[cmd_name][0]}")
            command: click.Command = getattr(module, "exec_" if cmd_name == "exec" else cmd_name)
            return command
        from mini_core.cli.external import load_command

        return load_command(cmd_name, COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(name, self.list_commands(ctx), 1)
            ctx.fail(f"No such command: {name}.{f' Did you mean {close[0]}?' if close else ''}")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        plugins = _plugin_commands()
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])
        if plugins:
            with formatter.section("Plugins"):
                formatter.write_dl([(name, f"From {origin}.") for name, origin in sorted(plugins.items())])


def _plugin_commands() -> dict[str, str]:
    from mini_core.cli.external import command_names

    return command_names(COMMANDS)


def _show_version(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        from mini_core import __version__

        click.echo(f"mini {__version__}")
        ctx.exit()


@click.group(
    cls=Mini,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run web apps on a machine you own: mini deploy ."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    elif ctx.obj is None:
        ctx.obj = _context()


def _context() -> Context:
    from mini_core.cli.context import Context

    return Context()


def _width() -> int | None:
    """What click would find out with modules that take time to import. COLUMNS wins, as everywhere."""
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdigit() else os.get_terminal_size(1).columns
    except OSError:
        width = 80
    return max(min(width, 100) - 2, 50)


def main() -> None:
    """The console script. Exits with 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C."""
    gc.set_threshold(50_000)  # the default looks for garbage dozens of times while modules are loaded
    code = run(sys.argv[1:])
    gc.freeze()  # the process ends: no last look through all that was imported for what could be freed
    sys.exit(code)


def run(arguments: list[str], context: Context | None = None) -> int:
    """Runs one command and returns the exit code; what is foreseen is shown in two lines."""
    try:
        with cli.make_context("mini", arguments, obj=context, terminal_width=_width()) as ctx:
            try:
                cli.invoke(ctx)
            finally:
                if ctx.obj is not None:
                    ctx.obj.close()
            sys.stdout.flush()
            return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.UsageError as error:
        return _show_usage(error)
    except (click.Abort, EOFError, KeyboardInterrupt):
        click.echo("", err=True)
        return 130
    except BrokenPipeError:  # whoever read the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        return _show(error)


def _show(error: Exception) -> int:
    from mini_core.errors import MiniError

    if isinstance(error, click.ClickException):
        error = MiniError(error.format_message())
    context = _context()
    return context.show_error(error) if isinstance(error, MiniError) else context.show_bug(error)


def _show_usage(error: click.UsageError) -> int:
    click.echo(f"Error: {error.format_message()}", err=True)
    command = error.ctx.command_path if error.ctx else "mini"
    click.echo(f"See: {command} --help", err=True)
    return 2


if __name__ == "__main__":
    main()
