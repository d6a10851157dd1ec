"""Who goes next: one deploy at a time per app, in the order they came; each ends, whatever happens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mini_core.api import DeployState, Failure
from mini_core.deploy import Pipeline
from mini_core.engine import describe, intake
from mini_core.engine.failures import failure_of
from mini_core.engine.job import DeployJob
from mini_core.engine.journal import Journal
from mini_core.engine.parts import Parts
from mini_core.engine.routing import Publisher
from mini_core.errors import Cancelled, Conflict, MiniError, NotFound
from mini_core.releases import prune_images
from mini_core.store.deploys import FINISHED
from mini_core.store.records import App, Deploy, Request, StoredRelease
from mini_core.types import to_data

log = logging.getLogger(__name__)

OVERTIME = 60.0
"""Seconds past its deadline after which a deploy that hangs in somebody else's call is given up."""

CLOSE_PATIENCE = 5.0
"""Seconds that closing waits for what is under way to let go."""

STEPS = ("received", "planned", "built", "released", "starting", "healthy", "routed")
"""Of a deploy, up to the commit point."""

KEPT_DEPLOYS = 100
"""Per app, with their logs."""


class DeployQueue:
    """`nudge` wakes the reconciler."""

    def __init__(self, parts: Parts, publisher: Publisher, journal: Journal, nudge: Callable[[], None]) -> None:
        self._parts = parts
        self._store = parts.store
        self._publisher = publisher
        self._journal = journal
        self._nudge = nudge
        self._build = intake.Build(parts.settings.builds)
        self._lock = threading.Lock()
        self._jobs: dict[int, DeployJob] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._closed = False

    # --- in

    def submit(self, app: App, kind: str, request: Request, actor: str, reason: str, base_url: str = "") -> Deploy:
        """Stores the deploy and starts it as soon as those before it have ended."""
        return self._submit(app, kind, request, actor, reason=reason, base_url=base_url)

    def submit_archive(self, app: App, request: Request, actor: str, archive: Path, base_url: str) -> Deploy:
        columns = {"reason": "deploy", "base_url": base_url, "archive": str(archive)}
        return self._submit(app, "deploy", request, actor, **columns)

    def _submit(self, app: App, kind: str, request: Request, actor: str, **columns: str) -> Deploy:
        with self._store.transaction():
            before = self._store.deploys.unfinished(app.id)
            deploy = self._store.deploys.add(app.id, kind, request, actor, **columns)
            what = {"deploy": deploy.id, "kind": kind}
            if columns["reason"] != kind:
                what["reason"] = columns["reason"]
            self._store.events.add("deploy.created", actor, app.name, what)
        if before:
            first = before[-1]
            seconds = time.time() - first.created_at
            text = f"Waiting for deploy {first.id} (key {first.actor}, {seconds:.0f} s)"
            self._journal.add(deploy.id, "info", text)
        self.pump(app.id)
        return self._store.deploys.get(deploy.id)

    def pump(self, app: int) -> None:
        """Starts the app's next deploy, unless one runs."""
        with self._lock:
            if self._closed:
                return
            deploy = self._store.deploys.claim(app)
            if deploy is not None:
                self._spawn(deploy, lambda pipeline: pipeline.run())

    def _spawn(self, deploy: Deploy, work: Callable[[Pipeline], None]) -> None:
        app = self._store.apps.by_id(deploy.app)
        job = DeployJob(self._store, self._journal, self._parts.book, app, deploy)
        self._jobs[deploy.id] = job
        thread = threading.Thread(
            target=self._carry_out, args=(app, job, work), name=f"deploy-{deploy.id}", daemon=True
        )
        self._threads = {number: item for number, item in self._threads.items() if item.is_alive()}
        self._threads[deploy.id] = thread
        thread.start()

    # --- under way

    def _carry_out(self, app: App, job: DeployJob, work: Callable[[Pipeline], None]) -> None:
        try:
            self._run(app, job, work)
        except NotFound:
            log.info("deploy %d: its app was destroyed meanwhile", job.deploy.id)
        except Exception:
            if not self._closed:
                log.exception("deploy %d could not be ended properly", job.deploy.id)

    def _run(self, app: App, job: DeployJob, work: Callable[[Pipeline], None]) -> None:
        deploy = job.deploy
        pipeline: Pipeline | None = None
        try:
            request = self._store.deploys.request(deploy.id)
            self._parts.pending[app.id] = tuple(request.env.values())
            job.redact = self._parts.redactor(app)
            pipeline = Pipeline(self._parts, self._publisher, self._build, job, app, request, self._nudge)
            work(pipeline)
            self._succeeded(job, pipeline)
        except BaseException as error:
            if self._closed:
                return  # as after a crash: the next controller ends it
            self._failed(job, pipeline, error)
        finally:
            self._forget(app, deploy)
        self._tidy(app, deploy)
        self.pump(app.id)

    def _succeeded(self, job: DeployJob, pipeline: Pipeline) -> None:
        deploy = job.deploy
        if pipeline.unchanged:
            job.emit("Unchanged: nothing was built or restarted", kind="info")
        self._end(deploy, "done", unchanged=int(pipeline.unchanged), step=job.step if pipeline.unchanged else "done")

    def _failed(self, job: DeployJob, pipeline: Pipeline | None, error: BaseException) -> None:
        """Before ROUTED all is as it was; after it the release is live, and only this is told."""
        deploy = job.deploy
        failure = failure_of(error, job.step, job.redact)
        if self._store.deploys.get(deploy.id).state in FINISHED:
            return None
        if pipeline is not None and pipeline.routed:
            job.emit(f"{failure.message} The release is live all the same.", kind="warning")
            return self._end(deploy, "done", step="done")
        if pipeline is not None:
            with suppress(MiniError):
                pipeline.bring_back()
        self.roll_back(deploy)
        cancelled = isinstance(error, Cancelled) and error.code != "timeout"
        return self._end(deploy, "cancelled" if cancelled else "failed", failure)

    def roll_back(self, deploy: Deploy) -> None:
        """What the deploy made is on its way out; the reconciler removes it."""
        with self._store.transaction():
            for item in self._store.instances.find(app=deploy.app, deploy=deploy.id, phase="new"):
                self._store.instances.change(item.id, phase="retired", routed=0)
            version = self._store.deploys.get(deploy.id).release
            if version is not None and self._store.releases.get(deploy.app, version).state == "pending":
                self._store.releases.set_state(deploy.app, version, "failed")

    def _end(self, deploy: Deploy, state: DeployState, failure: Failure | None = None, **columns: object) -> None:
        """The row and the last event, at once."""
        self._journal.flush()
        with self._store.transaction():
            self._store.deploys.finish(deploy.id, state, failure=failure, **columns)
            ended = self._store.deploys.get(deploy.id)
            app = self._store.apps.by_id(deploy.app)
            data: dict[str, object] = {
                "deploy": deploy.id,
                "kind": deploy.kind,
                "release": ended.release,
                "unchanged": ended.unchanged,
            }
            if failure is not None:
                data |= {"code": failure.code, "message": failure.message, "step": failure.step}
            self._store.events.add(f"deploy.{state}", deploy.actor, app.name, data)
            info = describe.deploy_info(self._parts, ended)
            self._journal.end(deploy.id, state, failure.message if failure else "", to_data(info))
        self._journal.forget(deploy.id)

    def _forget(self, app: App, deploy: Deploy) -> None:
        self._parts.pending.pop(app.id, None)
        self._jobs.pop(deploy.id, None)

    def _tidy(self, app: App, deploy: Deploy) -> None:
        """Behind the end of a deploy, which nobody should wait for."""
        self._nudge()
        self._remove_archive(deploy)
        self._store.deploys.prune(app.id, KEPT_DEPLOYS)
        with suppress(MiniError):
            prune_images(self._parts, self._store.apps.by_id(app.id))

    # --- from outside

    def check_idle(self, app: App, instead: str = "") -> None:
        """Raises Conflict while a deploy of the app is under way. instead: what else can be done about it."""
        if busy := self._store.deploys.unfinished(app.id):
            hint = f"mini deploys cancel {busy[0].id}{instead}"
            raise Conflict(f"Deploy {busy[0].id} of {app.name} is under way.", hint=hint, code="busy")

    def cancel(self, number: int, actor: str) -> Deploy:
        """Raises Conflict for a deploy that is live already."""
        with self._store.transaction():
            deploy = self._store.deploys.get(number)
            if deploy.state in FINISHED:
                raise Conflict(f"Deploy {number} has ended: {deploy.state}.", code="ended")
            if deploy.step in ("routed", "drained"):
                raise Conflict(f"Deploy {number} is live already.", hint="mini rollback goes back.", code="ended")
            self._store.deploys.change(number, cancelled=1)
            app = self._store.apps.by_id(deploy.app)
            self._store.events.add("deploy.cancel", actor, app.name, {"deploy": number})
        if deploy.state == "waiting":
            self._end(
                deploy, "cancelled", Failure(code="cancelled", message=f"Cancelled by key {actor} while it waited.")
            )
            self._remove_archive(deploy)
        elif job := self._jobs.get(number):
            job.cancel(actor)
        return self._store.deploys.get(number)

    @staticmethod
    def _remove_archive(deploy: Deploy) -> None:
        if deploy.archive:
            Path(deploy.archive).unlink(missing_ok=True)

    def cancel_all(self, app: App, actor: str, timeout: float = 30.0) -> None:
        """Ends what is under way for an app that is going."""
        for deploy in reversed(self._store.deploys.unfinished(app.id)):
            with suppress(Conflict):
                self.cancel(deploy.id, actor)
        deadline = time.monotonic() + timeout
        while self._store.deploys.running(app.id) and time.monotonic() < deadline:
            time.sleep(0.05)

    def expire(self) -> None:
        """Gives up deploys that hang in a call which heeds no deadline."""
        for deploy in self._store.deploys.unfinished():
            job = self._jobs.get(deploy.id)
            if job is None or time.monotonic() < job.deadline + OVERTIME or deploy.step in ("routed", "drained"):
                continue
            job.cancelled.set()
            self.roll_back(deploy)
            message = f"Gave up after {deploy.timeout:.0f} s: {job.step} does not return."
            self._end(deploy, "failed", Failure(code="timeout", message=message, step=job.step))
            self.pump(deploy.app)

    # --- after a restart

    def recover(self) -> bool:
        """Ends what was under way when the last process ended: forward after ROUTED, back before it, except where
        a release command was running. Commands that run are attached to again. Whether there was anything."""
        interrupted = [deploy for deploy in self._store.deploys.unfinished() if deploy.state == "running"]
        for deploy in interrupted:
            self._recover(deploy)
        for app in self._store.apps.all():
            if app.hold:
                with self._store.transaction():
                    self._store.apps.change(app.id, hold=0)
                    self._store.meta.next_generation()
            self.pump(app.id)
        return bool(interrupted)

    def _recover(self, deploy: Deploy) -> None:
        if deploy.step in ("routed", "drained"):
            return self._resume(deploy, "the release is live", Pipeline.finish)
        made = self._store.instances.find(app=deploy.app, deploy=deploy.id, phase="new")
        if deploy.step == "released" and made and all(item.kind == "release" for item in made):
            return self._resume(deploy, "the release command goes on", Pipeline.resume)
        self.roll_back(deploy)
        failure = Failure(
            code="interrupted",
            message="The controller was restarted meanwhile.",
            hint="Deploy again." if deploy.kind == "deploy" else "Try again.",
            step=STEPS[STEPS.index(deploy.step) + 1],
        )
        self._remove_archive(deploy)
        return self._end(deploy, "failed", failure)

    def _resume(self, deploy: Deploy, what: str, work: Callable[[Pipeline, StoredRelease], None]) -> None:
        assert deploy.release is not None
        stored = self._store.releases.get(deploy.app, deploy.release)
        self._journal.add(deploy.id, "info", f"The controller was restarted; {what}")
        with self._lock:
            self._spawn(deploy, lambda pipeline: work(pipeline, stored))

    def close(self) -> None:
        """No further deploy starts; what is under way is left as a crash would leave it, and the next controller
        ends it."""
        with self._lock:
            self._closed = True
            for job in list(self._jobs.values()):
                job.cancelled.set()
            threads = list(self._threads.values())
        deadline = time.monotonic() + CLOSE_PATIENCE
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
