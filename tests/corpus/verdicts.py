"""What came of checking one app, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["pass", "fail", "apart"]
"""apart: could not be judged here (a runtime, a registry or a service is out of reach), and is no pass."""

LEVELS = ("detect", "build", "run")


@dataclass(frozen=True)
class Verdict:
    """reason: one line, for what is not a pass. details: more lines, such as the tail of a log."""

    state: State
    reason: str = ""
    details: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class Result:
    """One app's verdicts by level ("negative" for an app that must fail) and what was planned for it."""

    id: str
    language: str
    tier: str
    capabilities: tuple[str, ...] = ()
    level: str = "detect"
    plan: Mapping[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def covers(self, level: str) -> bool:
        """Whether the app was checked up to that level."""
        return LEVELS.index(self.level) >= LEVELS.index(level)

    @property
    def failed(self) -> bool:
        return any(verdict.state == "fail" for verdict in self.verdicts.values())


class Store:
    """A JSON file of results that is written after every app, so that a run can be taken up again."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.results: dict[str, Result] = {}
        if file and file.exists():
            for item in json.loads(file.read_text("utf-8"))["results"]:
                self.results[item["id"]] = _from_data(item)

    def add(self, result: Result) -> None:
        self.results[result.id] = result
        if self._file:
            data = {"schema": 1, "results": [asdict(item) for _, item in sorted(self.results.items())]}
            draft = self._file.with_name(self._file.name + ".part")
            draft.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
            draft.replace(self._file)


def _from_data(item: Mapping[str, Any]) -> Result:
    verdicts = {
        level: Verdict(
            state=verdict["state"],
            reason=verdict["reason"],
            details=tuple(verdict["details"]),
            seconds=verdict["seconds"],
        )
        for level, verdict in item["verdicts"].items()
    }
    return Result(**{**item, "capabilities": tuple(item["capabilities"]), "verdicts": verdicts})
