"""The server's settings: `server.toml` in the config folder, overridden by flags of `mini up`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mini_core.errors import ConfigError
from mini_core.quantities import parse_duration, parse_size
from mini_core.types import Limits, Value, from_data


class Settings(Value):
    """Everything an operator can set. Unknown keys are errors; plugins check their own sections.

    domain: apps answer at NAME.domain. email: of who runs the server, for routers that get certificates. bind:
    addresses to listen on. port: 0 is 80 where it can be had, else the first free one of 8080–8099, then kept.
    runtime, router: a plugin's, "" chooses. images: toolchain ("python" or "python:3.12") → image. limits: defaults
    of an instance. builds: how many run at once. keep: how many releases' images are kept per app. drain: seconds
    that open requests get when an instance goes. grace: seconds from SIGTERM to SIGKILL. upload: the largest source
    archive, in bytes; unpacked: after unpacking, in bytes; files: entries in it. log_size: bytes of stored log
    lines per app. disk_reserve: bytes that must stay free. idle: seconds without a request after which an app
    sleeps whose mini.toml says nothing about that (0: never). In the file, seconds may be "30m" and bytes "1g".
    """

    domain: str = "localhost"
    email: str = ""
    bind: tuple[str, ...] = ("127.0.0.1", "::1")
    port: int = 0
    runtime: str = ""
    router: str = "proxy"
    workers: int = 0
    images: Mapping[str, str] = {}
    limits: Limits = Limits(memory=512 * 1024 * 1024, pids=512)
    builds: int = 2
    keep: int = 5
    drain: float = 30.0
    grace: float = 10.0
    upload: int = 1024 * 1024 * 1024
    unpacked: int = 4 * 1024 * 1024 * 1024
    files: int = 200_000
    log_size: int = 16 * 1024 * 1024
    disk_reserve: int = 1024 * 1024 * 1024
    idle: float = 0.0
    required: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    plugins: Mapping[str, Mapping[str, Any]] = {}


_SECONDS = ("drain", "grace", "idle")
_BYTES = ("upload", "unpacked", "log_size", "disk_reserve")


def load_settings(path: Path, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the file, where there is one, and the flags that were given. Raises ConfigError."""
    data: dict[str, Any] = {}
    if path.exists():
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path}: {error}", hint="Correct the file, or move it away to use the defaults."
            ) from None
    plugins = data.get("plugins")
    if isinstance(plugins, dict):
        data["required"] = plugins.pop("required", ())
        data["disabled"] = plugins.pop("disabled", ())
    data |= {key: item for key, item in (overrides or {}).items() if item is not None}
    return _checked(path, data)


def _checked(path: Path, data: dict[str, Any]) -> Settings:
    known = set(Settings.__struct_fields__)
    for key in data:
        if key not in known:
            raise ConfigError(f"{path}: {key}: unknown setting", hint=f"Known: {', '.join(sorted(known))}.")
    try:
        return from_data(Settings, _in_numbers(path, data))
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`")
        wrong = f"{name + ': ' if name else ''}{message[0].lower()}{message[1:]}"
        raise ConfigError(f"{path}: {wrong}", hint="Correct the line, or take it out for the default.") from None


def _in_numbers(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """Durations and sizes may be written as people do."""
    found = dict(data)
    for key in _SECONDS:
        found |= _number(path, key, key, data, parse_duration, 'seconds, or a string such as "30m"')
    for key in _BYTES:
        found |= _number(path, key, key, data, parse_size, 'bytes, or a string such as "1g"')
    if isinstance(limits := data.get("limits"), dict):
        memory = _number(path, "limits.memory", "memory", limits, parse_size, 'bytes, or a string such as "512m"')
        found["limits"] = limits | memory
    return found


def _number(
    path: Path, where: str, key: str, data: Mapping[str, Any], parse: Callable[[str], float | None], expected: str
) -> dict[str, float]:
    if not isinstance(item := data.get(key), str):
        return {}
    number = parse(item)
    if number is None:
        raise ConfigError(f'{path}: {where}: expected {expected}, got "{item}"')
    return {key: number}
