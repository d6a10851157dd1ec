"""Start commands that a repository keeps for other platforms, for want of a Procfile.

App Engine's `entrypoint` is read as a Procfile's `web` would be. The others (Railway, railpack, nixpacks, Render) may
lean on their platform, so buildpacks use them only where nothing was detected.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

import yaml

from mini_core.interfaces import Source
from mini_core.types import Value


class Command(Value):
    """A shell line and the file that has it."""

    line: str
    file: str


def app_engine(source: Source, language: str) -> Command | None:
    """`entrypoint` of App Engine's app.yaml, where its `runtime` is the language's."""
    data = _yaml(source, "app.yaml")
    entrypoint = data.get("entrypoint")
    if isinstance(entrypoint, str) and entrypoint.strip() and str(data.get("runtime", "")).startswith(language):
        return Command(line=entrypoint.strip(), file="app.yaml")
    return None


def other_platforms(source: Source) -> Command | None:
    """The start command for Railway, railpack, nixpacks or Render."""
    railway = _table(_json(source, "railway.json"), "deploy").get("startCommand")
    railway_toml = _table(_toml(source, "railway.toml"), "deploy").get("startCommand")
    railpack = _table(_json(source, "railpack.json"), "deploy").get("startCommand")
    nixpacks = _table(_toml(source, "nixpacks.toml"), "start").get("cmd")
    given = [("railway.json", railway), ("railway.toml", railway_toml)]
    given += [("railpack.json", railpack), ("nixpacks.toml", nixpacks)]
    for file, line in [*given, ("render.yaml", _render(source))]:
        if isinstance(line, str) and line.strip():
            return Command(line=line.strip(), file=file)
    return None


def _render(source: Source) -> object:
    services = _yaml(source, "render.yaml").get("services")
    for service in services if isinstance(services, list) else []:
        if isinstance(service, dict) and service.get("type") == "web":
            return service.get("startCommand")
    return None


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = data.get(key)
    return inner if isinstance(inner, dict) else {}


def _yaml(source: Source, name: str) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(source.text(name) or "")
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def _json(source: Source, name: str) -> Mapping[str, Any]:
    try:
        data = json.loads(source.text(name) or "{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _toml(source: Source, name: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(source.text(name) or "")
    except tomllib.TOMLDecodeError:
        return {}
