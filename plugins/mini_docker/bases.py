"""Base images: which of those that would do are there, which can be pulled, and what to say when none is.

The first choice is used if it is there, else pulled. Where the registry cannot be reached, the nearest image that
is there and satisfies the plan is used, saying so. Nothing is ever pulled again that is there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from mini_core.errors import BuildError
from mini_core.interfaces import Job
from mini_core.types import Plan, Toolchain
from mini_docker.dockerfile import Base
from mini_docker.engine import Engine
from mini_docker.images import BARE, Candidate, candidates

UNREACHABLE_FOR = 60.0
"""Seconds for which a registry that could not be reached is not asked again."""

REMEMBERED_FOR = 600.0
"""Seconds for which the names of the engine's images are not listed again as long as those that are used are there: an
engine with many images takes long to list them."""

_MISSING = ("manifest unknown", "not found", "does not exist", "manifest for")


class RegistryUnreachable(Exception):
    """The registry can't be asked now: no network, a time-out, too many requests."""


class Bases:
    """Finds the images for plans. overrides: `[images]` of server.toml."""

    def __init__(self, engine: Engine, overrides: Mapping[str, str]) -> None:
        self._engine, self._overrides = engine, overrides
        self._away_until = 0.0
        self._names: frozenset[str] = frozenset()
        self._listed_at = -math.inf

    def resolve(self, plan: Plan, job: Job) -> dict[str, Base]:
        """Toolchain → its images, and "" → a bare system. Raises BuildError naming what was wanted."""
        main = plan.toolchains[0].name if plan.toolchains else ""
        used = {step.toolchain or main for step in plan.steps}
        bases: dict[str, Base] = {}
        for toolchain in plan.toolchains:
            building, running = toolchain.name in used, toolchain.name == plan.runtime and not plan.static
            if building or running:
                bases[toolchain.name] = self._base(toolchain, building, running, job)
        if plan.static or plan.runtime == "" or not bases:
            bases[""] = self._base(Toolchain(name="debian"), False, True, job)
        return bases

    def local(self) -> frozenset[str]:
        """The names of all images of the engine."""
        with self._engine.reached():
            images = self._engine.api.images()
        self._names = frozenset(tag for image in images for tag in image.get("RepoTags") or ())
        self._listed_at = time.monotonic()
        return self._names

    def pull(self, image: str, job: Job) -> None:
        """Raises RegistryUnreachable, NotFound of docker-py where the registry has no such image, and Cancelled."""
        import docker.auth
        import docker.errors
        import docker.utils

        name, tag = docker.utils.parse_repository_tag(image)
        registry, _ = docker.auth.resolve_repository_name(name)
        login = docker.auth.get_config_header(self._engine.api, registry)
        shown = _Shown(image, job)
        params = {"fromImage": name, "tag": tag or "latest"}
        headers = {"X-Registry-Auth": login.decode() if isinstance(login, bytes) else login} if login else {}
        try:
            for item in self._engine.stream("/images/create", params, job, headers=headers):
                if "error" in item:
                    raise _refused(str(item["error"]))
                shown.take(item)
        except docker.errors.APIError as error:
            raise _refused(str(error.explanation or error)) from error

    # --- one toolchain

    def _base(self, toolchain: Toolchain, building: bool, running: bool, job: Job) -> Base:
        if base := self._as_before(toolchain, building, running):
            return base
        local = self.local()
        options = candidates(toolchain, self._overrides, sorted(local))
        first = _there(options[0], local, building, running)
        if first and not first[1]:
            return first[0]
        reason = "" if time.monotonic() > self._away_until else "the registry could not be reached"
        if not reason:
            base, reason = self._pulled(options, building, running, job)
            if base:
                return base
        for option in options:
            found = _there(option, local, building, running)
            if found:
                _say(toolchain, option, options[0], found[0], reason, job)
                return found[0]
        raise _none(toolchain, options, building, local, reason)

    def _as_before(self, toolchain: Toolchain, building: bool, running: bool) -> Base | None:
        """The first choice among the images that are remembered, if it is still there."""
        import docker.errors

        if time.monotonic() > self._listed_at + REMEMBERED_FOR:
            return None
        first = candidates(toolchain, self._overrides, sorted(self._names))[0]
        found = _there(first, self._names, building, running)
        if found is None or found[1]:
            return None
        used = {*([first.build] if building else []), *([first.run] if running else [])}
        try:
            with self._engine.reached():
                for image in used:
                    self._engine.api.inspect_image(image)
        except docker.errors.APIError:
            return None
        return found[0]

    def _pulled(
        self, options: tuple[Candidate, ...], building: bool, running: bool, job: Job
    ) -> tuple[Base | None, str]:
        """The first option that can be had with the registry's help, else why not."""
        import docker.errors

        for option in options:
            wanted = [*([option.run] if running else []), *([option.build] if building else [])]
            for image in dict.fromkeys(wanted):
                try:
                    if _full(image) not in self.local():
                        job.emit(f"Pulling {image}", kind="info")
                        self.pull(image, job)
                except docker.errors.NotFound:
                    continue
                except RegistryUnreachable as error:
                    self._away_until = time.monotonic() + UNREACHABLE_FOR
                    return None, str(error)
            found = _there(option, self.local(), building, running)
            if found:
                return found[0], ""
        return None, "the registry has none of them"


