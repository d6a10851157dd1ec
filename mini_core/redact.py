"""Secrets out of text: exact values of at least six characters, wherever they stand in a line.

Everything that others wrote (apps, build tools, engines) is masked so, whatever the value. mini's own sentences are
masked as well, since they quote others, but for values that are one of `OWN_WORDS`: MODE=loopback must not turn
"listens on its own loopback" into a riddle. That tells nobody anything. The words are few, fixed and public, and a
sentence of mini's holds them whether or not a variable does; a secret that is one of them is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mini_core.types import Secret

SHORTEST = 6
"""Characters. Shorter values ("true", "3000") would mask half of every log and hide nothing."""

MASK = "[REDACTED]"

_WORDS = """0.0.0.0 127.0.0.1 address answer answers behind command connection container containers controller default
    deploy deploys docker engine environment exited failed health healthy images instance instances interfaces localhost
    loopback memory package packages plugin process processes python release releases request requests restart restarted
    router runtime seconds server started starts stopped timeout variable version volume volumes waited waiting warning
    worker workers"""
OWN_WORDS = frozenset(_WORDS.split())
"""What mini's own sentences are made of, as far as somebody might set a variable to it."""


class Redactor:
    """Masks the given secrets. Those of several lines are masked line by line, since logs come so; each also as it is
    written in JSON, since some logs are."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        texts = {line.strip() for item in secrets for line in (item.reveal(), *item.reveal().splitlines())}
        texts |= {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in texts for ascii_only in (True, False)}
        self._others = _pattern(texts)
        self._own = _pattern(text for text in texts if text.lower() not in OWN_WORDS)

    def __call__(self, text: str) -> str:
        """For what others wrote."""
        return self._others.sub(MASK, text) if self._others else text

    def own(self, text: str) -> str:
        """For a sentence of mini's own, whatever it quotes."""
        return self._own.sub(MASK, text) if self._own else text

    def data(self, item: Any) -> Any:
        """Plain data (dicts, lists, strings, numbers) with every string in it masked."""
        if isinstance(item, str):
            return self(item)
        if isinstance(item, Mapping):
            return {key: self.data(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [self.data(part) for part in item]
        return item


def _pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    found = sorted((text for text in texts if len(text) >= SHORTEST), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None
