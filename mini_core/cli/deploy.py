"""`mini deploy`: pack, send, follow."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from mini_core import api
from mini_core.archive import COMPRESSION, LIGHT_COMPRESSION, PackResult, Progress, pack
from mini_core.cli import params
from mini_core.cli.base import APP, HOST, JSON, YES, options, pass_context
from mini_core.cli.context import Context, check_app, mini_toml
from mini_core.cli.output import plural
from mini_core.cli.view import Lines, follow
from mini_core.client.http import segment
from mini_core.errors import SourceError, UsageError
from mini_core.quantities import size
from mini_core.types import replace, to_data


@click.command()
@click.argument("path", default=".", type=click.Path(path_type=Path))
@click.argument("app", default="")
@click.option("--env-file", "env_files", multiple=True, type=click.Path(path_type=Path), help="Set what a .env sets.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.option("--timeout", default="15m", type=params.duration, show_default=True, help="Give up after that long.")
@click.option("--all", "everything", is_flag=True, help="Deploy all apps of mini.toml.")
@click.option("--buildpack", default="", metavar="NAME", help="Use this buildpack instead of detecting one.")
@click.option("--path", "inner", default="", metavar="FOLDER", help="The app's folder below PATH.")
@click.option("--no-cache", is_flag=True, help="Build everything anew.")
@options(APP, HOST, JSON, YES)
@pass_context
def deploy(
    context: Context,
    path: Path,
    app: str,
    env_files: tuple[Path, ...],
    detach: bool,
    timeout: float,
    everything: bool,
    buildpack: str,
    inner: str,
    no_cache: bool,
) -> None:
    """Deploys the folder PATH as APP and says where it is live.

    Without APP, it is the app that the folder was deployed as before, or a new one with a friendly name.
    """
    names = _all_apps(path) if everything else [context.named_app(app) or context.folder_app(path)]
    names = [check_app(name) if name else "" for name in names]
    if not names[0] and len(several := _apps_of(path)) > 1:
        raise UsageError(
            f"mini.toml lists several apps: {', '.join(several)}",
            hint=f"mini deploy --all, or one of them: mini deploy {path} {several[0]}",
        )
    if not names[0] and not context.address().is_local and not context.interactive:
        raise UsageError("No app named: pass -a NAME or set MINI_APP", hint="mini deploy PATH NAME works, too.")
    env = _read_env(context, env_files)
    wishes = api.DeployOptions(env=env, timeout=timeout, buildpack=buildpack, path=inner, no_cache=no_cache)
    try:
        with tempfile.TemporaryDirectory(prefix="mini-") as folder:
            archive = Path(folder) / "source.tar.gz"
            wishes = replace(wishes, origin=_pack(context, path, archive).origin)
            codes = [_deploy_one(context, path, name, archive, wishes, detach) for name in names]
    except KeyboardInterrupt:
        context.info("Stopped before it was sent.")
        raise click.exceptions.Exit(130) from None
    if any(codes):
        raise click.exceptions.Exit(max(codes))


def _deploy_one(context: Context, path: Path, app: str, archive: Path, wishes: api.DeployOptions, detach: bool) -> int:
    """Returns the exit code."""
    from mini_core.cli.required import ask_for_required
    from mini_core.client.config import link_app

    client = context.client(first=True)
    env = {**wishes.env, **ask_for_required(context, path, app, wishes)}
    if not app:
        app = client.post("/v1/apps", api.NewApp(), api.AppInfo).name
        context.info(f'Named {app}. To share it: app = "{app}" in mini.toml')
    if not context.address().is_local:
        context.info(f"Deploying {context.named(app)}")
    info = _send(context, app, archive, replace(wishes, env=env))
    if app not in _apps_of(path):  # else the next command here would mean the last of them
        link_app(context.address().text, path, app)
    try:
        follow(context, info, done="", detach=detach, numbered=True)
    except click.exceptions.Exit as end:
        if end.exit_code == 130:
            raise
        return end.exit_code
    return 0


def _pack(context: Context, path: Path, archive: Path) -> PackResult:
    lines = Lines()
    lines.begin("[1/3] Packing source code...")
    try:
        _refuse_home(path)
        compression = LIGHT_COMPRESSION if context.address().is_local else COMPRESSION
        packed = pack(path, archive, progress=_every_tenth(lines.update), compression=compression)
    except BaseException:
        lines.close()
        raise
    differ = (
        f"; {plural(packed.changed, 'file')} differ from the last commit" if packed.commit and packed.changed else ""
    )
    if packed.changed == 1:
        differ = differ.replace("differ", "differs")
    lines.end(f"Done.  ({plural(packed.files, 'file')}, {size(packed.size)}{differ})")
    for env in packed.not_sent:
        keys = plural(env.keys, "key")
        context.info(f"Not sent: {env.path} ({keys}). To set them: mini env import {env.path}")
    for text in packed.left_out:
        context.info(f"Left out: {text}")
    return packed


def _every_tenth(show: Callable[[str], None]) -> Progress:
    """Ten times a second at most."""
    shown = time.monotonic()

    def progress(files: int, count: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            show(f"{plural(files, 'file')}, {size(count)}")

    return progress


def _refuse_home(path: Path) -> None:
    """Sends no whole home folder or disk by mistake."""
    root = path.resolve()
    if root in (Path.home().resolve(), Path(root.anchor)) and not (root / "mini.toml").exists():
        raise SourceError(f"{root} is not the folder of an app", hint="Go to the app's folder, or: mini deploy PATH")


def _send(context: Context, app: str, archive: Path, wishes: api.DeployOptions) -> api.DeployInfo:
    client, total, lines, done = context.client(), archive.stat().st_size, Lines(), 0

    def progress(sent: int) -> None:
        nonlocal done
        done = sent
        if total > 4_000_000:
            lines.passing(f"      Sending {size(sent)} of {size(total)}")

    headers = {"Mini-Deploy": json.dumps(to_data(wishes))}
    try:
        return client.upload(f"/v1/apps/{segment(app)}/deploys", archive, headers, api.DeployInfo, progress)
    except KeyboardInterrupt:
        lines.close()
        arrived = f"All was sent: whether a deploy has begun, says mini deploys -a {app}"
        context.info(arrived if done >= total else "Nothing was deployed.")
        raise click.exceptions.Exit(130) from None
    finally:
        lines.close()


def _read_env(context: Context, files: tuple[Path, ...]) -> dict[str, str]:
    env: dict[str, str] = {}
    if files:
        from mini_core.cli.env import without_own
        from mini_core.client.envfile import read_env_file

        for file in files:
            env |= without_own(context, read_env_file(file))
    return env


def _all_apps(path: Path) -> list[str]:
    names = _apps_of(path)
    if not names:
        hint = "Add [apps.NAME] with a path for each, or deploy without --all."
        raise UsageError(f"{path / 'mini.toml'} lists no apps", hint=hint)
    return names


def _apps_of(path: Path) -> list[str]:
    """Names of the apps that mini.toml lists."""
    manifest = mini_toml(path)
    return [item.name for item in manifest.apps] if manifest else []
