"""A deploy under way, as the long operations that it consists of see it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mini_core.engine.journal import Journal
from mini_core.errors import Cancelled, MiniError
from mini_core.logs import LONGEST_LINE, LogBook
from mini_core.redact import Redactor
from mini_core.store import Store
from mini_core.store.records import App, Deploy
from mini_core.types import LogLine

TOOLS = frozenset(("output", "progress"))
"""Kinds of line that are not mini's own sentences."""

MOST_LINES = 20_000
"""Lines of tools' output kept with a deploy; the app's log has the last ones in any case."""


class DeployJob:
    """Implements `interfaces.Job`. Everything that passes through is redacted."""

    def __init__(self, store: Store, journal: Journal, book: LogBook, app: App, deploy: Deploy) -> None:
        self.deploy = deploy
        self.deadline = time.monotonic() + deploy.timeout
        self.cancelled = threading.Event()
        self.cancelled_by = ""
        self.redact = Redactor()
        self.step = deploy.step
        self._lines = 0
        self._store = store
        self._journal = journal
        self._book = book
        self._app = app
        if deploy.cancelled:
            self.cancelled.set()

    def emit(self, line: str, *, kind: str = "output") -> None:
        for part in line.splitlines() or [""]:
            mask = self.redact if kind in TOOLS else self.redact.own
            text = mask(part.rstrip())[:LONGEST_LINE]
            self._lines += kind == "output"
            if kind != "output" or self._lines < MOST_LINES:
                self._journal.add(self.deploy.id, kind, text)
            elif self._lines == MOST_LINES:
                self._journal.add(
                    self.deploy.id, "warning", f"More than {MOST_LINES} lines: see mini logs for the rest"
                )
            if kind != "progress":
                process = f"deploy.{self.deploy.id}"
                line_ = LogLine(at=time.time(), app=self._app.name, source="build", text=text, process=process)
                self._book.append(self._app.handle, [line_])

    def cancel(self, actor: str) -> None:
        self.cancelled_by = actor
        self.cancelled.set()

    def check(self) -> None:
        if self.cancelled.is_set():
            by = f" by key {self.cancelled_by}" if self.cancelled_by else ""
            raise Cancelled(f"Cancelled{by}.", hint="The app goes on as it was.")
        if time.monotonic() > self.deadline:
            raise Cancelled(
                f"The deploy took longer than {self.deploy.timeout:.0f} s.",
                hint=f"Give it more time: mini deploy --timeout {math.ceil(self.deploy.timeout / 30)}m",
                code="timeout",
            )

    @contextmanager
    def reaching(self, step: str) -> Iterator[dict[str, Any]]:
        """Work towards a step. What the block puts into the dict is written with it when it is reached."""
        self.check()
        columns: dict[str, Any] = {}
        started = time.monotonic()
        self._journal.add(self.deploy.id, "step", step, {"phase": "begin"})
        self.step = step
        try:
            yield columns
        except MiniError as error:
            error.step = error.step or step
            raise
        self._store.deploys.advance(self.deploy.id, step, **columns)
        seconds = round(time.monotonic() - started, 3)
        self._journal.add(self.deploy.id, "step", step, {"phase": "end", "seconds": seconds})


class QuietJob:
    """A job that nobody watches: it has a deadline, and its lines go where `tell` sends them."""

    def __init__(self, seconds: float, tell: Callable[[str], None] | None = None) -> None:
        self.deadline = time.monotonic() + seconds
        self.cancelled = threading.Event()
        self._tell = tell

    def emit(self, line: str, *, kind: str = "output") -> None:
        if self._tell is not None and kind != "progress":
            self._tell(line)

    def check(self) -> None:
        if self.cancelled.is_set() or time.monotonic() > self.deadline:
            raise Cancelled("It took too long.", code="timeout")
