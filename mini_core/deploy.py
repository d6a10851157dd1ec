"""How a deploy goes.

    received → planned → built → released → starting → healthy → ROUTED → drained → done

Everything that makes or replaces instances takes this way: a new source, a changed environment, a rollback, other
limits or volumes, a restart. A step is written down when it is reached; instances, addresses and releases are
written down before anything is made of them. ROUTED is one transaction: before it a failure, or a crash of this
process, changes nothing for the app that runs; after it the deploy is finished, whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from mini_core import releases
from mini_core.engine import intake, rollout
from mini_core.engine.job import DeployJob, QuietJob
from mini_core.engine.once import run_once
from mini_core.engine.parts import Parts
from mini_core.engine.ports import find_port
from mini_core.engine.routing import Publisher, target_of
from mini_core.engine.specs import processes_of, spec_of
from mini_core.engine.volumes import name_of
from mini_core.errors import Cancelled, Conflict, MiniError, SourceError, Unavailable
from mini_core.manifest import shell
from mini_core.planned import Planned
from mini_core.planning import require_start
from mini_core.releases import Draft
from mini_core.sources import TarSource
from mini_core.store.records import App, Extras, Instance, Request, StoredRelease
from mini_core.types import Secret, replace

ROUTER_PATIENCE = 30.0
"""Seconds that a router which does not answer is given to come back, before the deploy goes on without it."""

BRING_BACK_PATIENCE = 60.0
"""Seconds for the old release to be healthy again after a failed change-over."""


class Pipeline:
    """One deploy under way. `nudge` wakes the reconciler, which stops what the deploy has retired."""

    def __init__(
        self,
        parts: Parts,
        publisher: Publisher,
        build: intake.Build,
        job: DeployJob,
        app: App,
        request: Request,
        nudge: Callable[[], None],
    ) -> None:
        self.parts = parts
        self.store = parts.store
        self.publisher = publisher
        self.build = build
        self.job = job
        self.deploy = job.deploy
        self.app = app
        self.request = request
        self.nudge = nudge
        self.routed = False
        self.unchanged = False
        self._stopped_at: float | None = None
        self._stopping_said = "warning"

    def run(self) -> None:
        draft = self.draft()
        if self.unchanged:
            return
        stored = self.release(draft) if draft else self.current()
        self.run_release_command(stored)
        self.go_live(stored)

    def go_live(self, stored: StoredRelease) -> None:
        team = self.start(stored)
        self.route(stored, team)
        self.run_postdeploy(stored)
        self.drain(team)

    def resume(self, stored: StoredRelease) -> None:
        """Goes on where the release command ran when the last process ended."""
        self.run_release_command(stored)
        self.go_live(stored)

    def finish(self, stored: StoredRelease) -> None:
        """Goes on behind ROUTED, where the last process ended. The reconciler drains what was retired."""
        self.routed = True
        if self.deploy.step == "routed":
            self.run_postdeploy(stored)
        self.drain(rollout.Team())

    # --- received → planned → built

    def draft(self) -> Draft | None:
        """What is to be released; None where it is the release that is there."""
        kind = self.deploy.kind
        if kind == "deploy":
            return self._from_source()
        if self.app.release is None and kind == "env":
            self.store.apps.replace_env(self.app.id, releases.changed_env(self.parts, self.app, self.request))
            self.unchanged = True
            return None
        if self.app.release is None:
            raise Conflict(f"{self.app.name} has no release yet.", hint=f"mini deploy . {self.app.name}")
        if kind in ("restart", "start") or (kind == "scale" and not self.request.limits):
            return None
        version = self.request.version or self.app.release
        stored = self.store.releases.get(self.app.id, version)
        if stored.release.image.kind not in self.parts.runtime.accepts:
            raise Conflict(
                f"v{version} was built for the {stored.release.runtime} runtime; this platform runs on "
                f"{self.parts.runtime.name}.",
                hint="Deploy its source again: mini deploy",
                code="other-runtime",
            )
        if not releases.image_is_there(self.parts, stored):
            raise releases.image_gone(self.parts, self.app, stored)
        if "limits" not in self.parts.runtime.abilities and any(item.cpu for item in self.request.limits.values()):
            self.job.emit(f"The {self.parts.runtime.name} runtime cannot hold a CPU limit", kind="warning")
        draft = releases.from_release(self.parts, self.app, stored, self.request, kind, self.deploy.reason)
        if kind == "rollback":
            self._tell_volumes(draft)
        self.unchanged = kind != "rollback" and self._is_running(draft)
        return draft

    def _tell_volumes(self, draft: Draft) -> None:
        """What a release no longer mounts is kept, and should not be looked for."""
        there = {item.target for item in draft.volumes}
        for gone in self.current().release.volumes if self.app.release is not None else ():
            if gone.target not in there:
                name = "" if gone.name == name_of(gone.target) else f" --name {gone.name}"
                again = f"mini volumes add {gone.target}{name} -a {self.app.name}"
                text = f"That release has no volume at {gone.target}: its files are kept for {again}"
                self.job.emit(text, kind="warning")

    def _from_source(self) -> Draft | None:
        options = self.request.options
        with intake.unpacked(self.parts, Path(self.deploy.archive), str(self.deploy.id)) as (source, digest):
            build_env = self.store.apps.env(self.app.id, build=True)
            with self.job.reaching("planned") as columns:
                columns["digest"] = digest
                planned = self._plan(source, build_env)
            concerned = intake.watched(source, self.app.name, planned, digest)
            draft = self._draft_of(planned, concerned, build_env)
            self._tell_volumes(draft)
            if not options.no_cache:
                reused = intake.reusable(self.parts, self.app, draft.build_key)
                draft = replace(draft, image=reused)
                self.unchanged = reused is not None and self._is_running(draft)
            if self.unchanged:
                return None
            with self.job.reaching("built"):
                if draft.image is not None:
                    self.job.emit("Same source and plan: the image is there already", kind="info")
                    return draft
                image = self.build.run(
                    self.parts, self.job, self.app, draft.plan, source, build_env, no_cache=options.no_cache
                )
                return replace(draft, image=image)

    def _plan(self, source: Path, build_env: Mapping[str, Secret]) -> Planned:
        options = self.request.options
        planned = intake.plan_source(
            self.parts, self.app.name, source, build_env, path=options.path, buildpack=options.buildpack
        )
        intake.describe_plan(self.job, planned)
        require_start(planned.plan)
        releases.check_required(self.app, planned.plan, releases.changed_env(self.parts, self.app, self.request))
        release = self.store.releases.get(self.app.id, self.app.release).release if self.app.release else None
        intake.check_allowed(self.parts, self.app, planned.plan, release)
        kept = self.store.apps.formation(self.app.id)
        for name, quantity in planned.formation.items():
            if not kept.get(name, quantity):
                self.job.emit(f"Not started: {name}. Start it: mini scale {name}=1", kind="info")
        return planned

    def _draft_of(self, planned: Planned, digest: str, build_env: Mapping[str, Secret]) -> Draft:
        manifest = planned.manifest
        extras = Extras(
            scripts=manifest.scripts,
            cron=manifest.cron,
            limits=manifest.limits,
            volumes=manifest.volumes,
            strategy=manifest.strategy,
            idle=manifest.idle,
            formation=planned.formation,
        )
        added = self.store.apps.volumes(self.app.id)
        env = releases.with_generated(planned.plan, releases.changed_env(self.parts, self.app, self.request))
        return Draft(
            plan=planned.plan,
            image=None,
            env=env,
            addons=releases.addons_of(self.parts, self.app),
            limits=releases.merge_limits(manifest.limits, self.app.limits),
            volumes=releases.merge_volumes(manifest.volumes, added),
            extras=extras,
            origin=self.request.options.origin,
            reason=self.deploy.reason,
            build_key=releases.build_key(digest, planned.plan, build_env, self.parts.runtime.name),
        )

    def _is_running(self, draft: Draft) -> bool:
        """Whether the draft is what runs already, and all of it is well."""
        app = self.store.apps.by_id(self.app.id)
        if app.release is None or app.state != "running" or app.asleep:
            return False
        current = self.store.releases.get(app.id, app.release)
        live = self.store.instances.standing(app.id)
        same = current.fingerprint == releases.fingerprint(draft, self.parts.runtime.name)
        return same and all(item.healthy and item.release == app.release for item in live)

    # --- → released

    def release(self, draft: Draft) -> StoredRelease:
        self._mask(draft)
        with self.job.reaching("released") as columns, self.store.transaction():
            stored = releases.add_release(self.parts, self.app, draft, self.deploy.actor)
            columns["release"] = stored.release.version
            return stored

    def _mask(self, draft: Draft) -> None:
        """What was generated, or came from plugins, is secret from here on."""
        new = (*draft.env.values(), *draft.addons.values())
        self.parts.pending[self.app.id] = (*self.parts.pending.get(self.app.id, ()), *new)
        self.job.redact = self.parts.redactor(self.app)

    def current(self) -> StoredRelease:
        assert self.app.release is not None
        return self.store.releases.get(self.app.id, self.app.release)

    def run_release_command(self, stored: StoredRelease) -> None:
        """What runs once in the new image, with the new environment, before it takes traffic: as on Heroku, the release
        command also for a changed environment."""
        if self.deploy.kind not in ("deploy", "rollback", "env", "addon"):
            return
        script = stored.extras.scripts.dokku_predeploy if self.deploy.kind in ("deploy", "rollback") else ""
        release = stored.release.process("release")
        for name, command in (("predeploy", shell(script) if script else ()), ("release", release and release.command)):
            if command:
                try:
                    run_once(self.parts, self.job, self.app, stored, name, command, f"{name}-failed")
                except MiniError as error:
                    error.step = "release"
                    raise

    # --- → starting → healthy

    def start(self, stored: StoredRelease) -> rollout.Team:
        with self.job.reaching("starting"):
            team = rollout.assemble(
                self.parts,
                self.app,
                stored,
                self.quantities(stored),
                deploy=self.deploy.id,
                renew=self._renewed(),
            )
            if team.new and team.old and stored.extras.strategy == "recreate":
                self._stop_first(team.old, "Recreating", kind="info")
            elif team.new and rollout.cannot_overlap(self.parts, team.old):
                self._stop_first(team.old, "It ignores PORT", kind="warning")
            specs = rollout.specs_of(self.parts, self.app, stored, team)
            rollout.start(self.parts, specs, self.job)
        with self.job.reaching("healthy"):
            where = partial(self._where, stored)
            healthy = rollout.wait_healthy(self.parts, self.app, specs, self.job, where)
            if healthy:
                slowest = max(item.seconds for item in healthy.values())
                self.job.emit(f"healthy after {slowest:.1f} s", kind="info")
        return team

    def _where(self, stored: StoredRelease, port: int) -> str:
        """In which line of the source a port is written."""
        if not self.deploy.archive:
            return ""
        try:
            with TarSource(Path(self.deploy.archive)) as source:
                path = stored.release.plan.path
                return find_port(source if path == "." else source.sub(path), port)
        except (SourceError, OSError):
            return ""

    def quantities(self, stored: StoredRelease) -> dict[str, int]:
        """Of every process type: as asked for now, as kept, or the default."""
        if self._stays_stopped():
            return {}
        kept = self.store.apps.formation(self.app.id)
        names = [item.name for item in processes_of(stored)]
        defaults = {name: 1 if name in ("web", "worker") else 0 for name in names}
        wanted = {**defaults, **stored.extras.formation, **kept, **self.request.quantities}
        return {name: wanted[name] for name in names}

    def _stays_stopped(self) -> bool:
        return self.app.state == "stopped" and self.deploy.kind not in ("deploy", "start")

    def _renewed(self) -> frozenset[str] | None:
        if self.deploy.kind != "restart":
            return frozenset()
        return frozenset((self.request.process,)) if self.request.process else None

    def _stop_first(self, old: tuple[Instance, ...], why: str, *, kind: str) -> None:
        """For apps that ask for it, and those that ignore PORT where the machine's ports are shared. Requests wait
        while they change over, for as long as the router holds them."""
        self._stopping_said = kind
        self.job.emit(f"{why}: the old release is stopped before the new one starts", kind=kind)
        with self.store.transaction():
            self.store.apps.change(self.app.id, hold=1)
            self.store.meta.next_generation()
        self.publisher.push()
        self._drain(old)
        self._stopped_at = time.monotonic()
        with ThreadPoolExecutor(len(old), thread_name_prefix="stop") as pool:
            list(pool.map(lambda item: self.parts.runtime.stop(item.id, grace=self.parts.settings.grace), old))

    def bring_back(self) -> None:
        """After a failure: what was stopped first runs again, and its requests go on."""
        if self._stopped_at is None:
            return
        job = QuietJob(BRING_BACK_PATIENCE)
        for item in self.store.instances.find(app=self.app.id, deploy=self.deploy.id, phase="new"):
            self.parts.runtime.stop(item.id, grace=self.parts.settings.grace)
        specs = {}
        for item in self.store.instances.standing(self.app.id):
            stored = self.store.releases.get(self.app.id, item.release)
            specs[item.id] = spec_of(self.parts, self.app, stored, item)
            self.parts.runtime.remove(item.id)
        with suppress(MiniError):
            rollout.start(self.parts, specs, job)
            rollout.wait_healthy(self.parts, self.app, specs, job)
        with self.store.transaction():
            self.store.apps.change(self.app.id, hold=0)
            self.store.meta.next_generation()
        self.publisher.push()

    # --- → ROUTED

    def route(self, stored: StoredRelease, team: rollout.Team) -> None:
        with self.store.transaction(), self.job.reaching("routed") as columns:
            columns["release"] = stored.release.version
            columns["generation"] = self.store.meta.next_generation()
            self._commit(stored, team)
        self.routed = True
        if self._stopped_at is not None:
            gap = time.monotonic() - self._stopped_at
            self.job.emit(f"Requests waited for {gap:.1f} s while the releases changed over", kind=self._stopping_said)
        self._push()
        self.nudge()

    def _commit(self, stored: StoredRelease, team: rollout.Team) -> None:
        """The release is the app's: its environment, formation, limits and volumes with it."""
        app, release = self.app.id, stored.release
        for item in team.new:
            self.store.instances.change(item.id, phase="live", routed=int(item.kind == "web"))
        for item in team.old:
            self.store.instances.change(item.id, phase="retired", routed=0)
        self.store.releases.set_state(app, release.version, "live")
        self.store.apps.replace_env(app, release.env)
        if not self._stays_stopped():
            self.store.apps.set_formation(app, self.quantities(stored))
            self.store.apps.change(app, state="running", asleep=0)
        self.store.apps.change(app, release=release.version, hold=0, deployed_at=time.time())
        if self.deploy.kind == "rollback":
            limits, volumes = releases.by_hand(stored)
            self.store.apps.set_limits(app, limits)
            self.store.apps.replace_volumes(app, volumes)
        if self.request.limits:
            self.store.apps.set_limits(app, releases.merge_limits(self.app.limits, self.request.limits))
        if self.deploy.kind == "volumes":
            self.store.apps.replace_volumes(app, releases.changed_volumes(self.parts, self.app, self.request))

    def _push(self) -> None:
        """Until the router has taken the table, nothing old is touched. The reconciler starts a router that is gone."""
        deadline = time.monotonic() + ROUTER_PATIENCE
        while True:
            try:
                return self.publisher.push()
            except Unavailable as error:
                if time.monotonic() > deadline:
                    self.job.emit(f"The router does not answer: {error.message}", kind="warning")
                    return None
                self.nudge()
                time.sleep(0.2)

    # --- → drained

    def drain(self, team: rollout.Team) -> None:
        with self.job.reaching("drained"):
            self._drain(team.old)
        self.nudge()

    def _drain(self, old: tuple[Instance, ...]) -> None:
        """Open requests get their time; what is then left is cut when the instance ends."""
        targets = [target for item in old if item.kind == "web" and (target := target_of(item))]
        if not targets or not self.publisher.up_to_date():
            return
        with ThreadPoolExecutor(len(targets)) as pool:
            done = list(pool.map(lambda target: self._drained(target), targets))
        if not all(done):
            self.job.emit(f"Requests were still open after {self.parts.settings.drain:.0f} s", kind="warning")

    def _drained(self, target: object) -> bool:
        try:
            return self.parts.router.drain(target, self.parts.settings.drain)  # type: ignore[arg-type]
        except MiniError:
            return True

    # --- afterwards

    def run_postdeploy(self, stored: StoredRelease) -> None:
        """app.json's scripts for a release that is live: once, for the app's first, and at every deploy. They cannot
        fail it."""
        if self.deploy.kind != "deploy":
            return
        scripts = stored.extras.scripts
        first = self.store.releases.live_before(self.app.id, stored.release.version) is None
        once = scripts.postdeploy if first else ""
        for name, line in (("postdeploy", once), ("dokku-postdeploy", scripts.dokku_postdeploy)):
            if not line:
                continue
            try:
                run_once(self.parts, self.job, self.app, stored, name, shell(line), f"{name}-failed")
            except Cancelled:
                raise
            except MiniError as error:
                self.job.emit(f"{error.message} The release is live all the same.", kind="warning")
