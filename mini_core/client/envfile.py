"""Reading and writing `.env` files, and JSON in their place."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from mini_core.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN = ("HOST", "PORT")
"""Variables that the platform sets."""

_OPEN = re.compile(r"""\s*(?:export\s+)?[\w.-]+\s*=\s*["']""")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")


def read_env_file(file: Path) -> dict[str, str]:
    """Raises ConfigError naming file and line."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", hint="Name a .env or JSON file.") from None
    return parse_env(text_of(data, str(file)), str(file))


def parse_env(text: str, name: str) -> dict[str, str]:
    """Variables of a `.env` text (quotes, `export`, comments; nothing is expanded) or of a flat JSON object.

    name: of the file, for errors. Raises ConfigError.
    """
    found = _json(text, name) if text.lstrip().startswith("{") else _dotenv(text, name)
    for key in found:
        check_key(key, name)
    return found


def text_of(data: bytes, name: str) -> str:
    """Byte for byte, but for a byte order mark. Raises ConfigError where it is no UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8 text", hint="Save it as UTF-8, or set it in base64.") from None


def check_key(key: str, where: str = "") -> str:
    """Raises ConfigError where a variable cannot have that name (POSIX, environment variables)."""
    if not _NAME.fullmatch(key):
        raise ConfigError(
            f"{where + ': ' if where else ''}{key!r} cannot be the name of a variable",
            hint="Letters, digits and _, not beginning with a digit.",
        )
    return key


def render_env(env: Mapping[str, str]) -> str:
    """A `.env` text that `parse_env` reads back to the same variables."""
    return "".join(f"{key}={_quoted(item)}\n" for key, item in sorted(env.items()))


def _quoted(item: str) -> str:
    if _PLAIN.fullmatch(item):
        return item
    if "'" not in item and "\\" not in item and "\r" not in item:
        return f"'{item}'"
    escaped = item.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r")
    return f'"{escaped}"'


def _dotenv(text: str, name: str) -> dict[str, str]:
    from dotenv.parser import parse_stream

    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text.replace("\r\n", "\n"))):
        line = f"{name}:{binding.original.line}"  # the text itself may be the rest of a secret of several lines
        if binding.error and _OPEN.match(binding.original.string):
            raise ConfigError(f"{line}: the quote does not end", hint="End it, or leave it out.")
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError(f"{line}: expected KEY=VALUE", hint="Put values with spaces or line breaks in quotes.")
        if binding.key is not None:
            found[binding.key] = binding.value or ""
    return found


def _json(text: str, name: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name}: not JSON: {error}", hint="Write a flat object of strings.") from None
    found: dict[str, str] = {}
    for key, item in data.items():
        if isinstance(item, bool):
            item = "true" if item else "false"
        if not isinstance(item, str | int | float):
            raise ConfigError(f"{name}: {key}: expected a string", hint="Write a flat object of strings.")
        found[key] = str(item)
    return found
