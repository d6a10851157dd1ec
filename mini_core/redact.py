"""Secrets out of text: exact values of at least six characters, wherever they stand in a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mini_core.types import Secret

SHORTEST = 6
"""Characters. Shorter values ("true", "3000") would mask half of every log and hide nothing."""

MASK = "[REDACTED]"


class Redactor:
    """Masks the given secrets. Those of several lines are masked line by line, since logs come so; each also as it is
    written in JSON, since some logs are."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        texts = {line.strip() for item in secrets for line in (item.reveal(), *item.reveal().splitlines())}
        texts |= {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in texts for ascii_only in (True, False)}
        found = sorted((text for text in texts if len(text) >= SHORTEST), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text

    def data(self, item: Any) -> Any:
        """Plain data (dicts, lists, strings, numbers) with every string in it masked."""
        if isinstance(item, str):
            return self(item)
        if isinstance(item, Mapping):
            return {key: self.data(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [self.data(part) for part in item]
        return item
