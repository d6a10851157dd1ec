"""What a release is made of: drafts from a source or from an earlier release, what makes two of them the same, and
which images are kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping

import msgspec

from mini_core import __version__
from mini_core.engine.parts import Parts
from mini_core.errors import ConfigError, Conflict, MiniError
from mini_core.store.records import App, Extras, Request, StoredRelease
from mini_core.types import (
    Image,
    Limits,
    Origin,
    Plan,
    Release,
    Secret,
    Value,
    Volume,
    iter_env,
    replace,
    to_data,
)

GENERATED_BYTES = 48


class Draft(Value):
    """A release before it has a number. `image` is None until it is built."""

    plan: Plan
    image: Image | None
    env: Mapping[str, Secret]
    addons: Mapping[str, Secret]
    limits: Mapping[str, Limits] = {}
    volumes: tuple[Volume, ...] = ()
    extras: Extras = Extras()
    origin: Origin | None = None
    reason: str
    build_key: str = ""


def changed_env(parts: Parts, app: App, request: Request) -> dict[str, Secret]:
    """The app's environment as the request wants it."""
    env = parts.store.apps.env(app.id)
    return {name: item for name, item in {**env, **request.env}.items() if name not in request.unset}


def changed_volumes(parts: Parts, app: App, request: Request) -> tuple[Volume, ...]:
    """The volumes that were added to the app by hand, as the request wants them."""
    kept = (item for item in parts.store.apps.volumes(app.id) if item.name not in request.unmounted)
    return merge_volumes((*kept,), request.volumes)


def addons_of(parts: Parts, app: App) -> dict[str, Secret]:
    return {name: Secret(item) for name, item in parts.hooks.release_env(app.name).items()}


def with_generated(plan: Plan, env: Mapping[str, Secret]) -> dict[str, Secret]:
    """The environment with the plan's generated entries; those that are there stay as they are."""
    missing = {entry.name for entry in iter_env(plan, "generated")} - env.keys()
    return {**env, **{name: Secret(secrets.token_urlsafe(GENERATED_BYTES)) for name in missing}}


def check_required(app: App, plan: Plan, env: Mapping[str, Secret]) -> None:
    """Raises ConfigError naming the variables that only the user can set."""
    missing = [entry for entry in iter_env(plan, "required") if entry.name not in env]
    if not missing:
        return
    named = ", ".join(f"{item.name} ({item.description})" if item.description else item.name for item in missing)
    values = " ".join(f"{item.name}=…" for item in missing)
    raise ConfigError(f"Not set: {named}.", hint=f"mini env set {values} -a {app.name}", code="env-missing")


def merge_limits(base: Mapping[str, Limits], changes: Mapping[str, Limits]) -> dict[str, Limits]:
    """The limits with the changes on top, number by number; 0 takes one back."""
    merged = dict(base)
    for process, change in changes.items():
        old = merged.get(process, Limits())
        numbers = {}
        for name in ("memory", "cpu", "pids"):
            given = getattr(change, name)
            numbers[name] = getattr(old, name) if given is None else (given or None)
        merged[process] = Limits(**numbers)
    return {process: item for process, item in merged.items() if item != Limits()}


def merge_volumes(declared: tuple[Volume, ...], added: tuple[Volume, ...]) -> tuple[Volume, ...]:
    """In the order of their targets; what was added by hand wins over the repository's files."""
    by_target = {item.target: item for item in (*declared, *added)}
    return tuple(by_target[target] for target in sorted(by_target))


def by_hand(stored: StoredRelease) -> tuple[dict[str, Limits], tuple[Volume, ...]]:
    """The limits and the volumes of a release that its repository's files do not have: theirs are not the app's."""
    limits: dict[str, Limits] = {}
    volumes, declared = stored.release.volumes, stored.extras
    for process, item in stored.release.limits.items():
        known = declared.limits.get(process, Limits())
        changed = {name: value for name, value in to_data(item).items() if value != getattr(known, name)}
        limits |= {process: Limits(**changed)} if changed else {}
    return limits, tuple(item for item in volumes if item not in declared.volumes)


def build_key(digest: str, plan: Plan, build_env: Mapping[str, Secret], runtime: str) -> str:
    """The same for what gives the same image."""
    building = replace(plan, processes=(), env=(), evidence=(), summary=(), warnings=())
    env = {name: hashlib.sha256(item.reveal().encode()).hexdigest() for name, item in build_env.items()}
    return _digest([digest, to_data(building), env, runtime])


