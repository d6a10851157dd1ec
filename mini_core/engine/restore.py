"""From a backup to a platform: all of it is made beside what runs, and takes its place in one step.

    verify → refuse? → stage (store, images, volumes under a new platform id) → commit → open → start → retire the old

Nothing is touched before the whole file was read and found good. The restored platform has an id of its own, so that
containers of the one that was backed up, on this engine or another, are never taken for its own; its apps get handles
that nothing here has, so that the volumes of both can be there at once. A process that ends before the commit leaves
the old platform, one that ends after it the new one (see `transfer`).
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mini_core import backups, tarstream
from mini_core.api import Failure, RestoreEvent
from mini_core.backups import Head, Manifest, Part
from mini_core.engine import intake, rollout, transfer
from mini_core.engine.parts import Parts
from mini_core.engine.transfer import Staged
from mini_core.errors import Cancelled, ConfigError, Conflict, MiniError, Unavailable
from mini_core.interfaces import Builder, Runtime
from mini_core.store import Store, open_store
from mini_core.store.database import settle
from mini_core.store.deploys import Deploys
from mini_core.store.migrations import SCHEMA
from mini_core.store.records import App, Work
from mini_core.types import Image, Value, from_data, replace, to_data

log = logging.getLogger(__name__)

Say = Callable[[str], None]

PENDING = "restored"
"""Key in the store's meta table: the restored apps have yet to be given instances."""


WARNING = "Warning: "


def narrate(work: Callable[[Say, Callable[[], None]], None]) -> Iterator[RestoreEvent]:
    """Does the work in a thread of its own and tells of it. Closing the iterator makes `stop` raise."""
    told: queue.SimpleQueue[RestoreEvent] = queue.SimpleQueue()
    left = threading.Event()

    def say(text: str) -> None:
        warning = text.startswith(WARNING)
        told.put(RestoreEvent(kind="warning" if warning else "info", text=text.removeprefix(WARNING)))

    def stop() -> None:
        if left.is_set():
            raise Cancelled("The client has left.")

    def run() -> None:
        try:
            work(say, stop)
        except MiniError as error:
            told.put(RestoreEvent(kind="failed", text=error.message, code=error.code, hint=error.hint))
        except Exception as error:
            log.exception("the restore failed")
            text = f"The restore failed: {type(error).__name__}: {error}"
            told.put(RestoreEvent(kind="failed", text=text, code="internal", hint="The platform's log says more."))
        else:
            told.put(RestoreEvent(kind="done", text="Restored"))

    threading.Thread(target=run, name="restore", daemon=True).start()
    return _told(told, left)


def _told(told: queue.SimpleQueue[RestoreEvent], left: threading.Event) -> Iterator[RestoreEvent]:
    try:
        while True:
            event = told.get()
            yield event
            if event.kind in ("done", "failed"):
                return
    finally:
        left.set()


def check(parts: Parts, head: Head, *, replacing: bool) -> None:
    """Raises ConfigError for a backup of a newer mini, Conflict where the apps of this platform would have to go,
    Unavailable where its runtime is not here."""
    if head.schema > SCHEMA:
        raise ConfigError(
            f"The backup was made by mini {head.mini}, which is newer than this one "
            f"(schema {head.schema}, this one knows {SCHEMA}).",
            hint="Upgrade mini here first: mini server upgrade, or pipx upgrade mini-paas",
            code="newer-backup",
        )
    apps = [app.name for app in parts.store.apps.all(destroying=True)]
    if apps and not replacing:
        raise Conflict(
            f"This platform has apps: {', '.join(apps)}.",
            hint="mini restore FILE --replace removes them, with their volumes. mini backup FILE keeps a copy first.",
            code="has-apps",
        )
    _check_runtime(parts, head.runtime)


