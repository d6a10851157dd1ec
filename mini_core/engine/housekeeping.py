"""Jobs that outlive a restart (destroying an app, removing a volume), and keeping the disk bounded."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial

from mini_core.engine import restore, volumes
from mini_core.engine.parts import Parts
from mini_core.engine.plugins import add_hook_jobs
from mini_core.engine.queue import DeployQueue
from mini_core.engine.routing import Publisher
from mini_core.errors import MiniError, NotFound, Unavailable
from mini_core.store.records import App, Work

log = logging.getLogger(__name__)

EVERY = 300.0
"""Seconds between clean-ups."""

KEPT_EVENTS = 50_000
STALE = 3600.0
"""Seconds after which a file that no deploy knows is a leftover."""


class Housekeeper:
    def __init__(self, parts: Parts, publisher: Publisher, queue: DeployQueue) -> None:
        self._parts = parts
        self._store = parts.store
        self._publisher = publisher
        self._queue = queue
        self._due = time.monotonic() + 60.0
        self._cleaning = threading.Lock()

    def kinds(self) -> dict[str, Callable[[Work], None]]:
        return {
            "destroy": self.destroy,
            volumes.REMOVAL: self.remove_volume,
            "retire-platform": partial(restore.retire, self._parts),
            "restore-plugin": partial(restore.restore_plugin, self._parts),
        }

    # --- destroying

    def condemn(self, app: App, actor: str) -> int:
        """The app is out of the routes and of every list from now on; the number of the job that removes it."""
        with self._store.transaction():
            self._store.apps.change(app.id, state="destroying")
            self._store.meta.next_generation()
            self._store.events.add("app.destroyed", actor, app.name)
            return self._store.jobs.add("destroy", app.name, data={"app": app.id, "actor": actor})

    def destroy(self, job: Work) -> None:
        """Each part may be done again: what is gone is gone."""
        try:
            app = self._store.apps.by_id(job.data["app"])
        except NotFound:
            return
        self._queue.cancel_all(app, str(job.data["actor"]))
        self._publisher.push()
        self._parts.runtime.destroy(app.handle)
        for stored in self._store.releases.all(app.id):
            builder = self._parts.builder_of(stored.release.image)
            if builder is not None and stored.image_kept:
                builder.remove(stored.release.image)
                self._store.releases.forget_image(app.id, stored.release.version)
        self._parts.book.remove(app.handle)
        with self._store.transaction():
            add_hook_jobs(self._parts, "mini_app_destroy", app.name, {"app": app.name})
            self._store.apps.delete(app.id)
        self.clean_soon()

    def remove_volume(self, job: Work) -> None:
        """Once no instance uses it any more; a deploy that failed leaves it."""
        try:
            app = self._store.apps.by_id(job.data["app"])
            deploy = self._store.deploys.get(job.data["deploy"]) if job.data["deploy"] else None
        except NotFound:
            return
        if deploy is not None and deploy.state in ("failed", "cancelled"):
            return
        name = str(job.data["name"])
        if deploy is not None and deploy.state != "done":
            raise Unavailable(f"The volume {name} is still in use.")
        if any(volume.name == name for volume in volumes.of(self._parts, app)):
            return  # a rollback has brought it back
        used = {item.release for item in self._store.instances.find(app=app.id)}
        mounted = any(
            volume.name == name
            for version in used
            for volume in self._store.releases.get(app.id, version).release.volumes
        )
        if mounted:
            raise Unavailable(f"The volume {name} is still in use.")
        self._parts.runtime.remove_volume(app.handle, name)

    # --- cleaning up

    def clean_soon(self) -> None:
        """A deploy was interrupted, or an app is gone: what it has built is a leftover."""
        self._due = time.monotonic()

    def check(self) -> None:
        """Cleans up when it is time to, in a thread of its own: removing much takes long."""
        if time.monotonic() >= self._due and not self._cleaning.locked():
            self._due = time.monotonic() + EVERY
            threading.Thread(target=self._clean_safely, name="housekeeping", daemon=True).start()

    def _clean_safely(self) -> None:
        try:
            self.clean()
        except Exception:
            log.exception("cleaning up failed")

    def clean(self) -> None:
        """Builds that nobody needs, uploads and work folders without a deploy, old events."""
        with self._cleaning:
            self._store.events.prune(KEPT_EVENTS)
            self.clean_folders()
            if not self._store.deploys.unfinished():
                self._prune_builds()

    def clear(self) -> None:
        """Without any app, nothing that was built is of use."""
        if not self._store.apps.all():
            with self._cleaning:
                self._prune_builds()

    def _prune_builds(self) -> None:
        keep = self._store.releases.kept_images()
        apps = [app.handle for app in self._store.apps.all()]
        for builder in self._parts.builders.values():
            try:
                builder.prune([image for image in keep if image.builder == builder.name], apps)
            except MiniError as error:
                log.warning("what %s has built could not be cleaned up: %s", builder.name, error)

    def clean_folders(self) -> None:
        """Uploads that wait for no deploy, and what an interrupted one has unpacked."""
        unfinished = self._store.deploys.unfinished()
        wanted = {deploy.archive for deploy in unfinished} | {
            str(self._parts.paths.data / "work" / str(deploy.id)) for deploy in unfinished
        }
        for folder in ("uploads", "work"):
            for path in sorted((self._parts.paths.data / folder).glob("*")):
                old = folder == "work" or time.time() - path.stat().st_mtime > STALE
                if str(path) in wanted or not old:
                    continue
                log.info("removing the leftover %s", path)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
