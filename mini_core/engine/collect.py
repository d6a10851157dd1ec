"""Log lines on their way from instances and the router to the stored logs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from mini_core.engine.parts import Parts
from mini_core.errors import MiniError
from mini_core.redact import Redactor
from mini_core.store.records import App, Instance
from mini_core.types import LogLine, replace

log = logging.getLogger(__name__)

RETRY = 2.0
"""Seconds before a log that could not be read is tried again."""

REDACTORS_LAST = 5.0
"""Seconds for which an app's secrets are not looked up again."""


class Redactors:
    """An app's redactor, looked up anew when its secrets may have changed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._cache: dict[int, tuple[float, Redactor]] = {}

    def of(self, app: App) -> Redactor:
        made, redactor = self._cache.get(app.id, (0.0, None))
        if redactor is None or time.monotonic() - made > REDACTORS_LAST:
            redactor = self._parts.redactor(app)
            self._cache[app.id] = (time.monotonic(), redactor)
        return redactor

    def forget(self, app: int) -> None:
        self._cache.pop(app, None)


class Collector:
    """Reads one instance's log to its end, in a thread of its own. Resumes after the last line that is stored."""

    def __init__(self, parts: Parts, redactors: Redactors, app: App, item: Instance) -> None:
        self._parts = parts
        self._redactors = redactors
        self._app = app
        self._item = item
        self._read = threading.Condition()
        self._last = 0.0
        self._stopped = False
        self._source: Iterator[LogLine] = iter(())
        self._thread = threading.Thread(target=self._run, name=f"log-{item.id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._follow()
                return
            except Exception as error:
                if self._stopped:
                    return
                log.warning("the log of %s could not be read: %s", self._item.id, error)
                time.sleep(RETRY)

    def _follow(self) -> None:
        stored = self._parts.book.last_of(self._app.handle, self._item.id, self._item.created_at)
        since = stored[-1].at if stored else 0.0
        known = [line.text for line in stored]
        redact = self._redactors.of(self._app)
        self._source = self._parts.runtime.logs(self._item.id, since=since, follow=True)
        while not self._stopped and (line := next(self._source, None)):
            redact = self._redactors.of(self._app)
            text = redact(line.text)
            if line.at > since or (line.at == since and text not in known):
                self._store(line, text)
            with self._read:
                self._last = max(self._last, line.at)
                self._read.notify_all()

    def _store(self, line: LogLine, text: str) -> None:
        app = self._app
        stored = LogLine(
            at=line.at,
            app=app.name,
            source=line.source,
            text=text,
            process=self._item.name,
            instance=self._item.id,
            release=self._item.release,
            stream=line.stream,
        )
        self._parts.book.append(app.handle, [stored])

    def finish(self, timeout: float = 2.0) -> None:
        """Waits until what the instance has written so far is stored."""
        try:
            lines = list(self._parts.runtime.logs(self._item.id, since=self._last))
        except MiniError:
            return
        newest = max((line.at for line in lines), default=0.0)
        with self._read:
            self._read.wait_for(lambda: self._last >= newest or not self._thread.is_alive(), timeout)

    def stop(self) -> None:
        """Nothing more may come, and the instance may be there again under its name before that shows."""
        self._stopped = True
        with suppress(ValueError):  # a generator that runs; it ends when the instance is removed
            getattr(self._source, "close", lambda: None)()


class Collectors:
    """One collector for each instance that there is."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._redactors = Redactors(parts)
        self._lock = threading.Lock()
        self._collectors: dict[str, Collector] = {}

    def sync(self, instances: Iterable[Instance], existing: Iterable[str]) -> None:
        """Starts collectors for those that exist and have none."""
        there = set(existing)
        for item in instances:
            if item.id in there:
                self.ensure(item)

    def ensure(self, item: Instance) -> None:
        if item.kind == "release" or item.attached:
            return  # its lines are the deploy's, or those of the client that holds it
        with self._lock:
            if item.id not in self._collectors:
                app = self._parts.store.apps.by_id(item.app)
                self._redactors.forget(app.id)  # its release may have brought new secrets
                self._collectors[item.id] = Collector(self._parts, self._redactors, app, item)

    def finish(self, item: Instance) -> None:
        """Before an instance is removed: its last words are stored. Until then its collector stays known, so that
        nobody starts a second one, which would store them again."""
        self.ensure(item)
        with self._lock:
            collector = self._collectors.get(item.id)
        if collector is None:
            return
        collector.finish()
        collector.stop()
        with self._lock:
            if self._collectors.get(item.id) is collector:
                del self._collectors[item.id]

    def remark(self, app: App, item: Instance, text: str) -> None:
        """A line of the platform's own about an instance."""
        line = LogLine(
            at=time.time(), app=app.name, source="platform", text=text, process=item.name, release=item.release
        )
        self._parts.book.append(app.handle, [line])

    def close(self) -> None:
        with self._lock:
            collectors, self._collectors = list(self._collectors.values()), {}
        for item in collectors:
            item.stop()


class RouterLine(msgspec.Struct):
    at: float
    app: str = ""
    text: str = ""
    instance: str = ""
    cause: str = ""


class RouterLog:
    """Follows `router.log` in the router's state folder (JSON lines; renamed to `.1` when it grows too large), from
    where it is at the start."""

    INTERVAL = 0.5

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._redactors = Redactors(parts)
        self._path = Path(parts.router_settings.state) / "router.log"
        self._position, self._inode = self._end()
        self._rest = b""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="router-log", daemon=True)
        self._thread.start()

    def _end(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0
        return status.st_size, status.st_ino

    def _run(self) -> None:
        while not self._closed.wait(self.INTERVAL):
            try:
                self.read()
            except Exception as error:
                log.warning("%s could not be read: %s", self._path, error)

    def read(self) -> None:
        size, inode = self._end()
        if inode != self._inode:
            self._take(self._path.with_name("router.log.1"), self._inode)
            self._position, self._inode, self._rest = 0, inode, b""
        if size > self._position:
            self._take(self._path, inode)

    def _take(self, path: Path, inode: int) -> None:
        if not inode or not path.exists() or path.stat().st_ino != inode:
            return
        with path.open("rb") as file:
            file.seek(self._position)
            data = self._rest + file.read()
            self._position = file.tell()
        *whole, self._rest = data.split(b"\n")
        self._keep(whole)

    def _keep(self, raw: Iterable[bytes]) -> None:
        by_app: dict[str, list[LogLine]] = {}
        for item in raw:
            try:
                line = msgspec.json.decode(item, type=RouterLine)
            except msgspec.DecodeError:
                continue
            if line.app:
                text = f"{line.text} ({line.cause})" if line.cause else line.text
                kept = LogLine(at=line.at, app=line.app, source="router", text=text, instance=line.instance)
                by_app.setdefault(line.app, []).append(kept)
        apps = {app.name: app for app in self._parts.store.apps.all()} if by_app else {}
        for name, lines in by_app.items():
            if app := apps.get(name):
                redact = self._redactors.of(app)
                self._parts.book.append(app.handle, [replace(line, text=redact(line.text)) for line in lines])

    def close(self) -> None:
        self._closed.set()
        self._thread.join(2.0)
