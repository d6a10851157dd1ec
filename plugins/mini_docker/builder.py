"""Carries out plans as Docker images.

Build-time variables are BuildKit's secrets: mounted while a step runs, and in no layer, history or cache. Generated
Dockerfiles mount them all as one file; the repository's own has to mount each of them by its name. The classic builder
has no mounts, so they are refused there. What a step prints is masked by the core, as all output is.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mini_core import disk, tarstream
from mini_core.errors import BuildError, MiniError, NotFound
from mini_core.interfaces import Builder, BuildRequest, Job
from mini_core.types import Image, Plan, replace
from mini_docker import context, nginx
from mini_docker.bases import Bases
from mini_docker.cache import BuildCache
from mini_docker.dockerfile import Base, Rendered, Style, ignore_file, ignored, render
from mini_docker.engine import Engine
from mini_docker.failures import argument_hint
from mini_docker.images import offline
from mini_docker.narration import BuildkitNarrator, ClassicNarrator
from mini_docker.session import session

_DOCKERFILE = "mini/Dockerfile"

TRANSFER_TIMEOUT = 3600.0
"""Seconds without a byte while an image is saved or loaded: engines prepare large ones before the first."""


class DockerBuilder(Builder):
    name = "docker"
    produces = "docker"

    def __init__(
        self,
        engine: Engine,
        platform: str,
        images: Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
        *,
        cache: BuildCache,
        reserve: int = 0,
    ) -> None:
        """settings: `[plugins.docker]`; `builder = "classic"` does without BuildKit. reserve: bytes of the engine's
        disk that must stay free."""
        self._engine, self._platform, self._images = engine, platform, images
        self._classic = (settings or {}).get("builder") == "classic"
        self._bases = Bases(engine, images)
        self._cache, self._reserve = cache, reserve

    def render(self, plan: Plan) -> dict[str, str]:
        if plan.dockerfile:
            return {}
        files = {"Dockerfile": render(plan, offline(plan, self._images)).text, ".dockerignore": ignore_file(plan)}
        if plan.static:
            files[nginx.CONFIG_NAME] = nginx.config(plan.static)
        return files

    def build(self, request: BuildRequest, job: Job) -> Image:
        job.check()
        source = request.source / request.plan.path
        buildkit = not self._classic and self._engine.has_buildkit()
        _refuse_secrets(request, buildkit)
        self._check_disk()
        if request.plan.dockerfile:
            return self._own(request, source, buildkit, job)
        return self._generated(request, source, buildkit, job)

    def _check_disk(self) -> None:
        """Raises Unavailable, with the numbers, where the engine keeps its images on a disk of ours that is nearly
        full."""
        if self._engine.is_here:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                disk.check(Path(self._engine.facts()["DockerRootDir"]), self._reserve)

    def exists(self, image: Image) -> bool:
        return self._inspect(image.ref) is not None

    def remove(self, image: Image) -> None:
        self._remove(image.ref)

    def prune(self, keep: Collection[Image], apps: Collection[str]) -> int:
        return self.prune_images(keep) + self._cache.prune(apps)

    def prune_images(self, keep: Collection[Image]) -> int:
        kept = {image.ref for image in keep}
        with self._engine.reached():
            found = self._engine.api.images(filters=self._engine.own(self._platform), all=False)
        freed = 0
        for image in found:
            tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
            gone = [self._remove(name) for name in (tags or [image["Id"]]) if name not in kept]
            if gone and all(gone) and len(gone) == len(tags or [""]):
                freed += int(image.get("Size") or 0)
        return freed

    # --- from one platform to another

    def size(self, images: Collection[Image]) -> int:
        """Layers that images share have the same entries in their histories."""
        with self._engine.reached():
            histories = [self._engine.api.history(image.ref) for image in images if self.exists(image)]
        layers = {(item["Created"], item["CreatedBy"], item["Size"]) for history in histories for item in history}
        return sum(size for *_, size in layers)

    def export(self, images: Collection[Image]) -> Iterator[bytes]:
        for image in images:
            if not self.exists(image):
                raise NotFound(f"the image {image.ref} is gone", hint="deploy again", code="image-gone")
        return self._saved([image.ref for image in images])

    def _saved(self, names: Sequence[str]) -> Iterator[bytes]:
        client = self._engine.connect(TRANSFER_TIMEOUT)
        with contextlib.closing(client), self._engine.reached():
            response = client._get(client._url("/images/get"), params={"names": names}, stream=True)
            with contextlib.closing(response):
                client._raise_for_status(response)
                yield from response.iter_content(tarstream.CHUNK)

    def import_(self, images: Sequence[tuple[Image, str]], data: Iterator[bytes]) -> tuple[Image | MiniError, ...]:
        """The labels are part of an image: the one that came is the parent of one with this platform's. Its tag is
        another platform's, and goes unless it was here before."""
        import docker.errors

        passing = [image for image, _ in images if not self.exists(image)]
        client = self._engine.connect(TRANSFER_TIMEOUT)
        try:
            with contextlib.closing(client), self._engine.reached():
                told = "".join(str(item.get("stream") or item.get("error") or "") for item in client.load_image(data))
                return tuple(self._adopted(client, image, app, told) for image, app in images)
        except docker.errors.APIError as error:
            raise _not_imported("the images", str(error.explanation or error)) from error
        finally:
            for image in passing:
                self.remove(image)

    def _adopted(self, client: Any, image: Image, app: str, told: str) -> Image | MiniError:
        """told: what the engine said when it took in the images."""
        if not self.exists(image):
            return _not_imported(image.ref, " ".join(told.split()) or "the engine did not say why")
        tag = f"mini/{app}:{secrets.token_hex(6)}-{self._platform[:8]}"
        labels = {"mini.platform": self._platform, "mini.app": app}
        body = io.BytesIO(tarstream.entry("Dockerfile", f"FROM {image.ref}\n".encode()) + tarstream.end())
        made = list(
            client.build(fileobj=body, custom_context=True, tag=tag, labels=labels, rm=True, forcerm=True, decode=True)
        )
        found = self._inspect(tag)
        if found is None:
            why = (str(item["error"]) for item in made if "error" in item)
            return _not_imported(image.ref, next(why, "it is not there"))
        return replace(image, ref=tag, digest=found["Id"], size=int(found.get("Size") or 0))

    # --- the two kinds of build

    def _generated(self, request: BuildRequest, source: Path, buildkit: bool, job: Job) -> Image:
        plan = request.plan
        bases = self._bases.resolve(plan, job)
        env = context.env_file(request.build_env) if request.build_env else b""
        style = Style(
            mounts=buildkit,
            context=True,
            secrets=context.secret_id(env) if env else "",
            scope=f"{request.app}-",
            labels={} if buildkit else self._labels(request),
        )
        rendered = render(plan, bases, style)
        own = [context.own(f"mini/{nginx.CONFIG_NAME}", nginx.config(plan.static))] if plan.static else []
        files = context.Files(
            entries=(*context.with_parents(own), *context.source_entries(source, ignored(plan), below="src")),
            dockerfile=context.own(_DOCKERFILE, rendered.text),
            secrets={style.secrets: env} if env else {},
        )
        self._run(request, files, {}, rendered, buildkit, job)
        image = self._image(request, rendered.text)
        return replace(image, resolved=_resolved(plan, bases), ports=(plan.port,) if plan.port else ())

    def _own(self, request: BuildRequest, source: Path, buildkit: bool, job: Job) -> Image:
        wanted = request.plan.dockerfile
        assert wanted
        path = source / wanted.path
        if not path.is_file():
            raise BuildError(
                f"there is no {wanted.path}", hint="name it: dockerfile in [build] of mini.toml", step="build"
            )
        text = path.read_text("utf-8", "replace")
        files = context.Files(
            entries=context.source_entries(source, context.dockerignore(source, wanted.path)),
            dockerfile=context.own(wanted.path, text),
            secrets={name: secret.reveal().encode() for name, secret in request.build_env.items()},
        )
        params = {"target": wanted.target, "buildargs": json.dumps(dict(wanted.args))}
        self._run(request, files, params, None, buildkit, job)
        return self._image(request, text)

    def _run(
        self,
        request: BuildRequest,
        files: context.Files,
        params: Mapping[str, str],
        rendered: Rendered | None,
        buildkit: bool,
        job: Job,
    ) -> None:
        """Has the engine build it. Raises BuildError, Cancelled and Unavailable."""
        import docker.errors

        asked = {
            **params,
            "dockerfile": files.dockerfile.path,
            "t": self._tag(request),
            "labels": json.dumps(self._labels(request)),
            "rm": 1,
            "forcerm": 1,
            **({"nocache": 1} if request.no_cache else {}),
        }
        narrator = (
            BuildkitNarrator(job, rendered, self._cache.noting(request.app))
            if buildkit
            else ClassicNarrator(job, rendered)
        )
        said = self._over_session(request, files, asked, job) if buildkit else self._as_tar(files, asked, job)
        try:
            for item in said:
                narrator.take(item)
        except docker.errors.APIError as error:
            narrator.take({"error": str(error.explanation or error)})
        failure = narrator.failure()
        if failure:
            if failure.code == "build" and (own := request.plan.dockerfile):
                failure.hint = argument_hint(failure.step, _own_dockerfile(request), own.args) or failure.hint
            raise failure

    def _over_session(
        self, request: BuildRequest, files: context.Files, asked: Mapping[str, Any], job: Job
    ) -> Iterator[dict[str, Any]]:
        """What BuildKit says, while it asks for the files that it wants."""
        with session(self._engine, f"{self._platform}-{request.app}", files) as name:
            more = {"version": "2", "buildid": f"{self._platform}-{request.id}", "remote": "client-session"}
            yield from self._engine.stream("/build", {**asked, **more, "session": name}, job)

    def _as_tar(self, files: context.Files, asked: Mapping[str, Any], job: Job) -> Iterator[dict[str, Any]]:
        """What the classic builder says, once it has all files."""
        headers = {"Content-Type": "application/x-tar"}
        self._engine.api._set_auth_headers(headers)
        with context.as_tar(files) as body:
            yield from self._engine.stream("/build", asked, job, body=body, headers=headers)

    # --- images

    def _tag(self, request: BuildRequest) -> str:
        """The platform is part of it: two on one engine may have an app of the same name."""
        return f"mini/{request.app}:{request.id}-{self._platform[:8]}"

    def _labels(self, request: BuildRequest) -> dict[str, str]:
        return {**request.labels, "mini.platform": self._platform, "mini.app": request.app}

    def _image(self, request: BuildRequest, dockerfile: str) -> Image:
        tag = self._tag(request)
        found = self._inspect(tag)
        if found is None:
            raise BuildError("the engine built no image", hint="see `docker images` and the engine's log", step="build")
        config = found.get("Config") or {}
        return Image(
            kind=self.produces,
            builder=self.name,
            ref=tag,
            digest=found["Id"],
            size=int(found.get("Size") or 0),
            ports=tuple(
                sorted(int(port.split("/")[0]) for port in config.get("ExposedPorts") or () if "udp" not in port)
            ),
            command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
            workdir=config.get("WorkingDir") or "/",
            dockerfile=dockerfile,
        )

    def _inspect(self, name: str) -> dict[str, Any] | None:
        import docker.errors

        try:
            with self._engine.reached():
                found: dict[str, Any] = self._engine.api.inspect_image(name)
                return found
        except docker.errors.NotFound:
            return None

    def _remove(self, name: str) -> bool:
        """Whether it is gone; what a container still uses stays."""
        import docker.errors

        try:
            with self._engine.reached():
                self._engine.api.remove_image(name)
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError as error:
            if error.status_code == 409:
                return False
            raise
        return True


