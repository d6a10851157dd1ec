"""The server's side of plugins: what they are handed, told, and asked to do durably."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mini_core.engine.parts import Parts
from mini_core.errors import MiniError
from mini_core.store.records import Work
from mini_core.types import LogLine

log = logging.getLogger(__name__)

APPS_AT_ONCE = 8
"""How many apps' stored jobs are carried out side by side."""

LONGEST_RETRY = 300.0
"""Seconds between attempts at a job that keeps failing."""


class PluginAppData:
    """Implements `interfaces.AppData`: everything is stored encrypted, secret or not."""

    def __init__(self, parts: Parts, plugin: str, app: str) -> None:
        self._data = parts.store.plugin_data
        self._plugin = plugin
        self._app = parts.store.apps.get(app).id

    def get(self, key: str) -> Any:
        return self._data.get(self._plugin, self._app, key)

    def set(self, key: str, item: Any, *, secret: bool = False) -> None:  # noqa: ARG002 - all is encrypted
        self._data.set(self._plugin, self._app, key, item)

    def delete(self, key: str) -> None:
        self._data.delete(self._plugin, self._app, key)

    def keys(self) -> tuple[str, ...]:
        return self._data.keys(self._plugin, self._app)


class PluginPlatform:
    """Implements `interfaces.Platform` for one plugin."""

    def __init__(self, parts: Parts, plugin: str, release: Callable[[str, str], None]) -> None:
        self.id = parts.platform
        self.settings: Mapping[str, Any] = parts.settings.plugins.get(plugin, {})
        self.folder: Path = parts.paths.data / "plugins" / plugin
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._parts = parts
        self._plugin = plugin
        self._release = release
        self._stopped = threading.Event()

    def apps(self) -> tuple[str, ...]:
        return tuple(app.name for app in self._parts.store.apps.all())

    def data(self, app: str) -> PluginAppData:
        return PluginAppData(self._parts, self._plugin, app)

    def logs(self, app: str, *, lines: int = 100) -> tuple[LogLine, ...]:
        handle = self._parts.store.apps.get(app).handle
        return tuple(self._parts.book.of(handle).tail(lines, lambda _: True))

    def request_release(self, app: str, reason: str) -> None:
        self._release(app, reason)

    def every(self, interval: float, job: Callable[[], None]) -> None:
        def run() -> None:
            while not self._stopped.wait(interval):
                try:
                    job()
                except Exception:
                    log.exception("a periodic job of plugin %s failed", self._plugin)

        threading.Thread(target=run, name=f"plugin-{self._plugin}", daemon=True).start()

    def close(self) -> None:
        self._stopped.set()


class Notifier:
    """Tells one plugin of stored events, each at least once: the cursor moves after the plugin has returned."""

    def __init__(self, parts: Parts, plugin: str) -> None:
        self._parts = parts
        self._plugin = plugin
        self._closed = False
        self.cursor = parts.store.events.cursor(plugin)
        self._thread = threading.Thread(target=self._run, name=f"events-{plugin}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._tell()
            except Exception:
                log.exception("events for plugin %s could not be read; trying again", self._plugin)
                time.sleep(1.0)

    def _tell(self) -> None:
        """What there is, or, where there is nothing, waits for more."""
        events = self._parts.store.events
        count = events.count
        found = events.after(self.cursor, limit=100)
        for event in found:
            if self._closed:
                return
            try:
                self._parts.hooks.event(self._plugin, event)
            except Exception:
                log.exception("plugin %s failed to take event %d (%s)", self._plugin, event.id, event.kind)
            self.cursor = event.id
            events.set_cursor(self._plugin, event.id)
        if not found:
            events.wait(count, 30.0)

    def close(self) -> None:
        self._closed = True
        self._parts.store.events.wake()
        self._thread.join(5.0)


class Worker:
    """Carries out stored jobs, those of an app one after the other, each until it is done. `kinds` are the platform's
    own; a job of the kind "hook" calls a plugin."""

    def __init__(self, parts: Parts, kinds: Mapping[str, Callable[[Work], None]]) -> None:
        self._parts = parts
        self._kinds = kinds
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="durable-jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, job: int, timeout: float) -> bool:
        """Whether the job is done, after waiting for it."""
        with self._changed:
            self._changed.notify_all()
            return self._changed.wait_for(lambda: all(item.id != job for item in self._parts.store.jobs.all()), timeout)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._look()
            except Exception:
                log.exception("the stored jobs could not be looked at; trying again")
                time.sleep(1.0)

    def _look(self) -> None:
        """Attempts all that is due, then waits for more."""
        now = time.time()
        due: dict[str, list[Work]] = {}
        for job in self._parts.store.jobs.all():
            if not now < job.next_try <= now + LONGEST_RETRY:  # or the clock was set back
                due.setdefault(job.app, []).append(job)
        if due:
            with ThreadPoolExecutor(min(len(due), APPS_AT_ONCE), thread_name_prefix="durable-job") as pool:
                list(pool.map(self._attempt_all, due.values()))
        with self._changed:
            if not self._closed:
                self._changed.wait(1.0 if self._parts.store.jobs.all() else 60.0)

    def _attempt_all(self, jobs: Iterable[Work]) -> None:
        for job in jobs:
            if not self._closed:
                self._attempt(job)

    def _attempt(self, job: Work) -> None:
        try:
            if job.kind == "hook":
                self._call_hook(job)
            else:
                self._kinds[job.kind](job)
        except Exception as error:
            log.warning("job %s of %s failed", job.kind, job.plugin or "the platform", exc_info=error)
            wait = min(2.0**job.attempts, LONGEST_RETRY)
            text = error.message if isinstance(error, MiniError) else f"{type(error).__name__}: {error}"
            self._parts.store.jobs.failed(job, text, time.time() + wait)
        else:
            self._parts.store.jobs.done(job)
        with self._changed:
            self._changed.notify_all()

    def _call_hook(self, job: Work) -> None:
        hook, arguments = job.data["hook"], dict(job.data["arguments"])
        if job.plugin in self._parts.hooks.implementing(hook):
            self._parts.hooks.durable(hook, job.plugin, **arguments)

    def close(self) -> None:
        self._closed = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(10.0)


def add_hook_jobs(parts: Parts, hook: str, app: str, arguments: Mapping[str, str]) -> None:
    """One job for each plugin that implements the hook."""
    for plugin in parts.hooks.implementing(hook):
        parts.store.jobs.add("hook", app, plugin, {"hook": hook, "arguments": arguments})
