"""`mini version` and `mini completion`."""

from __future__ import annotations

import sys

import click

from mini_core import __version__
from mini_core.cli.base import on_server, pass_context
from mini_core.cli.context import Context


@click.command()
@on_server
@pass_context
def version(context: Context) -> None:
    """Shows the versions of this client and of the server that it talks to."""
    server = _server_version(context)
    lines = [f"mini {__version__}", *([f"server {server} at {context.address().text}"] if server else [])]
    context.data({"client": __version__, "server": server or None, "host": context.address().text}, lines)


def _server_version(context: Context) -> str:
    """Asked of a server that runs; a local one is not started for this."""
    from mini_core.errors import MiniError
    from mini_core.paths import find_paths

    address, socket = context.address(), find_paths().admin_socket
    if address.is_local and (sys.platform == "win32" or not socket.exists()):
        return ""
    from mini_core.client.http import Client

    if address.is_local:
        client = Client(address, local=lambda: socket, warn=context.warn, wait=False)
    else:
        client = Client(address, warn=context.warn, wait=False)
    try:
        with client:
            return str(client.get("/healthz")["version"])
    except (MiniError, KeyError, TypeError) as error:
        if not address.is_local:
            context.warn(str(error))
        return ""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Prints the completion script of a shell: eval "$(mini completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "mini", "_MINI_COMPLETE").source())
