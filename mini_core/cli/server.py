"""`mini server`: a server of its own on this machine, managed by systemd."""

from __future__ import annotations

from pathlib import Path

import click

from mini_core.cli.base import JSON, YES, options, pass_context
from mini_core.cli.context import Context


@click.group()
def server() -> None:
    """Install, upgrade and uninstall a server on this machine."""


_root = click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), help="Write files below this folder; run nothing."
)
_dry = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@server.command()
@click.option("--domain", default="", metavar="D", help="Apps answer at NAME.D, the server at mini.D.")
@click.option("--email", default="", help="Yours, for certificates.")
@click.option("--port", default=80, show_default=True, help="Of the router.")
@click.option("--runtime", default="", metavar="NAME", help="docker or process; by default docker where it is.")
@click.option("--wheel", default="", metavar="FILE", help="Install this instead of the version that runs now.")
@_root
@_dry
@pass_context
def install(
    ctx: Context, domain: str, email: str, port: int, runtime: str, wheel: str, root: Path, dry_run: bool
) -> None:
    """Install a server: sudo mini server install --domain example.com --email you@example.com"""
    from mini_core.server import install as steps
    from mini_core.server.machine import Machine
    from mini_core.server.units import Server

    machine = Machine(ctx.info, root=root.absolute(), dry=dry_run)
    docker = steps.docker_wanted(runtime)
    wanted = Server(domain=domain, email=email, port=port, runtime=runtime, docker=docker)
    installed = steps.install(machine, wanted, requirement=wheel)
    if not machine.real:
        return
    ctx.info(f"The server runs at {installed.url}. On your laptop:")
    ctx.data(installed, "\n".join(f"    {command}" for command in steps.laptop_commands(installed)))
    if not installed.key:
        ctx.info("There is a key already; another one: mini keys create NAME")
    if domain:
        ctx.info(f"DNS records to make: {domain} and *.{domain}, A, to this server's address")


@server.command()
@click.argument("wheel", default="", metavar="[WHEEL]")
@options(JSON)
@pass_context
def upgrade(ctx: Context, wheel: str) -> None:
    """Upgrade the server to the newest version, or to a wheel; goes back if it does not work."""
    import contextlib
    import signal

    from mini_core.paths import find_paths
    from mini_core.server import upgrade as steps
    from mini_core.server.layout import Layout, installed_prefix, is_managed
    from mini_core.server.machine import has_systemd

    layout = Layout(prefix=installed_prefix() or Layout().prefix)
    paths = find_paths()
    managed = is_managed(paths) and has_systemd()
    service = steps.SystemdService() if managed else steps.LocalService(paths, layout)
    requirement = str(Path(wheel).absolute()) if wheel else "mini-paas"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # once begun it ends, though the connection that asked is lost

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            ctx.info(line)

    done = steps.upgrade(layout, paths, service, requirement, say)
    ctx.data(done, f"mini {done.after} runs (before: {done.before}).")


@server.command()
@options(JSON)
@pass_context
def health(ctx: Context) -> None:
    """Ask the server on this machine, through its router, whether it takes requests."""
    from mini_core.paths import find_paths
    from mini_core.server.local import health as ask

    answer = ask(find_paths())
    ctx.data(answer, f"mini {answer['version']} takes requests at {answer['url']}")


@server.command()
@click.option("--purge", is_flag=True, help="Also remove all apps with their data.")
@options(YES)
@_root
@_dry
@pass_context
def uninstall(ctx: Context, purge: bool, root: Path, dry_run: bool) -> None:
    """Stop and remove the server; its state stays unless --purge is given."""
    from mini_core.server import install as steps
    from mini_core.server.machine import Machine

    machine = Machine(ctx.info, root=root.absolute(), dry=dry_run)
    if machine.real:
        ctx.confirm("Stop all apps and remove the server" + (" with all apps and their data?" if purge else "?"))
    steps.uninstall(machine, purge=purge)
