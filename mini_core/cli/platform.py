"""`mini up` and `mini down`: the local platform."""

from __future__ import annotations

import sys

import click

from mini_core.cli.base import YES, options, pass_context
from mini_core.cli.context import Context
from mini_core.errors import Unavailable


@click.command()
@click.option("--detach", is_flag=True, help="Start it in the background.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Listen there; by default 80, else the first free of 8080-8099."
)
@click.option("--bind", multiple=True, metavar="ADDR", help="Listen on this address; by default 127.0.0.1 and ::1.")
@click.option("--domain", metavar="NAME", help="Apps answer below this domain; by default localhost.")
@click.option("--runtime", metavar="NAME", help="What runs apps: docker or process.")
@click.option("--router", metavar="NAME", help="What brings requests to apps.")
@pass_context
def up(
    context: Context,
    detach: bool,
    port: int | None,
    bind: tuple[str, ...],
    domain: str | None,
    runtime: str | None,
    router: str | None,
) -> None:
    """Starts the local platform. What is given here is kept for the next start."""
    _require_posix()
    from mini_core.server import local

    flags = {"port": port, "bind": bind or None, "domain": domain, "runtime": runtime, "router": router}
    code = local.up(flags, foreground=not detach, say=context.info)
    if code:
        raise click.exceptions.Exit(code)


@click.command()
@click.option("--purge", is_flag=True, help="Remove all apps with their data, too.")
@options(YES)
@pass_context
def down(context: Context, purge: bool) -> None:
    """Stops the local platform with its apps. The next start brings them back."""
    _require_posix()
    from mini_core.server import local

    if purge:
        context.confirm("Remove the local platform with all apps, their volumes and their settings?")
    if not local.down(purge=purge, say=context.info) and not purge:
        context.info("The local platform does not run.")


def _require_posix() -> None:
    if sys.platform == "win32":
        raise Unavailable(
            "The local platform needs Linux or macOS: use WSL or mini config set-host",
            hint="mini config set-host https://HOST",
        )
