"""Versions as the files of a repository ask for them, whatever the language: build settings, mise, asdf."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Value

MISE = ("mise.toml", ".mise.toml", "mise/config.toml", ".mise/config.toml", ".config/mise.toml")
_FOREIGN = ("", "RAILPACK_", "NIXPACKS_", "GOOGLE_")
"""Prefixes under which other platforms know the same build settings: an app that moves here keeps working."""


class Wish(Value):
    """A version as a file asks for it."""

    version: str
    source: str


def build_setting(settings: BuildSettings, name: str) -> Wish | None:
    """A `[build.env]` entry, also under the prefixes that other platforms give it."""
    for prefix in _FOREIGN:
        if settings.env.get(prefix + name, "").strip():
            return Wish(version=settings.env[prefix + name].strip(), source=f"[build.env] {prefix}{name}")
    return None


def mise_tool(source: Source, file: str, tool: str) -> str:
    """A tool's version in a mise file, "" where it says nothing or cannot be read."""
    text = source.text(file)
    if text is None:
        return ""
    try:
        found = tomllib.loads(text).get("tools", {}).get(tool, "")
    except (tomllib.TOMLDecodeError, AttributeError):
        return ""
    if isinstance(found, Mapping):
        found = found.get("version", "")
    if isinstance(found, list):
        found = found[0] if found else ""
    return str(found)


def mise_version(source: Source, tool: str) -> Wish | None:
    """A tool's version in any of mise's files or .tool-versions."""
    for file in MISE:
        found = mise_tool(source, file, tool)
        if found:
            return Wish(version=found, source=file)
    found = tool_version(source, tool)
    return Wish(version=found, source=".tool-versions") if found else None


def tool_version(source: Source, tool: str) -> str:
    """asdf's .tool-versions: `TOOL VERSION [FALLBACK…]` per line."""
    found = re.search(rf"(?m)^\s*{re.escape(tool)}\s+([^\s#]+)", source.text(".tool-versions") or "")
    return found[1] if found else ""