def _there(option: Candidate, local: frozenset[str], building: bool, running: bool) -> tuple[Base, bool] | None:
    """The option with what is here, and whether one image stands in for another. None where nothing is here."""
    build, run = (_full(name) in local for name in (option.build, option.run))
    alike = option.run != BARE  # the slim and the full image of one language, each of which can do for the other
    if building and not build and not (alike and run):
        return None
    if running and not run and not (alike and build):
        return None
    base = Base(
        build=option.build if build or not building else option.run,
        run=option.run if run or not running else option.build,
        packages=option.tools if building and not build else (),
    )
    return base, (building and not build) or (running and not run)


def _say(toolchain: Toolchain, option: Candidate, first: Candidate, base: Base, reason: str, job: Job) -> None:
    wanted = f"{toolchain.name} {toolchain.version}".strip()
    if option.version != first.version or not option.exact:
        job.emit(f"{wanted}: {base.run} is used instead of {first.run} ({reason})", kind="warning")
    elif base.packages:
        job.emit(f"{base.build} stands in for {option.build} ({reason})", kind="info")


def _none(
    toolchain: Toolchain, options: tuple[Candidate, ...], building: bool, local: frozenset[str], reason: str
) -> BuildError:
    names = list(dict.fromkeys(option.build if building else option.run for option in options))
    family = names[0].rpartition(":")[0] or names[0]
    there = ", ".join(sorted(name for name in local if name.rpartition(":")[0] == family)) or "none of that name"
    return BuildError(
        f"no image for {toolchain.name} {toolchain.version or '(default)'}: wanted {', '.join(names[:3])}; "
        f"here: {there} ({reason})",
        hint=f"docker pull {names[0]}, or name another version ({toolchain.source}), or set [images]",
        code="no-base-image",
        step="base image",
    )


def _full(image: str) -> str:
    """As the engine lists it: with a tag, and without Docker Hub's own names."""
    image = image.removeprefix("docker.io/").removeprefix("library/")
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def _refused(text: str) -> Exception:
    import docker.errors

    if any(word in text.lower() for word in _MISSING):
        return docker.errors.NotFound(text)
    return RegistryUnreachable(f"the registry cannot be reached: {text.split(': ')[-1].strip()}")


class _Shown:
    """Progress of a pull, over all its layers, at most five times a second."""

    def __init__(self, image: str, job: Job) -> None:
        self._image, self._job = image, job
        self._layers: dict[str, tuple[int, int]] = {}
        self._last = 0.0

    def take(self, item: Mapping[str, Any]) -> None:
        detail, layer = item.get("progressDetail") or {}, str(item.get("id", ""))
        if item.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail["current"]), int(detail["total"]))
        elif item.get("status") in ("Download complete", "Pull complete") and layer in self._layers:
            self._layers[layer] = (self._layers[layer][1], self._layers[layer][1])
        if self._layers and time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            done, total = (sum(pair[index] for pair in self._layers.values()) for index in (0, 1))
            self._job.emit(f"Pulling {self._image}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", kind="progress")
