"""What the repository's own files ask for: mini.toml, and Heroku's Procfile and app.json. Pure.

Everything is checked here, so that later parts never see a wrong type. Errors are ConfigErrors that name the
file, the path in it and what was expected: `mini.toml: processes.web: expected a string, got 3`.
"""

from __future__ import annotations

from typing import Any

from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.manifest.heroku import (
    APP_JSON,
    PROCFILE,
    is_schedule,
    parse_app_json,
    parse_json,
    parse_procfile,
    shell,
)
from mini_core.manifest.minitoml import MINI_TOML, parse_mini_toml, relative_path
from mini_core.manifest.tables import Table, shorten
from mini_core.manifest.values import CronJob, HealthSettings, Manifest, MonorepoApp, Scripts, Strategy
from mini_core.types import BuildSettings, replace

__all__ = [
    "APP_JSON",
    "MINI_TOML",
    "PROCFILE",
    "CronJob",
    "HealthSettings",
    "Manifest",
    "MonorepoApp",
    "Scripts",
    "Strategy",
    "Table",
    "is_schedule",
    "parse_app_json",
    "parse_json",
    "parse_mini_toml",
    "parse_procfile",
    "read_manifest",
    "shell",
    "shorten",
]


def read_manifest(source: Source, path: str = "", app: str = "") -> Manifest:
    """The manifest of the app in a source: the root's mini.toml, then the app's own folder's files.

    path: the app's folder, overriding mini.toml. app: one of `[apps]`, which also chooses the folder. What the
    folder's own mini.toml says wins over the root's. Raises ConfigError.
    """
    root = parse_mini_toml(source.text(MINI_TOML) or "")
    chosen = root.named(app) if app else None
    folder = relative_path(path or (chosen.path if chosen else "") or root.path, MINI_TOML, "path")
    if folder in ("", "."):
        return _with_herokus(root, source, ".")
    if not source.has(folder) or source.read(folder) is not None:
        where = "mini.toml: path" if not path else "path"
        raise ConfigError(f"{where}: there is no folder {folder}", hint="It is relative to the repository's root.")
    inner = source.sub(folder)
    own = parse_mini_toml(inner.text(MINI_TOML) or "", file=f"{folder}/{MINI_TOML}")
    return _with_herokus(_overlay(root, own), inner, folder)


def _with_herokus(manifest: Manifest, source: Source, path: str) -> Manifest:
    prefix = "" if path == "." else f"{path}/"
    text = source.text(PROCFILE)
    warnings = list(manifest.warnings)
    if text is None and source.read("procfile") is not None:
        warnings.append(f"{prefix}procfile is not read: it is spelled Procfile")
    processes = parse_procfile(text or "", file=prefix + PROCFILE)
    parsed = parse_app_json(source.text(APP_JSON) or "", file=prefix + APP_JSON)
    health = manifest.health
    return replace(
        manifest,
        path=path,
        procfile=processes,
        env=_by_name(parsed.env, manifest.env),
        formation=parsed.formation,
        buildpacks=parsed.buildpacks,
        scripts=parsed.scripts,
        cron=_by_name(parsed.cron, manifest.cron),
        health=parsed.health if health == HealthSettings() else health,
        warnings=tuple(warnings),
    )


def _overlay(root: Manifest, own: Manifest) -> Manifest:
    """The root's settings with the app folder's own on top."""
    build = BuildSettings(
        buildpack=own.build.buildpack or root.build.buildpack,
        packages=_union(root.build.packages, own.build.packages),
        env={**root.build.env, **own.build.env},
        dockerfile=own.build.dockerfile or root.build.dockerfile,
        target=own.build.target or root.build.target,
        args={**root.build.args, **own.build.args},
    )
    return replace(
        root,
        app=own.app or root.app,
        build=build,
        processes={**root.processes, **own.processes},
        env=_by_name(root.env, own.env),
        health=root.health if own.health == HealthSettings() else own.health,
        limits={**root.limits, **own.limits},
        cron=_by_name(root.cron, own.cron),
        volumes=_by_name(root.volumes, own.volumes),
        strategy=own.strategy or root.strategy,
        idle=root.idle if own.idle is None else own.idle,
        plugins={**root.plugins, **own.plugins},
    )


def _by_name(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    """Both, a later one replacing an earlier one of its name."""
    return tuple({item.name: item for item in (*first, *second)}.values())


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
