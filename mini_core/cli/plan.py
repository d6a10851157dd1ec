"""`mini plan`, `init` and `eject`: what would be done, worked out here, offline."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mini_core import api
from mini_core.cli.base import APP, HOST, JSON, options, pass_context
from mini_core.cli.context import Context
from mini_core.errors import Conflict, NotFound, PlanError
from mini_core.types import to_data

if TYPE_CHECKING:
    from mini_core.hooks import Hooks
    from mini_core.planned import Planned

BUILDER = "docker"

_path = click.argument("path", default=".", type=click.Path(path_type=Path))
_buildpack = click.option(
    "--buildpack", default="", metavar="NAME", help="Use this buildpack instead of detecting one."
)
_inner = click.option("--path", "inner", default="", metavar="FOLDER", help="The app's folder below PATH.")


@click.command()
@_path
@click.option("--dockerfile", is_flag=True, help="Print the Dockerfile that would be used.")
@click.option("--remote", is_flag=True, help="Ask the server, with its plugins and settings.")
@_buildpack
@_inner
@options(APP, HOST, JSON)
@pass_context
def plan(context: Context, path: Path, dockerfile: bool, remote: bool, buildpack: str, inner: str) -> None:
    """Shows how the folder PATH would be built and run, and why. Needs no server and no network."""
    if remote:
        _plan_remotely(context, path, dockerfile, buildpack, inner)
        return
    from mini_core.explain import explain

    hooks = _hooks()
    planned = _planned(context, hooks, path, buildpack, inner)
    if not (dockerfile or context.json):
        click.echo("\n".join(explain(planned)))
        return
    files = _files(hooks, planned, path, required=dockerfile)
    if context.json:
        context.document(planned.info(files))
    else:
        click.echo(files["Dockerfile"], nl=False)


def _plan_remotely(context: Context, path: Path, dockerfile: bool, buildpack: str, inner: str) -> None:
    from mini_core.archive import pack

    with tempfile.TemporaryDirectory(prefix="mini-") as folder:
        archive = Path(folder) / "source.tar.gz"
        packed = pack(path, archive)
        wishes = api.DeployOptions(origin=packed.origin, buildpack=buildpack, path=inner)
        headers = {"Mini-Deploy": json.dumps(to_data(wishes))}
        info = context.client(first=True).upload("/v1/plan", archive, headers, api.PlanInfo)
    if dockerfile and not context.json:
        if "Dockerfile" not in info.files:
            raise NotFound("The server makes no Dockerfile for this plan", hint="Its runtime builds without one.")
        click.echo(info.files["Dockerfile"], nl=False)
        return
    from mini_core.explain import headline

    losers = [f"  {offer.buildpack}: {offer.reason}" for offer in info.offers[1:]]
    context.data(info, [headline(info.plan), *losers, *(f"Note: {text}" for text in info.warnings)])


def _hooks() -> Hooks:
    from mini_core.hooks import Hooks
    from mini_core.plugins import load_plugins

    return Hooks(load_plugins())


def _planned(context: Context, hooks: Hooks, path: Path, buildpack: str, inner: str) -> Planned:
    """The plan of what a deploy would send."""
    from mini_core.archive import list_files
    from mini_core.planning import make_plan
    from mini_core.sources import FolderSource

    source = FolderSource(path, only=list_files(path))
    app = context.named_app() or context.folder_app(path)
    planned = make_plan(source, hooks.buildpacks(), app=app, path=inner, buildpack=buildpack, amend=hooks.amend_plan)
    for info in hooks.infos():
        if info.state == "broken":
            context.warn(f"plugin {info.name} is broken: {info.reason}")
    return planned


def _files(hooks: Hooks, planned: Planned, path: Path, *, required: bool = True) -> dict[str, str]:
    """Generated files, the Dockerfile among them; the repository's own where it has one."""
    own = planned.plan.dockerfile
    if own is not None:
        return {"Dockerfile": (path / planned.plan.path / own.path).read_text("utf-8", "replace")}
    from mini_core.hookspecs import Context as Places
    from mini_core.paths import find_paths
    from mini_core.settings import load_settings

    paths = find_paths()
    settings = load_settings(paths.settings)
    places = Places(platform="", data=paths.data, cache=paths.cache, images=settings.images, settings=settings.plugins)
    builder = hooks.builders(places).get(BUILDER)
    if builder is None:
        if required:
            raise NotFound("No builder here makes a Dockerfile", hint="See: mini plugins list")
        return {}
    return builder.render(planned.plan)


@click.command()
@_path
@click.option("--force", is_flag=True, help="Replace a mini.toml that is there.")
@_buildpack
@_inner
@options(APP)
@pass_context
def init(context: Context, path: Path, force: bool, buildpack: str, inner: str) -> None:
    """Writes a mini.toml into PATH that says what was detected."""
    from mini_core.eject import init_toml

    planned = _planned(context, _hooks(), path, buildpack, inner)
    name = context.named_app() or context.folder_app(path)
    _write(context, path, {"mini.toml": init_toml(planned, name)}, force)


@click.command()
@_path
@click.option("--force", is_flag=True, help="Replace files that are there.")
@_buildpack
@_inner
@options(APP)
@pass_context
def eject(context: Context, path: Path, force: bool, buildpack: str, inner: str) -> None:
    """Writes a Dockerfile and a compose.yaml into PATH, to go on without mini."""
    from mini_core.eject import compose_yaml, portable

    hooks = _hooks()
    planned = _planned(context, hooks, path, buildpack, inner)
    if planned.plan.dockerfile is not None and not planned.plan.processes:
        context.info("The repository has a Dockerfile already.")
    files = {} if planned.plan.dockerfile is not None else _files(hooks, portable(planned), path)
    _write(context, path / planned.plan.path, {**files, "compose.yaml": compose_yaml(planned)}, force)


def _write(context: Context, folder: Path, files: dict[str, str], force: bool) -> None:
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        names = ", ".join(str(folder / name) for name in there)
        raise Conflict(f"{names} exist{'s' if len(there) == 1 else ''}", hint="Replace with --force.")
    for name, text in files.items():
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
        except OSError as error:
            raise PlanError(
                f"Cannot write {folder / name}: {error.strerror}", hint="Look at its permissions."
            ) from None
        context.info(f"Wrote {folder / name}")
