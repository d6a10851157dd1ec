"""Memory and CPU of what runs, from two looks at it."""

from __future__ import annotations

import threading

from mini_core.types import InstanceStatus, replace
from mini_process import proc

SHORTEST_WINDOW = 1.0  # seconds over which CPU use is averaged, at least


class Usage:
    """Remembers how much CPU time each instance had used, to tell how much it uses now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, float]] = {}
        self._rates: dict[str, float] = {}

    def add(self, status: InstanceStatus, snapshot: proc.Snapshot, root: int) -> InstanceStatus:
        """The status with what its first process and those below it use, as far as the system tells."""
        processes = snapshot.tree(root)
        return replace(
            status,
            memory=proc.memory(processes),
            cpu=self._rate(status.id, proc.cpu_seconds(processes), snapshot.at),
        )

    def forget(self, instance: str) -> None:
        with self._lock:
            self._seen.pop(instance, None)
            self._rates.pop(instance, None)

    def _rate(self, instance: str, seconds: float | None, at: float) -> float | None:
        if seconds is None:
            return None
        with self._lock:
            before = self._seen.get(instance)
            if before is None or seconds < before[1]:
                self._seen[instance] = (at, seconds)
            elif at - before[0] >= SHORTEST_WINDOW:
                self._rates[instance] = (seconds - before[1]) / (at - before[0])
                self._seen[instance] = (at, seconds)
            return self._rates.get(instance)
