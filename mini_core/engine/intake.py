"""From an upload to something that can be released: unpacked within bounds, planned, checked, built."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mini_core import disk
from mini_core.api import DeployOptions
from mini_core.engine.job import DeployJob
from mini_core.engine.parts import Parts
from mini_core.errors import Conflict, MiniError, SourceError
from mini_core.explain import headline
from mini_core.interfaces import BuildRequest
from mini_core.planned import Planned
from mini_core.planning import make_plan
from mini_core.sources import FolderSource
from mini_core.store.records import App, StoredRelease
from mini_core.trees import tree_digest, tree_line
from mini_core.types import Image, Plan, Release, Secret, replace
from mini_core.unpacking import unpack

NO_SECRET = re.compile(r"[A-Z0-9_]*_VERSION|GO_BIN|GO_INSTALL_PACKAGE_SPEC")
"""Build-time variables that plans may depend on."""


def check_disk(parts: Parts, coming: int = 0, what: str = "") -> None:
    """coming: bytes that `what` will take. Raises Unavailable, with the numbers."""
    disk.check(parts.paths.data, parts.settings.disk_reserve, coming, what)


def take_upload(parts: Parts, archive: Path) -> Path:
    """Moves an uploaded archive to where it waits for its deploy."""
    folder = parts.paths.data / "uploads"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / f"{secrets.token_hex(16)}.tar.gz"
    shutil.move(archive, target)
    return target


@contextmanager
def unpacked(parts: Parts, archive: Path, name: str) -> Iterator[tuple[Path, str]]:
    """The archive's tree and its digest, for as long as the block lasts. Raises SourceError for a hostile one.

    Nobody waits until the tree is removed; what is left when this process ends, housekeeping finds.
    """
    work = parts.paths.data / "work" / name
    shutil.rmtree(work, ignore_errors=True)
    work.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield work, _unpack(parts, archive, work)
    finally:
        threading.Thread(target=shutil.rmtree, args=(work, True), name="clear-work", daemon=True).start()


def _unpack(parts: Parts, archive: Path, work: Path) -> str:
    """The tree's digest. No archive takes what must stay free."""
    check_disk(parts)
    allowed, room = parts.settings.unpacked, shutil.disk_usage(parts.paths.data).free - parts.settings.disk_reserve
    try:
        return unpack(archive, work, max_bytes=min(allowed, max(room, 0)), max_files=parts.settings.files).digest
    except SourceError as error:
        if error.code == "too-large" and room < allowed:
            check_disk(parts, room + 1, "what is in the archive, or more")
        raise


def plan_source(
    parts: Parts, app: str, folder: Path, build_env: Mapping[str, Secret], *, path: str = "", buildpack: str = ""
) -> Planned:
    """Raises PlanError, ConfigError."""
    return make_plan(
        FolderSource(folder),
        parts.hooks.buildpacks(),
        app=app,
        path=path,
        buildpack=buildpack,
        build_env={name: item.reveal() for name, item in build_env.items() if NO_SECRET.fullmatch(name)},
        amend=parts.hooks.amend_plan,
    )


def watched(folder: Path, app: str, planned: Planned, digest: str) -> str:
    """The digest of the files that concern an app of a monorepo: its own folder's and those of its `watch` globs;
    the whole source's (`digest`) where mini.toml names none."""
    item = planned.manifest.named(app)
    if item is None or not item.watch:
        return digest
    source = FolderSource(folder)
    files = {path for pattern in (f"{item.path}/**", *item.watch) for path in source.glob(pattern)}
    lines = []
    for path in files:
        kind = "program" if source.is_executable(path) else "file"
        lines.append(tree_line(kind, path, hashlib.sha256(source.read(path) or b"").hexdigest()))
    return tree_digest(lines)


def check_allowed(parts: Parts, app: App, plan: Plan, current: Release | None) -> None:
    """Raises Conflict where a plugin refuses the deploy, or one without which none may happen is broken."""
    for info in parts.hooks.plugins.broken_required():
        raise Conflict(
            f"The required plugin {info.name} does not work: {info.reason}.",
            hint="Mend it, or take it out of [plugins] required in server.toml.",
            code="plugin-broken",
        )
    refusals = parts.hooks.check_deploy(app.name, plan, current)
    if refusals:
        raise Conflict(f"Refused: {'; '.join(refusals)}.", hint="mini plugins list shows them.", code="refused")


def describe_plan(job: DeployJob, planned: Planned) -> None:
    """The plan in one line, then what the user should know."""
    if line := headline(planned.plan):
        job.emit(line, kind="info")
    for warning in planned.warnings:
        job.emit(warning, kind="warning")


class Build:
    """Builds, a limited number at a time."""

    def __init__(self, limit: int) -> None:
        self._slots = threading.BoundedSemaphore(max(limit, 1))

    def run(
        self,
        parts: Parts,
        job: DeployJob,
        app: App,
        plan: Plan,
        source: Path,
        build_env: Mapping[str, Secret],
        *,
        no_cache: bool,
    ) -> Image:
        """Raises BuildError, Unavailable, Cancelled."""
        check_disk(parts)
        request = BuildRequest(
            id=f"{app.handle}-d{job.deploy.id}-{secrets.token_hex(4)}",
            app=app.handle,
            plan=plan,
            source=source,
            build_env=build_env,
            labels=parts.labels(app),
            no_cache=no_cache,
        )
        with self._slot(job):
            return parts.builder().build(request, job)

    @contextmanager
    def _slot(self, job: DeployJob) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            job.emit("Waiting for another build to end", kind="info")
            while not self._slots.acquire(timeout=0.5):
                job.check()
        try:
            yield
        finally:
            self._slots.release()


def reusable(parts: Parts, app: App, key: str) -> Image | None:
    """An image made earlier from the same things, if it is still there."""
    stored: StoredRelease | None = parts.store.releases.with_build_key(app.id, key)
    if stored is None:
        return None
    builder = parts.builder_of(stored.release.image)
    try:
        there = builder is not None and builder.exists(stored.release.image)
    except MiniError:
        return None
    return stored.release.image if there else None


def without_env(options: DeployOptions) -> DeployOptions:
    """The options as they are stored: variables travel apart, as secrets."""
    return replace(options, env={})