def _check_runtime(parts: Parts, wanted: str) -> None:
    set_here = parts.settings.runtime
    if set_here and set_here != wanted:
        raise Conflict(
            f"The backup's apps run on {wanted}; this platform is set to {set_here}.",
            hint=f"Start it with the other first: mini down, mini up --runtime {wanted} (or runtime in server.toml).",
            code="other-runtime",
        )
    found = parts.hooks.runtimes(parts.context).get(wanted)
    if found is None:
        raise Unavailable(f"The backup's apps run on {wanted}: no plugin here provides it.", hint="mini plugins list")
    try:
        found.check()
    except MiniError as error:
        raise Unavailable(
            f"The backup's apps run on {wanted}, which cannot be used here: {error.message}", hint=error.hint
        ) from None


def stage(parts: Parts, file: IO[bytes], actor: str, say: Say, stop: Callable[[], None]) -> None:
    """Verifies the backup, then makes all that is in it, up to the commit."""
    intake.check_disk(parts, file.seek(0, os.SEEK_END), "what is restored")  # beside what is there
    manifest = backups.verify(file)
    say(backups.describe(manifest))
    Staging(parts, manifest, actor, say, stop).run(file)
    say("Taking over")


class Staging:
    """Makes all that is in a backup. `stop` is asked often, and raises to give up."""

    def __init__(self, parts: Parts, manifest: Manifest, actor: str, say: Say, stop: Callable[[], None]) -> None:
        self._parts = parts
        self._manifest = manifest
        self._actor = actor
        self._say = say
        self._stop = stop
        self._folder = transfer.staging(parts.paths)
        self.staged = Staged(platform=str(uuid.uuid4()), runtime=manifest.head.runtime)
        self._images: dict[str, Image] = {}

    def run(self, file: IO[bytes]) -> None:
        """Raises MiniError where something cannot be made; nothing of it is left then."""
        discard(self._parts)
        if self._folder.exists():
            raise Unavailable("What an earlier restore has left cannot be removed yet.", hint="mini doctor says why.")
        self._folder.mkdir(mode=0o700, parents=True)
        transfer.note(self._parts.paths, self.staged)
        try:
            self._take_all(file)
        except BaseException:
            discard(self._parts)
            raise

    def _take_all(self, file: IO[bytes]) -> None:
        by_name = {part.name: part for part in self._manifest.parts}
        store: Store | None = None
        try:
            for name, chunks in backups.read_parts(file):
                part = by_name[name]
                if part.kind in ("volume", "image") and store is None:
                    store = self._open()
                self._take(part, self._stopping(chunks), store)
            store = store or self._open()
            self._finish(store)
        finally:
            if store is not None:
                store.close()
        settle(self._folder / transfer.DATABASE)
        if transfer.settings_differ(self._parts.paths):
            self._say(f"{WARNING}This machine's server.toml stays; the backup's is put beside it: server.toml.restored")

    def _stopping(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._stop()
            yield chunk

    def _take(self, part: Part, chunks: Iterator[bytes], store: Store | None) -> None:
        if part.kind == "store":
            _save(self._folder / transfer.DATABASE, chunks)
        elif part.kind == "key":
            _save(self._folder / transfer.KEY, chunks)
        elif part.kind == "settings":
            _save(self._folder / transfer.SETTINGS, chunks)
        elif part.kind == "plugin":
            tarstream.unpack(chunks, transfer.plugin_parts(self._parts.paths, self.staged.platform) / part.about)
        elif part.kind == "volume" and part.app in self.staged.handles:
            self._say(f"Volume {part.about} of {part.app}")
            self._runtime.import_volume(self.staged.handles[part.app], part.about, chunks)
        elif part.kind == "image" and store is not None:
            self._take_images(part, chunks, store)

    def _take_images(self, part: Part, chunks: Iterator[bytes], store: Store) -> None:
        """An image that this machine cannot use is told of: its releases cannot run here."""
        owners = _owners(store)
        wanted = [(owners[ref].image, self.staged.handles[owners[ref].app.handle]) for ref in part.items]
        self._say(f"Images of {', '.join(dict.fromkeys(owners[ref].app.name for ref in part.items))}")
        builder = self._builders.get(part.about)
        failed: dict[str, MiniError] = {}
        try:
            if builder is None:
                raise Unavailable(f"there is no builder {part.about}")
            passing = tuple(image for image, _ in wanted if not builder.exists(image))
            self.staged = replace(self.staged, images=(*self.staged.images, *passing))
            transfer.note(self._parts.paths, self.staged)
            for (image, _), taken in zip(wanted, builder.import_(wanted, chunks), strict=True):
                if isinstance(taken, MiniError):
                    failed[image.ref] = taken
                else:
                    self._images[image.ref] = taken
        except MiniError as error:
            self._stop()
            failed = dict.fromkeys(part.items, error)
        for ref, reason in failed.items():
            self._say(f"{WARNING}{owners[ref].without}: {reason.message}")

    def _open(self) -> Store:
        """The staged store, of this program's schema. Chooses the handles."""
        if not all((self._folder / name).exists() for name in (transfer.DATABASE, transfer.KEY)):
            raise ConfigError("The backup lacks the store or its key.", code="backup-damaged")
        store = open_store(self._folder / transfer.DATABASE, self._folder / transfer.KEY)
        taken = {app.handle for app in self._parts.store.apps.all(destroying=True)}
        handles: dict[str, str] = {}
        for app in store.apps.all():
            handles[app.handle] = _free(app.handle, taken | set(handles.values()))
        self.staged = replace(self.staged, handles=handles)
        transfer.note(self._parts.paths, self.staged)
        context = replace(self._parts.context, platform=self.staged.platform)
        self._runtime: Runtime = self._parts.hooks.runtimes(context)[self.staged.runtime]
        self._builders: Mapping[str, Builder] = self._parts.hooks.builders(context)
        return store

    def _finish(self, store: Store) -> None:
        """What the store of another platform, at another time, says that is not so here."""
        with store.transaction():
            for app in store.apps.all(destroying=True):
                if app.state == "destroying":
                    store.apps.delete(app.id)
            for app in store.apps.all():
                self._move_images(store, app)
            _rename_handles(store, self.staged.handles)
            store.instances.clear()
            _end_deploys(store.deploys)
            store.jobs.keep("hook")
            store.meta.set("platform", self.staged.platform)
            for name, item in (("boot", ""), ("down", ""), (PENDING, "yes")):
                store.meta.set(name, item)
            for name in ("local", self._actor):  # whoever restores is not locked out
                self._parts.store.keys.copy_to(store.keys, name)
            self._add_jobs(store)
            head = self._manifest.head
            data = {"from": head.platform, "made_at": head.created_at, "mini": head.mini}
            store.events.add("platform.restored", self._actor, data=data)

    def _move_images(self, store: Store, app: App) -> None:
        for stored in store.releases.all(app.id):
            version, image = stored.release.version, self._images.get(stored.release.image.ref)
            if image is not None:
                store.releases.set_image(app.id, version, image)
            else:
                store.releases.forget_image(app.id, version)

    def _add_jobs(self, store: Store) -> None:
        for plugin in [part.about for part in self._manifest.of("plugin")]:
            place = transfer.plugin_parts(self._parts.paths, self.staged.platform) / plugin
            store.jobs.add("restore-plugin", "", plugin, {"folder": str(place)})
        store.jobs.add("retire-platform", "", data=_leftovers(self._parts))


class Owner(Value):
    """Whose an image is. without: what is to be said where it cannot be used."""

    app: App
    image: Image
    without: str


def _owners(store: Store) -> dict[str, Owner]:
    """By the image's ref: the newest release that has it, or the current one."""
    found: dict[str, Owner] = {}
    for app in store.apps.all():
        for stored in store.releases.all(app.id):
            image, version = stored.release.image, stored.release.version
            if version == app.release:
                found[image.ref] = Owner(app=app, image=image, without=f"{app.name} has to be deployed again")
            else:
                without = f"{app.name} cannot be rolled back to v{version}"
                found.setdefault(image.ref, Owner(app=app, image=image, without=without))
    return found


def _save(path: Path, chunks: Iterator[bytes]) -> None:
    path.touch(0o600)
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)


