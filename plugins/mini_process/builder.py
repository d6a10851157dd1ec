"""Carrying out a plan in a folder.

A build's folder is named by the digest of all that goes into it, so an unchanged build is found, not made. The
dependency steps (those that name their files) are carried out in a folder of their own, a layer, which is copied
into every build that has the same ones; files of installed packages become hard links. Paths that tools write into
files (the scripts of a virtual environment) are replaced in the copy: both paths have the same length, so that not
even programs notice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mini_core import tarstream
from mini_core.errors import BuildError, MiniError, NotFound, PlanError
from mini_core.interfaces import BuildRequest, Job
from mini_core.types import Image, Plan, Step, Value, decode, encode, replace
from mini_process import toolchains, transfers, trees
from mini_process.folders import InstanceFolder, safe_name, write_atomically
from mini_process.layout import Layout, base_environment, passed_on
from mini_process.steps import NETWORK, Masked, end_builds, run_step

DIGEST = 16  # hexadecimal digits of a folder's name
CACHE_LIMIT = 5 << 30  # bytes of shared package caches, above which they are emptied


class BuildRecord(Value):
    """build.json: says that a build is whole. layer: the one it was made from."""

    app: str
    digest: str
    layer: str = ""
    size: int = 0
    resolved: Mapping[str, str]
    labels: Mapping[str, str]
    built_at: float


class LayerRecord(Value):
    """layer.json: says that a layer is whole. paths: its files that hold its own path."""

    app: str
    paths: tuple[str, ...]


class ProcessBuilder:
    name = "process"
    produces = "folder"

    def __init__(self, layout: Layout, tool_paths: Sequence[str] = ()) -> None:
        self._layout = layout
        self._tool_paths = tuple(tool_paths)
        self._guard = threading.Lock()
        self._active: set[str] = set()

    def render(self, plan: Plan) -> dict[str, str]:
        """build.sh: what this builder does, for people to read or run by hand."""
        if plan.dockerfile:
            return {}
        needs = [f"#   {tool.name} {tool.version}".rstrip() for tool in plan.toolchains]
        lines = ["#!/bin/sh", "# Needs:", *needs, "set -eu", f"cd {shlex.quote(plan.path)}"]
        lines += [f'export PATH="$PWD/{folder}:$PATH"' for folder in plan.bin]
        for step in _ordered(plan):
            assignments = [f"{name}={shlex.quote(text)}" for name, text in sorted(step.env.items())]
            lines += [f"\n# {step.name}", " ".join([*assignments, shlex.join(step.argv)])]
        return {"build.sh": "\n".join(lines) + "\n"}

    def build(self, request: BuildRequest, job: Job) -> Image:
        job.check()
        end_builds(f"{self._layout.platform}.", but=_builds_of_this_process(self._layout))
        if request.plan.dockerfile:
            raise PlanError(
                f"{request.plan.dockerfile.path} needs Docker, and this platform runs local processes",
                hint="Start Docker and mini up --runtime docker, or deploy with --buildpack python (node, go, static).",
                code="needs-docker",
            )
        tools = self._toolchains(request.plan, job)
        return _Build(self._layout, request, tools, job).run(self._claim)

    def exists(self, image: Image) -> bool:
        return (self._layout.build_of(image) / "build.json").exists()

    def remove(self, image: Image) -> None:
        folder = self._layout.build_of(image)
        if folder.parent == self._layout.builds:
            _remove_build(folder)

    def prune(self, keep: Collection[Image], apps: Collection[str]) -> int:  # noqa: ARG002 - all apps share the caches
        wanted = {self._layout.build_of(image).name for image in keep} | self._in_use()
        freed = 0
        with self._guard:
            for folder in _folders(self._layout.builds):
                if folder.name not in wanted | self._active:
                    freed += _discard(folder)
            used = {record.layer for build in _folders(self._layout.builds) if (record := _build_record(build))}
            for folder in _folders(self._layout.layers):
                if folder.name not in used | self._active:
                    freed += _discard(folder)
            if not self._active:
                freed += self._empty_caches()
        return freed

    # --- from one platform to another

    def size(self, images: Collection[Image]) -> int:
        return sum(image.size for image in images if self.exists(image))

    def export(self, images: Collection[Image]) -> Iterator[bytes]:
        """The folders, and first where they were: tools have written that into files."""
        builds = [self._layout.build_of(image) for image in images]
        for image in images:
            if not self.exists(image):
                raise NotFound(f"the build {image.ref} is gone", hint="Deploy again: mini deploy", code="image-gone")
        folders = {f"./{number}": build for number, build in enumerate(builds)}
        return itertools.chain([transfers.first_line(builds)], tarstream.pack_all(folders))

    def import_(self, images: Sequence[tuple[Image, str]], data: Iterator[bytes]) -> tuple[Image | MiniError, ...]:
        arrived = self._layout.builds / f"arrived-{uuid.uuid4().hex}"
        with self._claim(arrived.name):
            try:
                places, rest = transfers.read_first_line(data)
                tarstream.unpack(rest, arrived)
                if len(places) != len(images):
                    raise transfers.no_build(f"{len(places)} of {len(images)} builds have come")
                return tuple(
                    self._adopted(image, app, arrived / str(number), places[number])
                    for number, (image, app) in enumerate(images)
                )
            finally:
                trees.remove_tree(arrived)

    def _adopted(self, image: Image, app: str, arrived: Path, before: bytes) -> Image | MiniError:
        """At a place of its own, with the paths in its files made right."""
        build = self._layout.builds / uuid.uuid4().hex[:DIGEST]
        with self._claim(build.name):
            record = _build_record(arrived)
            if record is None:
                return transfers.no_build(f"{image.ref} is no build")
            try:
                arrived.rename(build)
                transfers.move(build, before)
                record = replace(record, app=app, layer="", labels={**record.labels, "mini.app": app})
                write_atomically(build / "build.json", encode(record))
            except MiniError as error:
                _remove_build(build)
                return error
            except BaseException:
                _remove_build(build)
                raise
        return replace(image, ref=self._layout.ref(build), workdir=str(build / "app"))

    def _in_use(self) -> set[str]:
        """Builds that instances were started from."""
        records = (InstanceFolder(path).record() for path in _folders(self._layout.instances))
        return {PurePosixPath(record.image).name for record in records if record}

    def _empty_caches(self) -> int:
        size = trees.size_of(self._layout.cache)
        if size <= CACHE_LIMIT:
            return 0
        trees.remove_tree(self._layout.cache)
        return size

    def _toolchains(self, plan: Plan, job: Job) -> dict[str, toolchains.Tool]:
        found = {}
        for wanted in plan.toolchains:
            choice = toolchains.resolve(wanted, self._tool_paths)
            if choice.warning:
                job.emit(choice.warning, kind="info" if wanted.source == "default" else "warning")
            if choice.tool:
                found[wanted.name] = choice.tool
        missing = toolchains.missing_packages((*plan.packages, *plan.runtime_packages))
        if missing:
            names = " ".join(dict.fromkeys(missing))
            job.emit(f"The app needs system packages that may be missing: sudo apt install {names}", kind="warning")
        return found

    @contextlib.contextmanager
    def _claim(self, *names: str) -> Iterator[None]:
        """Keeps `prune` off these folders."""
        with self._guard:
            self._active.update(names)
        try:
            yield
        finally:
            with self._guard:
                self._active.difference_update(names)


class _Build:
    """One build, while it is made."""

    def __init__(self, layout: Layout, request: BuildRequest, tools: Mapping[str, toolchains.Tool], job: Job) -> None:
        self._layout = layout
        self._request = request
        self._plan = request.plan
        self._tools = tools
        self._job = job
        self._source = _app_folder(request)
        self._secrets = {name: secret.reveal() for name, secret in request.build_env.items()}
        self._mask = Masked(list(self._secrets.values()))
        self._steps = _ordered(self._plan)
        self._dependencies = [step for step in self._steps if _names_files(step)]
        self._id = _builds_of_this_process(layout) + uuid.uuid4().hex

    def run(self, claim: Any) -> Image:
        layer = self._layout.layers / self._layer_digest()[:DIGEST] if self._dependencies else None
        digest = self._digest(layer)
        build = self._layout.builds / digest[:DIGEST]
        with claim(build.name, layer.name if layer else build.name):
            record = _build_record(build)
            if record is None:
                try:
                    record = self._make(build, layer, digest)
                except BaseException:
                    end_builds(self._id)
                    trees.remove_tree(build)
                    raise
        return Image(
            kind="folder",
            builder="process",
            ref=self._layout.ref(build),
            digest=record.digest,
            size=record.size,
            resolved=record.resolved,
            workdir=str(build / "app"),
        )

    def _make(self, build: Path, layer: Path | None, digest: str) -> BuildRecord:
        trees.remove_tree(build)  # a build that was cut short
        later = [step for step in self._steps if not _names_files(step)]
        if layer:
            paths = self._layer(layer)
            _copy_layer(layer, build, paths, self._may_link(later))
        else:
            self._prepare(build)
        trees.copy_files(self._source, build / "app", trees.files_below(self._source))
        started = time.time()
        self._carry_out(build, later)
        if layer and later and trees.changed_since(layer, started):
            self._copy_from_now_on(layer)
        record = BuildRecord(
            app=self._request.app,
            digest=digest,
            layer=layer.name if layer else "",
            size=trees.size_of(build),
            resolved={name: str(tool) for name, tool in self._tools.items()},
            labels=self._request.labels,
            built_at=time.time(),
        )
        write_atomically(build / "build.json", encode(record))
        return record

    def _may_link(self, later: Sequence[Step]) -> Callable[[str], bool]:
        """Which files of the layer may be hard links in the build: all, where no step comes after it; those of
        packages, unless a step of this app was seen to write into them; none."""
        if not later:
            return lambda _: True
        return (lambda _: False) if self._writes_into_packages.exists() else trees.is_package_file

    def _copy_from_now_on(self, layer: Path) -> None:
        """A step has written into the layer through a hard link: it is made anew for the next build, which copies."""
        self._writes_into_packages.parent.mkdir(parents=True, exist_ok=True)
        self._writes_into_packages.touch()
        trees.remove_tree(layer)
        self._job.emit("A build step writes into installed packages: the next build installs them anew", kind="info")

    @property
    def _writes_into_packages(self) -> Path:
        return self._layout.caches / safe_name(self._request.app) / ".writes-into-packages"

    def _layer(self, layer: Path) -> tuple[str, ...]:
        """Carries out the dependency steps, where that was not done before; the files that hold the layer's path."""
        record = _layer_record(layer)
        if record is None:
            trees.remove_tree(layer)
            self._prepare(layer)
            names = [name for step in self._dependencies for name in step.files]
            trees.copy_files(self._source, layer / "app", trees.named_files(self._source, names))
            self._carry_out(layer, self._dependencies)
            record = LayerRecord(app=self._request.app, paths=trees.paths_in_files(layer))
            write_atomically(layer / "layer.json", encode(record))
        else:
            for step in self._dependencies:
                self._job.emit(f"{step.name}: unchanged", kind="info")
        return record.paths

    def _prepare(self, folder: Path) -> None:
        (folder / "app").mkdir(mode=0o755, parents=True)
        toolchains.expose(self._tools.values(), folder / "tools")

    def _carry_out(self, folder: Path, steps: Sequence[Step]) -> None:
        for step in steps:
            self._job.check()
            self._job.emit(f"{step.name}: {self._mask(shlex.join(step.argv))}", kind="info")
            with self._kept_folders(folder, step), tempfile.TemporaryDirectory(prefix="mini-build-") as scratch:
                run_step(step, folder / "app", self._environment(folder, step, scratch), self._mask, self._job)

    def _environment(self, folder: Path, step: Step, scratch: str) -> dict[str, str]:
        """Nothing of the server's but how to reach registries; then the tools' folders, the step's own, secrets."""
        home = folder / "tools" / "home"
        home.mkdir(exist_ok=True)
        env = base_environment(folder, self._plan) | passed_on(os.environ, NETWORK)
        env |= {
            "HOME": str(home),
            "TMPDIR": scratch,
            "XDG_CACHE_HOME": str(self._shared("tools")),
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-modcacherw",
            "NPM_CONFIG_PREFIX": str(folder / "tools" / "npm"),
            "NPM_CONFIG_UPDATE_NOTIFIER": "false",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PYTHONUNBUFFERED": "1",
        }
        env |= {cache.variable: str(self._shared(cache.name)) for cache in step.caches if cache.variable}
        env |= step.env
        if step.secrets:
            env |= self._secrets
        env["MINI_BUILD"] = self._id
        return env

    def _shared(self, name: str) -> Path:
        folder = self._layout.cache / safe_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _kept_folders(self, folder: Path, step: Step) -> Iterator[None]:
        """Caches that live in the app's folder are there while the step runs, and kept for the next build."""
        kept = self._layout.caches / safe_name(self._request.app)
        pairs = [
            (folder / "app" / _relative(cache.path), kept / safe_name(cache.name))
            for cache in step.caches
            if cache.path
        ]
        for inside, outside in pairs:
            if outside.is_dir() and not inside.exists() and not self._request.no_cache:
                inside.parent.mkdir(parents=True, exist_ok=True)
                outside.rename(inside)
        try:
            yield
        finally:
            for inside, outside in pairs:
                if inside.is_dir() and not inside.is_symlink():
                    trees.remove_tree(outside)
                    outside.parent.mkdir(parents=True, exist_ok=True)
                    inside.rename(outside)

    def _layer_digest(self) -> str:
        names = [name for step in self._dependencies for name in step.files]
        digest = self._new_digest(self._dependencies)
        trees.digest_files(digest, self._source, trees.named_files(self._source, names))
        return str(digest.hexdigest())

    def _digest(self, layer: Path | None) -> str:
        digest = self._new_digest(self._steps)
        digest.update(encode(self._plan))
        digest.update(layer.name.encode() if layer else b"")
        trees.digest_files(digest, self._source, trees.files_below(self._source))
        return str(digest.hexdigest())

    def _new_digest(self, steps: Sequence[Step]) -> Any:
        """Of what steps depend on besides files: themselves, tools, secrets, the app whose folder it will be."""
        digest = trees.new_digest(self._layout.platform)
        salt = self._request.id if self._request.no_cache else ""
        secrets = sorted(self._secrets.items()) if any(step.secrets for step in steps) else []
        tools = [str(tool) for tool in self._tools.values()]
        digest.update(encode((salt, self._request.app, tools, secrets, self._plan.bin, steps)))
        return digest


