"""Tables of a configuration file that know where they are, so that errors name the path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mini_core.errors import ConfigError
from mini_core.quantities import parse_duration, parse_size


class Table:
    """A table of a configuration file that remembers where it is, and which of its keys were asked for."""

    def __init__(self, data: Mapping[str, Any], file: str, path: str = "") -> None:
        self.data = data
        self.file = file
        self.path = path
        self._known: list[str] = []

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, expected: str, hint: str = "") -> ConfigError:
        shown = shorten(self.data[key])
        return ConfigError(f"{self.file}: {self.where(key)}: expected {expected}, got {shown}", hint=hint)

    def get(self, key: str) -> Any:
        self._known.append(key)
        return self.data.get(key)

    def string(self, key: str) -> str:
        item = self.get(key)
        if item is None:
            return ""
        if not isinstance(item, str):
            raise self.wrong(key, "a string", "Put it in quotes." if isinstance(item, int | float) else "")
        return item

    def strings(self, key: str) -> tuple[str, ...]:
        items = self.get(key)
        if items is None:
            return ()
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise self.wrong(key, "a list of strings")
        return tuple(items)

    def flag(self, key: str) -> bool | None:
        item = self.get(key)
        if item is not None and not isinstance(item, bool):
            raise self.wrong(key, "true or false")
        return item

    def number(self, key: str) -> float | None:
        item = self.get(key)
        if item is None:
            return None
        if isinstance(item, bool) or not isinstance(item, int | float) or item <= 0:
            raise self.wrong(key, "a number above 0")
        return float(item)

    def seconds(self, key: str, *, zero: bool = False) -> float | None:
        item = self.get(key)
        if item is None:
            return None
        known = isinstance(item, int | float | str) and not isinstance(item, bool)
        seconds = parse_duration(str(item)) if known else None
        if seconds is None or not (seconds or zero):
            raise self.wrong(key, 'seconds, or a string such as "90s"')
        return seconds

    def size(self, key: str) -> int | None:
        item = self.get(key)
        if item is None:
            return None
        size = parse_size(str(item)) if isinstance(item, int | str) and not isinstance(item, bool) else None
        if not size:
            raise self.wrong(key, 'a size such as "512m" or "1g"')
        return size

    def table(self, key: str) -> Table:
        item = self.get(key)
        if item is not None and not isinstance(item, dict):
            raise self.wrong(key, "a table")
        return Table(item or {}, self.file, self.where(key))

    def tables(self) -> dict[str, Table]:
        return {key: self.table(key) for key in self.data}

    def finish(self) -> None:
        """Raises ConfigError for a key that nobody asked for, suggesting the nearest that is known."""
        for key in self.data:
            if key not in self._known:
                from difflib import get_close_matches

                near = get_close_matches(key, self._known, 1, 0.6)
                hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(set(self._known)))}."
                raise ConfigError(f"{self.file}: {self.where(key)}: unknown key", hint=hint)


def shorten(item: object) -> str:
    """A value as it would be written, for an error."""
    text = json.dumps(item, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def lower_first(text: str) -> str:
    """A parser's message as the second half of a sentence."""
    return text[:1].lower() + text[1:]