def _free(handle: str, taken: set[str]) -> str:
    name, number = handle, 1
    while name in taken:
        number += 1
        name = f"{handle}-{number}"
    return name


def _rename_handles(store: Store, handles: Mapping[str, str]) -> None:
    """In two steps: a new handle may be another app's old one."""
    apps = store.apps.all()
    for app in apps:
        store.apps.change(app.id, handle=f"{app.handle}/moving", hold=0)
    for app in apps:
        store.apps.change(app.id, handle=handles[app.handle])


def _end_deploys(deploys: Deploys) -> None:
    for deploy in deploys.unfinished():
        failure = Failure(
            code="restored",
            message="It was under way when the backup was made.",
            hint="Deploy again.",
            step=deploy.step,
        )
        deploys.finish(deploy.id, "failed", failure=failure, archive="")


# --- what goes


def _leftovers(parts: Parts) -> dict[str, Any]:
    """All that the platform which is being replaced has made."""
    return {
        "platform": parts.platform,
        "runtime": parts.runtime.name,
        "handles": [app.handle for app in parts.store.apps.all(destroying=True)],
        "images": [to_data(image) for image in parts.store.releases.kept_images()],
    }


def retire(parts: Parts, job: Work) -> None:
    """Removes what a platform made that is no more. Each part may be done again."""
    data = job.data
    images = [from_data(Image, item) for item in data["images"]]
    _remove(parts, data["platform"], data["runtime"], data["handles"], images)
    for handle in data["handles"]:
        parts.book.remove(handle)


