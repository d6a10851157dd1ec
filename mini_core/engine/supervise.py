"""What is to be done about one instance, decided from what the store wants and what the runtime says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mini_core.store.records import Instance
from mini_core.types import InstanceStatus, Value

FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
"""Seconds before a crashed instance is started again: doubled each time."""

CALM = 600.0
"""Seconds of good health after which its crashes are forgotten."""

FAILURES = 3
"""Probes in a row that fail before an instance counts as unhealthy."""

Verdict = Literal["leave", "retire", "adopt", "missing", "crashed", "restarted"]


def delay(crashes: int) -> float:
    """Seconds to wait after so many crashes."""
    return min(FIRST_DELAY * 2.0 ** max(crashes - 1, 0), LONGEST_DELAY)


def is_due(item: Instance, now: float) -> bool:
    """Whether a crashed instance is to be started again. Where that is further away than it ever was, the clock was
    set back."""
    return item.next_try is not None and not now < item.next_try <= now + delay(item.crashes)


def judge(item: Instance, status: InstanceStatus | None, running_deploys: Iterable[int]) -> Verdict:
    """leave: it belongs to a deploy that runs, or all is well. retire: drain, stop and remove it. missing: it has
    to be started. crashed: it has ended. restarted: the engine has brought it back by itself. adopt: it runs."""
    if item.phase == "new":
        return "leave" if item.deploy in set(running_deploys) else "retire"
    if item.phase == "retired":
        return "retire"
    if status is None or status.state == "gone":
        return "missing"
    if status.state == "exited":
        return "crashed"
    return "restarted" if status.restarts > item.engine_restarts else "adopt"


class Crash(Value):
    """The columns of an instance after another crash."""

    crashes: int
    crashing_since: float
    next_try: float
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False


def crashed(item: Instance, status: InstanceStatus | None, now: float) -> Crash:
    crashes = item.crashes + 1
    ended = status.ended_at if status and status.ended_at else now
    return Crash(
        crashes=crashes,
        crashing_since=item.crashing_since or now,
        next_try=(ended if now - LONGEST_DELAY < ended < now else now) + delay(crashes),
        exit_code=status.exit_code if status else None,
        signal=status.signal if status else None,
        oom=status.oom if status else False,
    )
