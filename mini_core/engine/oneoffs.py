"""Commands that a user runs: in an instance of their own, or in one that runs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator

from mini_core import api
from mini_core.engine.describe import find_instance
from mini_core.engine.job import QuietJob
from mini_core.engine.parts import Parts
from mini_core.engine.requests import current_release
from mini_core.engine.specs import ONE_SHOT, new_instance, spec_of
from mini_core.errors import MiniError, NotFound, Unavailable, UsageError
from mini_core.interfaces import OneOff
from mini_core.reconcile import Reconciler
from mini_core.store.records import App, Instance
from mini_core.types import InstanceSpec

START_TIMEOUT = 120.0


class Session:
    """Implements `interfaces.OneOff` around another one: when it is closed, what it ran in is removed."""

    def __init__(self, inner: OneOff, closed: Callable[[], None]) -> None:
        self._inner = inner
        self._closed: Callable[[], None] | None = closed

    def output(self) -> Iterator[tuple[str, bytes]]:
        return self._inner.output()

    def write(self, data: bytes) -> None:
        self._inner.write(data)

    def close_stdin(self) -> None:
        self._inner.close_stdin()

    def resize(self, rows: int, columns: int) -> None:
        self._inner.resize(rows, columns)

    def signal(self, number: int) -> None:
        self._inner.signal(number)

    def wait(self) -> int:
        return self._inner.wait()

    def close(self) -> None:
        closed, self._closed = self._closed, None
        try:
            self._inner.close()
        finally:
            if closed is not None:
                closed()


def run(parts: Parts, reconciler: Reconciler, app: App, request: api.OneOffRequest) -> OneOff:
    """A command in a new instance of the current release, its streams connected. Raises Conflict where there is
    none."""
    item, spec = _prepare(parts, app, request, attached=True)
    reconciler.sessions.add(item.id)
    try:
        parts.store.instances.change(item.id, phase="live")
        inner = parts.runtime.attach(spec, QuietJob(START_TIMEOUT))
        if request.tty:
            inner.resize(request.rows, request.columns)
    except BaseException:
        _end(parts, reconciler, item.id)
        raise
    return Session(inner, lambda: _end(parts, reconciler, item.id))


def start(parts: Parts, app: App, request: api.OneOffRequest) -> api.Started:
    """The same, going on by itself: its output is in the app's log, and how it ended, too."""
    item, spec = _prepare(parts, app, request, attached=False)
    parts.lent[item.id] = tuple(request.env.values())
    try:
        parts.store.instances.change(item.id, phase="live")
        parts.runtime.start(spec, QuietJob(START_TIMEOUT))
    except BaseException:
        parts.store.instances.change(item.id, phase="retired")
        raise
    return api.Started(name=item.name, id=item.id)


def stop(parts: Parts, app: App, name: str) -> None:
    """Ends a command that runs by itself, such as run.1. Raises NotFound."""
    found = [item for item in parts.store.instances.find(app=app.id, phase="live") if item.name == name]
    if found and found[0].kind not in ONE_SHOT:
        hint = f"mini scale {found[0].process}=0 -a {app.name}"
        raise UsageError(f"{name} is started again when it ends.", hint=hint)
    if not found:
        raise NotFound(f"{app.name} runs no command {name}.", hint=f"mini ps {app.name}", code="no-instance")
    parts.store.instances.change(found[0].id, phase="retired")


def _prepare(parts: Parts, app: App, request: api.OneOffRequest, *, attached: bool) -> tuple[Instance, InstanceSpec]:
    """Written down, with a number of its own."""
    stored = current_release(parts, app)
    _check(parts, request)
    shown = parts.redactor(app)(shlex.join(request.command))
    item = new_instance(parts, app, stored, "run", _number(parts, app), "oneoff", command=shown, attached=attached)
    parts.store.instances.change(item.id, started_at=time.time())
    command, env = request.command, request.env
    return item, spec_of(parts, app, stored, item, command=command, env=env, tty=request.tty, stdin=attached)


def _number(parts: Parts, app: App) -> int:
    """Never the same twice, so that a command's lines in the log are its own."""
    key = f"runs:{app.id}"
    with parts.store.transaction():
        number = int(parts.store.meta.get(key, "0")) + 1
        parts.store.meta.set(key, str(number))
    return number


def _end(parts: Parts, reconciler: Reconciler, instance: str) -> None:
    parts.store.instances.change(instance, phase="retired")
    reconciler.sessions.discard(instance)
    reconciler.nudge()


def execute(parts: Parts, app: App, request: api.OneOffRequest) -> OneOff:
    """A command in a running instance. Raises NotFound where it does not run."""
    if "exec" not in parts.runtime.abilities:
        raise Unavailable(f"The {parts.runtime.name} runtime cannot run commands in instances.", hint="mini run does.")
    _check(parts, request)
    item = find_instance(parts, app, request.instance)
    inner = parts.runtime.exec(item.id, request.command, tty=request.tty, env=request.env)
    if request.tty:
        try:
            inner.resize(request.rows, request.columns)
        except MiniError:
            inner.close()
            raise
    return inner


def _check(parts: Parts, request: api.OneOffRequest) -> None:
    if not request.command:
        raise UsageError("No command given.", hint="mini run -- COMMAND")
    if request.tty and "tty" not in parts.runtime.abilities:
        raise UsageError(f"The {parts.runtime.name} runtime has no terminals.", hint="mini run --no-tty -- COMMAND")