def discard(parts: Parts) -> None:
    """Removes what a restore that did not reach its end has made; what cannot be removed now is, at the next start."""
    staged = transfer.abandoned(parts.paths)
    if staged is not None:
        try:
            _remove(parts, staged.platform, staged.runtime, list(staged.handles.values()), list(staged.images))
        except MiniError as error:
            log.warning("what a restore has left is not gone yet: %s", error.message)
            return
    transfer.forget(parts.paths, staged)


def _remove(parts: Parts, platform: str, runtime_name: str, handles: list[str], images: list[Image]) -> None:
    context = replace(parts.context, platform=platform)
    try:
        runtime = parts.hooks.runtimes(context).get(runtime_name)
        builders = parts.hooks.builders(context)
    finally:  # plugins look at what they made last
        parts.hooks.runtimes(parts.context)
        parts.hooks.builders(parts.context)
    if runtime is None:
        return
    for handle in handles:
        runtime.destroy(handle)
    for image in images:
        if image.builder in builders:
            builders[image.builder].remove(image)
    if "platforms" in runtime.abilities:
        runtime.shutdown()
        for builder in builders.values():
            if builder.produces in runtime.accepts:
                builder.prune((), ())


def restore_plugin(parts: Parts, job: Work) -> None:
    folder = Path(job.data["folder"])
    if folder.is_dir() and job.plugin in parts.hooks.implementing("mini_restore"):
        parts.hooks.durable("mini_restore", job.plugin, folder=folder)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


# --- what comes


def populate(parts: Parts) -> None:
    """Instances for restored apps, with addresses of this machine; the reconciler starts them."""
    for app in parts.store.apps.all():
        if app.release is None or app.state != "running" or app.asleep:
            continue
        stored = parts.store.releases.get(app.id, app.release)
        if not stored.image_kept or parts.store.instances.find(app=app.id, phase="live"):
            continue
        team = rollout.assemble(parts, app, stored, parts.store.apps.formation(app.id), deploy=None)
        with parts.store.transaction():
            for item in team.new:
                parts.store.instances.change(item.id, phase="live", next_try=0.0)
    parts.store.meta.set(PENDING, "")
