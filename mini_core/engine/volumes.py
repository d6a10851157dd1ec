"""An app's volumes: which it has, and what adding or removing one asks for."""

from __future__ import annotations

import re

from mini_core import api
from mini_core.engine.parts import Parts
from mini_core.errors import Conflict, NotFound, UsageError
from mini_core.store.records import App
from mini_core.types import Volume

REMOVAL = "remove-volume"
"""The kind of the stored job that removes a volume's files."""


def of(parts: Parts, app: App) -> tuple[Volume, ...]:
    """What is mounted now, with what the next release will mount."""
    mounted = parts.store.releases.get(app.id, app.release).release.volumes if app.release is not None else ()
    return tuple({item.target: item for item in (*mounted, *parts.store.apps.volumes(app.id))}.values())


def find(parts: Parts, app: App, target: str) -> Volume:
    """The one with this target or name. Raises NotFound."""
    for item in of(parts, app):
        if target in (item.target, item.name):
            return item
    raise NotFound(f"{app.name} has no volume {target}.", hint=f"mini volumes list {app.name}", code="no-volume")


def removable(parts: Parts, app: App, target: str) -> Volume:
    """One that was added by hand. Raises NotFound, and Conflict for one of the repository's."""
    found = find(parts, app, target)
    declared = parts.store.releases.extras(app.id, app.release).volumes if app.release is not None else ()
    if found in declared or found not in parts.store.apps.volumes(app.id):
        raise Conflict(
            f"mini.toml has the volume {found.target}.", hint="Take it out of there and deploy; its files are kept."
        )
    return found


def new(parts: Parts, app: App, request: api.VolumeChange) -> Volume:
    """Raises UsageError for a path that no volume can have, Conflict for one that is taken."""
    if "volumes" not in parts.runtime.abilities:
        raise UsageError(f"The {parts.runtime.name} runtime has no volumes.")
    target = "/" + "/".join(part for part in request.target.split("/") if part)
    if not request.target.startswith("/") or target == "/" or {"..", "."} & set(target.split("/")):
        raise UsageError(f"{request.target!r}: expected an absolute path.", hint="Such as /data.")
    volume = Volume(name=request.name or _free_name(parts, app, target), target=target)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", volume.name):
        raise UsageError(f"{volume.name!r} is no name of a volume.", hint="Lower-case letters, digits and -.")
    for item in of(parts, app):
        if item.target == target or item.name == volume.name:
            hint = f"mini volumes list {app.name}"
            raise Conflict(f"There is a volume {item.name} at {item.target} already.", hint=hint)
    if volume.name in _leaving(parts, app):
        raise Conflict(f"The files of the volume {volume.name} are being removed.", hint="Give it another --name.")
    return volume


def name_of(target: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")


def _free_name(parts: Parts, app: App, target: str) -> str:
    """From the path; never that of a volume whose files are on their way out: they would take the new ones along."""
    name, leaving, number = name_of(target), _leaving(parts, app), 1
    while (found := f"{name}-{number}" if number > 1 else name) in leaving:
        number += 1
    return found


def _leaving(parts: Parts, app: App) -> frozenset[str]:
    jobs = parts.store.jobs.all()
    return frozenset(str(job.data["name"]) for job in jobs if job.kind == REMOVAL and job.data["app"] == app.id)
