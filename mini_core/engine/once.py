"""Commands that run once and end: the release phase and the scripts of app.json. Never twice for one deploy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from mini_core.engine.failures import InstanceFailed, ended
from mini_core.engine.job import DeployJob
from mini_core.engine.parts import Parts
from mini_core.engine.specs import limits_of, new_instance, spec_of
from mini_core.store.records import App, Instance, StoredRelease
from mini_core.types import InstanceStatus, LogLine


def run_once(
    parts: Parts, job: DeployJob, app: App, stored: StoredRelease, name: str, command: Sequence[str], code: str
) -> None:
    """Runs the command in the release's image, its output in the deploy's log.

    name: as which it appears ("release", "postdeploy"). One that this deploy has started before is attached to, or,
    where it has ended, only asked how; so its instance stays, to be removed by the reconciler once the deploy is
    over. Raises InstanceFailed with `code` where it does not end with 0.
    """
    found = parts.store.instances.find(app=app.id, deploy=job.deploy.id, process=name, kind="release")
    item = found[0] if found else new_instance(parts, app, stored, name, 1, "release", deploy=job.deploy.id)
    begun = f"Running the {name} command"
    if not found:
        job.emit(begun, kind="info")
    told = parts.store.deploys.lines_after(job.deploy.id, begun) if found else 0
    failed = _outcome(parts, job, app, stored, item, command, fresh=not found, told=told)
    if failed is not None:
        failed.code = failed.code if failed.code == "interrupted" else code
        raise failed


def _outcome(
    parts: Parts,
    job: DeployJob,
    app: App,
    stored: StoredRelease,
    item: Instance,
    command: Sequence[str],
    *,
    fresh: bool,
    told: int,
) -> InstanceFailed | None:
    """None where it ended well. told: how many of its lines are in the deploy's log already."""
    if item.exit_code == 0:
        return None
    name, memory = f"The {item.process} command", limits_of(parts, stored, item.process).memory
    if not fresh and parts.runtime.status(item.id) is None:
        return InstanceFailed(
            f"{name} was interrupted, and is not run twice.",
            code="interrupted",
            hint=f"See how far it came: mini deploys show {job.deploy.id} --log",
        )
    parts.runtime.start(spec_of(parts, app, stored, item, command=command), job)
    with follow(parts, item.id, lambda line: job.emit(line.text), skip=told) as lines:
        status = _wait(parts, job, item)
    parts.store.instances.change(item.id, exit_code=status.exit_code if status else None)
    if status is None:
        return InstanceFailed(f"{name} was removed from outside.", code="gone")
    return None if status.exit_code == 0 else ended(app.name, name, status, memory, lines)


def _wait(parts: Parts, job: DeployJob, item: Instance) -> InstanceStatus | None:
    """How it ended; None where it is gone. Raises Cancelled."""
    while True:
        job.check()
        status = parts.runtime.wait(item.id, 0.5)
        if status is not None:
            return status
        if parts.runtime.status(item.id) is None:
            return None


class follow(contextlib.AbstractContextManager[list[LogLine]]):  # noqa: N801 - reads as a statement
    """Hands on an instance's lines as they come; at the end of the block all that it wrote were handed on, but for the
    first `skip`."""

    def __init__(self, parts: Parts, instance: str, tell: Callable[[LogLine], None], *, skip: int = 0) -> None:
        self._parts = parts
        self._instance = instance
        self._tell = tell
        self._skip = skip
        self._lines: list[LogLine] = []
        self._lock = threading.Lock()
        self._ended = False

    def __enter__(self) -> list[LogLine]:
        threading.Thread(target=self._run, name=f"follow-{self._instance}", daemon=True).start()
        return self._lines

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
        for line in list(self._parts.runtime.logs(self._instance))[len(self._lines) :]:
            self._add(line)

    def _run(self) -> None:
        for line in self._parts.runtime.logs(self._instance, follow=True):
            with self._lock:
                if self._ended:
                    return
                self._add(line)

    def _add(self, line: LogLine) -> None:
        self._lines.append(line)
        if len(self._lines) > self._skip:
            self._tell(line)
