"""The facts file: example apps and what their authors expect of them. A JSON list; unknown fields are ignored.

Each entry has an id, a language and a tier; `path` and `source_repo` say where it came from. The apps are laid out
beforehand, one folder each, named by the id with "/" as "__".
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LANGUAGES = ("node", "python", "go", "static", "dockerfile")
"""What there are buildpacks for: apps in other languages are counted apart."""


@dataclass(frozen=True)
class Expectation:
    """One thing that is expected of an app: an answer over HTTP, some output, a running process, a build that
    succeeds or one that fails."""

    data: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.data.get("type", ""))

    @property
    def env(self) -> dict[str, str]:
        return dict(self.data.get("env") or {})

    @property
    def asserted(self) -> bool:
        """Not about how another platform does it."""
        return not self.data.get("implementation_specific")

    def text(self, name: str) -> str:
        return str(self.data.get(name) or "")

    def list(self, name: str) -> list[str]:
        return [str(item) for item in self.data.get(name) or ()]

    @property
    def setup(self) -> tuple[tuple[tuple[str, str], ...], str, str]:
        """What has to be built alike to check it: variables, start command, what to build."""
        return tuple(sorted(self.env.items())), self.text("start_override"), self.text("build_override")


@dataclass(frozen=True)
class Fact:
    """One app."""

    id: str
    language: str
    tier: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def manager(self) -> str:
        return str(self.data.get("package_manager") or "")

    @property
    def pins(self) -> Mapping[str, str]:
        return {name: str(version) for name, version in (self.data.get("pins") or {}).items()}

    @property
    def oracle(self) -> Mapping[str, Any]:
        return self.data.get("detect_oracle") or {}

    @property
    def expected(self) -> tuple[Expectation, ...]:
        return tuple(Expectation(item) for item in self.data.get("expected") or ())

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Without their details ("main-in-subdir:cmd/web" is "main-in-subdir")."""
        return tuple(sorted({str(item).split(":")[0] for item in self.data.get("capabilities") or ()}))

    @property
    def must_fail(self) -> bool:
        return self.tier == "negative"

    @property
    def out_of_reach(self) -> str:
        """Why it can't be built or run on a machine with nothing but registries, "" if it can."""
        unreachable = self.data.get("needs_unreachable") or ()
        if unreachable:
            return f"needs {unreachable[0]}"
        services = self.data.get("services") or ()
        return f"needs {', '.join(services)}" if services else ""

    def folder(self, apps: Path) -> Path:
        return apps / self.id.replace("/", "__")


def read_facts(file: Path, only: Iterable[str] = ()) -> list[Fact]:
    """The facts, those whose id starts with or matches one of `only` (language=…, tier=… choose by field)."""
    patterns = list(only)
    entries = [
        Fact(id=item["id"], language=item["language"], tier=item.get("tier", "core"), data=item)
        for item in json.loads(file.read_text("utf-8"))
    ]
    return [fact for fact in entries if not patterns or any(_matches(fact, pattern) for pattern in patterns)]


def _matches(fact: Fact, pattern: str) -> bool:
    if "&" in pattern:
        return all(_matches(fact, part) for part in pattern.split("&"))
    name, equals, wanted = pattern.partition("=")
    if equals and name in ("language", "tier"):
        return str(getattr(fact, name)) in wanted.split(",")
    return fact.id.startswith(pattern) or fnmatch.fnmatch(fact.id, pattern)