def _builds_of_this_process(layout: Layout) -> str:
    """What MINI_BUILD begins with: steps of another process are those of a controller that was killed."""
    return f"{layout.platform}.{os.getpid()}."


def remove_builds(layout: Layout, app: str) -> None:
    """Removes builds, layers and kept folders of an app."""
    trees.remove_tree(layout.caches / safe_name(app))
    for folder in _folders(layout.builds):
        record = _build_record(folder)
        if record and record.app == app:
            _remove_build(folder)
    for folder in _folders(layout.layers):
        layer = _layer_record(folder)
        if layer and layer.app == app:
            trees.remove_tree(folder)


def _ordered(plan: Plan) -> list[Step]:
    """Dependency steps first: they name their files, and run before the rest of the source is there."""
    return [*filter(_names_files, plan.steps), *(step for step in plan.steps if not _names_files(step))]


def _names_files(step: Step) -> bool:
    return bool(step.files) and "." not in step.files


def _app_folder(request: BuildRequest) -> Path:
    folder = request.source / _relative(request.plan.path)
    if not folder.is_dir():
        raise BuildError(f"{request.plan.path}: there is no such folder in the source", hint="Check path in mini.toml.")
    return folder


def _relative(path: str) -> PurePosixPath:
    """A path below a folder. Raises PlanError for one that leads out of it."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise PlanError(f"{path}: must be below the app's folder")
    return relative


def _copy_layer(layer: Path, build: Path, paths: Sequence[str], linked: Callable[[str], bool]) -> None:
    build.mkdir(parents=True)
    for name in ("app", "tools"):
        trees.copy_tree(layer / name, build / name, linked=linked)
    trees.relocate(build, paths, layer)


def _remove_build(folder: Path) -> None:
    """Not a build any more before the first file is gone."""
    (folder / "build.json").unlink(missing_ok=True)
    trees.remove_tree(folder)


def _discard(folder: Path) -> int:
    size = trees.size_of(folder)
    _remove_build(folder)
    return size


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in sorted(parent.iterdir()) if path.is_dir()]
    except FileNotFoundError:
        return []


def _build_record(folder: Path) -> BuildRecord | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return decode(BuildRecord, (folder / "build.json").read_bytes())
    return None


def _layer_record(folder: Path) -> LayerRecord | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return decode(LayerRecord, (folder / "layer.json").read_bytes())
    return None
