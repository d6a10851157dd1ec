"""Commands that a user runs: in an instance of their own, or in one that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mini_core import api
from mini_core.engine.describe import find_instance
from mini_core.engine.job import QuietJob
from mini_core.engine.parts import Parts
from mini_core.engine.specs import new_instance, spec_of
from mini_core.errors import Conflict, MiniError, Unavailable, UsageError
from mini_core.interfaces import OneOff
from mini_core.reconcile import Reconciler
from mini_core.store.records import App

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


class Detached:
    """A one-off that goes on by itself: its output is its log, and closing lets go of it."""

    def __init__(self, parts: Parts, instance: str) -> None:
        self._parts = parts
        self._instance = instance

    def output(self) -> Iterator[tuple[str, bytes]]:
        yield "stdout", f"{self._instance}\n".encode()

    def write(self, data: bytes) -> None:  # noqa: ARG002
        raise UsageError("It runs detached: it has no input.")

    def close_stdin(self) -> None:
        return

    def resize(self, rows: int, columns: int) -> None:  # noqa: ARG002
        return

    def signal(self, number: int) -> None:  # noqa: ARG002 - it is asked to end, whatever the number
        self._parts.runtime.stop(self._instance, grace=self._parts.settings.grace)

    def wait(self) -> int:
        return 0

    def close(self) -> None:
        return


def run(parts: Parts, reconciler: Reconciler, app: App, request: api.OneOffRequest) -> OneOff:
    """A command in a new instance of the current release. Raises Conflict where there is none."""
    if app.release is None:
        raise Conflict(f"{app.name} has no release yet.", hint=f"mini deploy . {app.name}")
    _check(parts, request)
    stored = parts.store.releases.get(app.id, app.release)
    taken = [item.index for item in parts.store.instances.find(app=app.id, kind="oneoff")]
    item = new_instance(parts, app, stored, "run", max(taken, default=0) + 1, "oneoff")
    spec = spec_of(
        parts, app, stored, item, command=request.command, env=request.env, tty=request.tty, stdin=not request.detach
    )
    job = QuietJob(START_TIMEOUT)
    reconciler.sessions.add(item.id)
    try:
        parts.store.instances.change(item.id, phase="live")
        if request.detach:
            parts.runtime.start(spec, job)
            reconciler.sessions.discard(item.id)
            return Detached(parts, item.id)
        inner = parts.runtime.attach(spec, job)
        if request.tty:
            inner.resize(request.rows, request.columns)
    except BaseException:
        _end(reconciler, item.id)
        raise
    return Session(inner, lambda: _end(reconciler, item.id))


def _end(reconciler: Reconciler, instance: str) -> None:
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