def _not_imported(what: str, why: str) -> BuildError:
    return BuildError(f"the engine did not take in {what}: {why}", hint="deploy again", step="import")


def _own_dockerfile(request: BuildRequest) -> str:
    assert request.plan.dockerfile
    path = request.source / request.plan.path / request.plan.dockerfile.path
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _refuse_secrets(request: BuildRequest, buildkit: bool) -> None:
    """Where a build variable would not stay secret, or not be seen. Raises BuildError."""
    refused, why = sorted(request.build_env), "this engine's builder has no mounts, so they would stay in the image"
    hint = "set what is no secret in the repository: [build] args in mini.toml, or ARG's default"
    if buildkit:
        mounted = _mounted_secrets(request) if request.plan.dockerfile else set(refused)
        refused = [name for name in refused if name not in mounted]
        why = "as arguments of the repository's own Dockerfile they would stay in the image's history"
        hint = f"mount what a step needs: RUN --mount=type=secret,id={refused[0] if refused else ''} ...; {hint}"
    if refused:
        raise BuildError(
            f"build variables ({', '.join(refused)}) would not stay secret: {why}",
            hint=f"{hint}. Or: mini env unset --build {' '.join(refused)}",
            code="build-secrets",
            step="build",
        )


def _mounted_secrets(request: BuildRequest) -> set[str]:
    """Ids of the secrets that the repository's own Dockerfile mounts (docs.docker.com, RUN --mount=type=secret)."""
    text = _own_dockerfile(request)
    mounts = (mount.split(",") for mount in re.findall(r"--mount=(\S+)", text))
    return {
        part[3:].strip("\"'") for mount in mounts if "type=secret" in mount for part in mount if part.startswith("id=")
    }


def _resolved(plan: Plan, bases: Mapping[str, Base]) -> dict[str, str]:
    return {
        item.name: bases[item.name].run if item.name == plan.runtime else bases[item.name].build
        for item in plan.toolchains
        if item.name in bases
    }
