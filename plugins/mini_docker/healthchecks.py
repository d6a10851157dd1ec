"""Images' own health checks, asked for at once: the engine's first one may be half a minute away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAUSE = 1.0
"""Seconds between two checks of a container."""

Run = Callable[[str, Sequence[str]], tuple[int | None, str]]
"""Runs a command in a container: its exit code, if it could be run, and its output."""


@dataclass
class _Check:
    """What the last one said, and when the next may begin."""

    succeeded: bool = False
    said: str = ""
    due: float = 0.0


class HealthChecks:
    """A check may take as long as it likes: nobody waits for it, and it ends with its container."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._checks: dict[str, _Check] = {}
        self._lock = threading.Lock()

    def look(self, container: str, command: Sequence[str]) -> tuple[bool, str]:
        """Whether the last check of the container succeeded, and its last line. Begins another where none did."""
        with self._lock:
            check = self._checks.setdefault(container, _Check())
            if not check.succeeded and time.monotonic() >= check.due:
                check.due = float("inf")
                thread = threading.Thread(target=self._ask, args=(container, command, check), daemon=True)
                thread.start()
        return check.succeeded, check.said

    def forget(self, container: str) -> None:
        with self._lock:
            self._checks.pop(container, None)

    def _ask(self, container: str, command: Sequence[str], check: _Check) -> None:
        try:
            code, output = self._run(container, command)
            check.said, check.succeeded = last_line(output), code == 0
        finally:
            check.due = time.monotonic() + PAUSE


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
