"""Deploys' event logs: written in groups by one thread, in order, and followed while they grow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mini_core.api import DeployEvent
from mini_core.store import Store
from mini_core.store.deploys import FINISHED

log = logging.getLogger(__name__)

ENDS = frozenset(("done", "failed", "cancelled"))
"""Kinds after which a log ends."""


class Journal:
    """`add` returns at once; `flush` returns when all that was added is on the disk. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, DeployEvent]] = []
        self._seqs: dict[int, int] = {}
        self._progress: dict[int, DeployEvent] = {}
        self._writing = False
        self._ended = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="deploy-journal", daemon=True)
        self._thread.start()

    def add(self, deploy: int, kind: str, text: str = "", data: Mapping[str, Any] | None = None) -> None:
        """One event, already redacted. "progress" replaces the one before and is not stored."""
        # Asked before locking: whoever calls may be in a transaction, and the writer needs the store.
        last = 0 if deploy in self._seqs else self._store.deploys.last_seq(deploy)
        with self._changed:
            seq = self._seqs.get(deploy, last)
            if kind == "progress":
                self._progress[deploy] = DeployEvent(seq=seq, at=time.time(), kind=kind, text=text)
            else:
                seq += 1
                item = DeployEvent(seq=seq, at=time.time(), kind=kind, text=text, data=data or {})
                self._waiting.append((deploy, item))
                self._progress.pop(deploy, None)
            self._seqs[deploy] = seq
            self._changed.notify_all()

    def end(self, deploy: int, kind: str, text: str, data: Mapping[str, Any]) -> None:
        """The last event, written at once: in the caller's transaction, so that a deploy which has ended has it."""
        last = self._store.deploys.last_seq(deploy)
        item = DeployEvent(seq=last + 1, at=time.time(), kind=kind, text=text, data=data)
        self._store.deploys.add_events([(deploy, item)])

    def flush(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._waiting or self._writing))

    def forget(self, deploy: int) -> None:
        """The deploy is over: what is kept of it in memory goes."""
        with self._changed:
            self._seqs.pop(deploy, None)
            self._progress.pop(deploy, None)
            self._ended += 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                batch, self._waiting, self._writing = self._waiting, [], True
                closed = self._closed
            try:
                if batch:
                    self._store.deploys.add_events(batch)
            except Exception:  # such as a full disk: lines are lost, and the deploy goes on to say so
                log.exception("%d lines of deploys could not be stored", len(batch))
            finally:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()
            if closed:
                return

    def follow(self, deploy: int, after: int, *, follow: bool) -> Iterator[DeployEvent]:
        """Events newer than `after`; with follow, until the deploy has ended."""
        shown: DeployEvent | None = None
        self._await_writer()
        while True:
            ended_before = self._ended
            events = self._store.deploys.events(deploy, after=after)
            for item in events:
                yield item
                after = item.seq
                if item.kind in ENDS:
                    return
            if not events:
                ended = self._store.deploys.get(deploy).state in FINISHED
                if ended and self._store.deploys.last_seq(deploy) > after:
                    continue  # it came with the end, since the look above
                if ended or not follow or self._closed:
                    return
            progress = self._progress.get(deploy)
            if follow and progress is not None and progress is not shown:
                shown = progress
                yield progress
            with self._changed:
                nothing_new = self._seqs.get(deploy, 0) <= after and self._progress.get(deploy) is shown
                if nothing_new and self._ended == ended_before:
                    self._changed.wait(1.0)
                    continue
            self._await_writer()

    def _await_writer(self) -> None:
        """What was said before can be read then."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._writing), 1.0)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(5.0)
