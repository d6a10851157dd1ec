"""`kill -9` at a given moment of a deploy: the moment is read from the deploy's own event stream."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mini_core.errors import MiniError
from mini_core.paths import find_paths
from mini_core.server import adminclient
from mini_core.testing import until
from tests.e2e.platform import MINI, MiniPlatform

FINISHED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Moment:
    """Of a deploy: the first event of this kind whose text starts so; for steps, at its begin or end. later: seconds
    after that."""

    kind: str
    text: str = ""
    phase: str = ""
    later: float = 0.0

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.text, self.phase, f"+{self.later} s" if self.later else "")))

    def matches(self, event: dict[str, Any]) -> bool:
        same = event["kind"] == self.kind and event["text"].startswith(self.text)
        return same and event["data"].get("phase", "") == self.phase


RECEIVED = Moment("received")
"""As soon as the deploy is in the store, before its first event."""


def begin(step: str, later: float = 0.0) -> Moment:
    return Moment("step", step, "begin", later)


def end(step: str, later: float = 0.0) -> Moment:
    return Moment("step", step, "end", later)


def admin(platform: MiniPlatform) -> Path:
    return find_paths(str(platform.home)).admin_socket


def kill_at(platform: MiniPlatform, moment: Moment, command: tuple[str, ...]) -> dict[str, Any]:
    """Runs a `mini` command that makes a deploy and kills the controller at the moment; the command, as a user's
    would, starts the controller again, and its exit code is the deploy's. Returns the deploy as it ended."""
    pid = int(adminclient.call(admin(platform), "GET", "/v1/status")["pid"])
    last = _newest(platform)
    process = subprocess.Popen(
        [MINI, *command], env=platform.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    number = until(lambda: (_newest(platform) > last) and _newest(platform), what="a deploy")
    _wait_for(platform, number, moment)
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=90)
    ended: dict[str, Any] = until(
        lambda: _ended(platform, number), seconds=60, what=f"an end of the deploy killed at {moment}"
    )
    assert process.returncode == (0 if ended["state"] == "done" else 1), (str(moment), ended, errors)
    return ended


def _newest(platform: MiniPlatform) -> int:
    found = adminclient.call(admin(platform), "GET", "/v1/deploys?limit=1")
    return int(found[0]["id"]) if found else 0


def _ended(platform: MiniPlatform, number: int) -> dict[str, Any] | None:
    info: dict[str, Any] = platform.json("deploys", "show", str(number))
    return info if info["state"] in FINISHED else None


def _wait_for(platform: MiniPlatform, number: int, moment: Moment) -> None:
    if moment == RECEIVED:
        return None
    seen = []
    for event in adminclient.lines(admin(platform), "GET", f"/v1/deploys/{number}/events?follow=true"):
        seen.append(f"{event['kind']} {event['text']} {event['data'].get('phase', '')}")
        if moment.matches(event):
            return time.sleep(moment.later)
    raise AssertionError(f"the deploy ended without {moment}: {seen}")


def settled(platform: MiniPlatform, check: Callable[[], list[str]], seconds: float = 40.0) -> list[str]:
    """What `check` finds wrong, once it finds nothing any more or time is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            wrong = check()
        except MiniError as error:
            wrong = [str(error)]
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.3)
