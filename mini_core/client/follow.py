"""Streams that go on after the connection was lost: while a controller restarts, nothing is missed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mini_core.api import DeployEvent
from mini_core.client.http import Client, Lost
from mini_core.errors import Unavailable
from mini_core.types import Event, LogLine

T = TypeVar("T")

GIVE_UP = 300.0
"""Seconds without contact."""
LAST = ("done", "failed", "cancelled")
"""Kinds of the event that ends a deploy's stream."""

Say = Callable[[str], None]


def follow_deploy(client: Client, deploy: int, *, say: Say, after: int = 0) -> Iterator[DeployEvent]:
    """A deploy's events to the last one. Raises Unavailable when contact is lost for GIVE_UP seconds."""
    path, seen = f"/v1/deploys/{deploy}/events", after

    def events() -> Iterator[DeployEvent]:
        return client.stream(path, DeployEvent, after=seen, follow=True)

    for event in _again_and_again(events, say):
        seen = max(seen, event.seq)
        yield event
        if event.kind in LAST:
            return


def follow_logs(client: Client, path: str, *, say: Say, **query: Any) -> Iterator[LogLine]:
    """Log lines as they come, for ever."""
    recent: deque[LogLine] = deque(maxlen=1000)

    def lines() -> Iterator[LogLine]:
        again = {"since": recent[-1].at, "lines": 10_000} if recent else {}
        return client.stream(path, LogLine, **{**query, "follow": True, **again})

    for line in _again_and_again(lines, say):
        if line.at > (recent[-1].at if recent else 0.0) or line not in recent:
            recent.append(line)
            yield line


def follow_events(client: Client, *, say: Say, after: int = 0, **query: Any) -> Iterator[Event]:
    """Events as they happen, for ever."""
    seen = after

    def events() -> Iterator[Event]:
        return client.stream("/v1/events", Event, after=seen, follow=True, **query)

    for event in _again_and_again(events, say):
        seen = max(seen, event.id)
        yield event


def _again_and_again(open_stream: Callable[[], Iterator[T]], say: Say) -> Iterator[T]:
    """The values of one stream after the other, with pauses that grow to 5 s."""
    contact, pause, told = time.monotonic(), 0.2, False
    while True:
        try:
            for item in open_stream():
                contact, pause, told = time.monotonic(), 0.2, False
                yield item
        except Unavailable as error:
            if not isinstance(error, Lost) and error.code not in ("unreachable", "busy"):
                raise
            if time.monotonic() - contact > GIVE_UP:
                raise
            if not told and pause > 1:
                say("Connection lost, trying again ...")
                told = True
        time.sleep(pause)
        pause = min(pause * 1.7, 5.0)
