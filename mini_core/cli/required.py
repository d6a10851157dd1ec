"""Variables that app.json or mini.toml require: asked for before anything is built."""

from __future__ import annotations

from pathlib import Path

import click

from mini_core import api
from mini_core.cli.context import Context
from mini_core.client.http import segment
from mini_core.errors import ConfigError, NotFound


def ask_for_required(context: Context, folder: Path, app: str, wishes: api.DeployOptions) -> dict[str, str]:
    """Values for the required variables that are not set. Raises ConfigError where nobody can be asked."""
    if not any((folder / inner / name).is_file() for name in ("app.json", "mini.toml") for inner in (".", wishes.path)):
        return {}
    from mini_core.manifest import read_manifest
    from mini_core.sources import FolderSource

    manifest = read_manifest(FolderSource(folder), wishes.path, app)
    wanted = [entry for entry in manifest.env if entry.kind == "required" and entry.name not in wishes.env]
    known = _known(context, app) if wanted else None
    missing = [entry for entry in wanted if entry.name not in (known or {})]
    if missing and not context.interactive:
        names = ", ".join(entry.name for entry in missing)
        setting = f"mini env set {' '.join(f'{entry.name}=…' for entry in missing)} -a {app or 'NAME'}"
        first = "" if known is not None else f"mini apps create {app or 'NAME'}, then "
        raise ConfigError(
            f"Not set, though the app requires it: {names}", hint=f"mini deploy --env-file FILE, or {first}{setting}"
        )
    return {
        entry.name: click.prompt(f"{entry.name} ({entry.description or 'required'})", hide_input=True, err=True)
        for entry in missing
    }


def _known(context: Context, app: str) -> dict[str, str] | None:
    """What is set; None where there is no such app yet."""
    if not app:
        return None
    try:
        known: dict[str, str] = context.client().get(f"/v1/apps/{segment(app)}/env")
    except NotFound:
        return None
    return known