def fingerprint(draft: Draft, runtime: str) -> str:
    """The same for what would run in the same way. Secrets enter as hashes."""
    env = {name: item.reveal() for name, item in {**draft.addons, **draft.env}.items()}
    parts = [draft.build_key, to_data(draft.plan), env, to_data(draft.limits), to_data(draft.volumes), runtime]
    return _digest([*parts, to_data(draft.extras)])


def _digest(data: object) -> str:
    return hashlib.sha256(msgspec.json.encode(data, order="deterministic")).hexdigest()


def from_release(parts: Parts, app: App, stored: StoredRelease, request: Request, kind: str, reason: str) -> Draft:
    """A draft that changes one thing about a release: its environment, its limits, its volumes, or, for a rollback,
    nothing at all. Add-ons' variables are always today's."""
    release = stored.release
    env = dict(release.env) if kind == "rollback" else changed_env(parts, app, request)
    limits, volumes = release.limits, release.volumes
    if kind == "scale":
        limits = merge_limits(merge_limits(stored.extras.limits, app.limits), request.limits)
    if kind == "volumes":
        volumes = merge_volumes(stored.extras.volumes, changed_volumes(parts, app, request))
    return Draft(
        plan=release.plan,
        image=release.image,
        env=env,
        addons=addons_of(parts, app),
        limits=limits,
        volumes=volumes,
        extras=stored.extras,
        origin=release.origin,
        reason=reason,
        build_key=stored.build_key,
    )


def add_release(parts: Parts, app: App, draft: Draft, actor: str) -> StoredRelease:
    """The draft as the app's next release, pending; what was generated for it is kept for good."""
    assert draft.image is not None
    with parts.store.transaction():
        known = parts.store.apps.env(app.id)
        generated = {entry.name for entry in iter_env(draft.plan, "generated")} - known.keys()
        parts.store.apps.set_env(app.id, {name: draft.env[name] for name in generated if name in draft.env})
        release = Release(
            app=app.name,
            version=parts.store.releases.next_version(app.id),
            image=draft.image,
            plan=draft.plan,
            env=draft.env,
            processes=draft.plan.processes,
            limits=draft.limits,
            volumes=draft.volumes,
            runtime=parts.runtime.name,
            origin=draft.origin,
            plugins=_plugins(parts),
            reason=draft.reason,
            created_at=time.time(),
            created_by=actor,
        )
        stored = StoredRelease(
            release=release,
            state="pending",
            addons=draft.addons,
            fingerprint=fingerprint(draft, parts.runtime.name),
            build_key=draft.build_key,
            extras=draft.extras,
        )
        parts.store.releases.add(app.id, stored)
        return stored


def _plugins(parts: Parts) -> dict[str, str]:
    return {"mini": __version__} | {info.name: info.version for info in parts.hooks.infos() if info.state == "ok"}


def prune_images(parts: Parts, app: App) -> None:
    """Keeps the newest images that were live, however many releases share one, and what runs; removes the app's
    others."""
    releases = parts.store.releases.with_image(app.id)
    needed = {item.release for item in parts.store.instances.find(app=app.id)} | {app.release}
    live = dict.fromkeys(item.release.image.ref for item in releases if item.state == "live")
    keep = {*list(live)[: parts.settings.keep]}
    keep |= {item.release.image.ref for item in releases if item.release.version in needed or item.state == "pending"}
    for item in releases:
        image = item.release.image
        if image.ref in keep:
            continue
        builder = parts.builder_of(image)
        try:
            if builder is not None:
                builder.remove(image)
        except MiniError:
            continue
        parts.store.releases.forget_image(app.id, item.release.version)


def image_gone(parts: Parts, app: App, stored: StoredRelease) -> Conflict:
    """What to say of a release that cannot run again: where one can go instead, and how it comes back."""
    release = stored.release
    why = "" if stored.image_kept else f": those of the last {parts.settings.keep} releases are kept"
    others = [item for item in parts.store.releases.all(app.id) if item.state == "live"]
    others = [item for item in others if item.release.version not in (release.version, app.release)]
    kept = [f"v{item.release.version}" for item in others[: parts.settings.keep] if image_is_there(parts, item)]
    instead = f"Go back to {' or '.join(kept)}, or deploy" if kept else "Deploy"
    commit = f"git checkout {release.origin.commit[:8]}; " if release.origin and release.origin.commit else ""
    return Conflict(
        f"The image of v{release.version} is gone{why}.",
        hint=f"{instead} its source again: {commit}mini deploy . {app.name}",
        code="image-gone",
    )


def image_is_there(parts: Parts, stored: StoredRelease) -> bool:
    builder = parts.builder_of(stored.release.image)
    return stored.image_kept and builder is not None and builder.exists(stored.release.image)
