"""From a source to a plan: collect the offers of all buildpacks, choose, apply what the repository asks for, check.

Pure: the same source, buildpacks and wishes give the same plan, whatever order the buildpacks come in.

Precedence, strongest first: flags, mini.toml, Procfile and app.json, what was detected. Among offers the strongest
evidence wins (`types.Strength`); equally strong ones are ranked by `_rank`, and the loser is named in a warning.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mini_core.choosing import Found, alternative, choose, collect, other_language, starts
from mini_core.errors import PlanError
from mini_core.explain import headline
from mini_core.interfaces import Buildpack, Source, WorkspaceBuildpack
from mini_core.manifest import Manifest, read_manifest, shell
from mini_core.planned import Planned
from mini_core.types import BuildSettings, EnvEntry, Offer, Plan, ProcessType, Strength, replace

Amend = Callable[[Source, Plan], Plan]
"""Adds what plugins want to a plan, as `Hooks.amend_plan` does. The source is the app's folder."""

MAX_FOLDERS = 1000
"""Folders that are searched for an app where the root has none."""

MAX_CANDIDATES = 12
"""A repository with more apps than that is a collection: choosing one of them would be a coin toss."""

_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_SKIPPED = re.compile(
    r"\.|node_modules$|vendor$|venv$|env$|tests?$|__pycache__$|site-packages$|docs?$|fixtures$|third_party$"
)
_PREFERRED = ("app", "web", "server", "backend", "api", "site", "frontend", "client", "src")


def make_plan(
    source: Source,
    buildpacks: Sequence[Buildpack],
    *,
    app: str = "",
    path: str = "",
    buildpack: str = "",
    build_env: Mapping[str, str] | None = None,
    amend: Amend | None = None,
) -> Planned:
    """The plan for an app in a source.

    app: its name, which chooses one of mini.toml's `[apps]`. path: its folder. buildpack: its name, instead of
    detecting. build_env: variables that the build is to see, as far as they are no secrets. Raises PlanError where
    nothing, or nothing coherent, is found, and ConfigError for a file that is wrong.
    """
    if not source.files():
        raise PlanError("the folder is empty: there is nothing to deploy", hint="Run it in the app's folder.")
    manifest, notes = _manifest(source, path, app)
    settings = build_settings(manifest, buildpack, build_env or {})
    folder, found, alternatives = _folder(source, manifest, buildpacks, settings, fixed=bool(path))
    if folder != manifest.path:
        manifest = read_manifest(source, folder, app)
        settings = build_settings(manifest, buildpack, build_env or {})
    member = _member(source, manifest.path, found, buildpacks, settings)
    if member is not None:
        folder, found, manifest = ".", replace(found, offers=(member, *found.offers[1:])), _inside(manifest)
    root = source if folder == "." else source.sub(folder)
    offer, chosen_notes = choose(found, buildpacks, settings, manifest, root)
    plan = apply_manifest(replace(offer.plan, path=folder), manifest)
    if amend is not None:
        plan = amend(root, plan)
    validate(plan)
    others = [item for item in found.offers if item.buildpack != offer.buildpack]
    alternatives = (*alternatives, *(alternative(item) for item in others))
    start_notes = [] if starts(plan) else [no_start(plan)]
    return Planned(
        plan=plan,
        manifest=manifest,
        offers=(offer, *others),
        alternatives=alternatives,
        warnings=_unique((*notes, *manifest.warnings, *found.warnings, *chosen_notes, *plan.warnings, *start_notes)),
        formation=formation(plan.processes, manifest.formation),
    )


NO_START = "No start command found"
_START_EXAMPLES = {"python": "python app.py", "node": "node server.js", "go": "bin/app"}


def no_start(plan: Plan) -> str:
    """What is said of a plan that builds but has nothing to start."""
    example = _START_EXAMPLES.get(plan.buildpack, "COMMAND")
    return f"{NO_START}: add a Procfile with a line such as `web: {example}`"


def require_start(plan: Plan) -> None:
    """Raises PlanError for a plan that builds but has nothing to start."""
    if not starts(plan):
        raise PlanError(
            f"no start command found for this {plan.buildpack} app{_tried(plan)}",
            hint="Add a Procfile with a line such as `web: COMMAND`, or [processes] in mini.toml.",
            code="no-start",
        )


def _tried(plan: Plan) -> str:
    return f" ({'; '.join(plan.warnings)})" if plan.warnings else ""


def _manifest(source: Source, path: str, app: str) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest; where mini.toml lists several apps and none was chosen, that of the first."""
    manifest = read_manifest(source, path, app)
    if path or not manifest.apps or manifest.named(app) or manifest.path != ".":
        return manifest, ()
    first, *others = manifest.apps
    chosen = read_manifest(source, first.path, first.name)
    if not others:
        return chosen, ()
    names = ", ".join(item.name for item in others)
    return chosen, (f"mini.toml has several apps: {first.name} taken. The others: {names} (--path, or --all)",)


def build_settings(
    manifest: Manifest, buildpack: str = "", build_env: Mapping[str, str] | None = None
) -> BuildSettings:
    """What buildpacks get to see: what is asked of the build, the environment and the processes that files give."""
    given = {entry.name: entry.value for entry in manifest.env if entry.kind == "value"}
    build = manifest.build
    return replace(
        build,
        buildpack=buildpack or build.buildpack,
        env={**given, **build.env, **(build_env or {})},
        processes=merge_processes((), manifest),
    )


# --- Monorepos -------------------------------------------------------------------------------------------------


def _folder(
    source: Source, manifest: Manifest, buildpacks: Sequence[Buildpack], settings: BuildSettings, *, fixed: bool
) -> tuple[str, Found, tuple[str, ...]]:
    """(the app's folder, what was found there, other folders that could be deployed)."""
    root = source if manifest.path == "." else source.sub(manifest.path)
    found = collect(root, buildpacks, settings)
    best = found.offers[0].strength if found.offers else 0
    if fixed or manifest.path != "." or settings.buildpack or found.failed or best > Strength.LOOSE:
        return manifest.path, found, ()
    foreign = not found.offers and bool(other_language(source))
    candidates = [] if foreign else _candidates(source, buildpacks, settings)
    if found.offers or not candidates:
        return ".", found, tuple(_folder_line(path, item) for path, item in candidates)
    if len(candidates) > MAX_CANDIDATES:
        raise _too_many(candidates)
    (path, chosen), *others = candidates
    note = f"nothing to deploy in the root: {path}/ taken"
    if others:
        note += f". Also possible: {', '.join(f'{item}/' for item, _ in others)} (--path, or path in mini.toml)"
    chosen = replace(chosen, warnings=(*chosen.warnings, note))
    return path, chosen, tuple(_folder_line(path, item) for path, item in others)


def _member(
    source: Source, path: str, found: Found, buildpacks: Sequence[Buildpack], settings: BuildSettings
) -> Offer | None:
    """The offer for a folder of a workspace, which is built from the root; None for a folder on its own."""
    best = found.offers[0].buildpack if found.offers else ""
    buildpack = next((item for item in buildpacks if item.name == best), None)
    if path == "." or not isinstance(buildpack, WorkspaceBuildpack):
        return None
    return buildpack.detect_member(source, path, settings)


def _inside(manifest: Manifest) -> Manifest:
    """The manifest of a workspace's member, whose commands are run in its folder although the root is deployed."""
    start = f"cd {shlex.quote(manifest.path)} && "
    return replace(
        manifest,
        processes={name: line and start + line for name, line in manifest.processes.items()},
        procfile=tuple(
            replace(item, command=(*item.command[:2], start + item.command[2])) for item in manifest.procfile
        ),
    )


def _candidates(source: Source, buildpacks: Sequence[Buildpack], settings: BuildSettings) -> list[tuple[str, Found]]:
    """Folders, at most two levels down, that a buildpack recognises, the likeliest first. A folder inside of one
    that is recognised is a part of it."""
    found: dict[str, Found] = {}
    folders = sorted(_folders(source), key=lambda item: (item.count("/"), item))
    for folder in folders[:MAX_FOLDERS]:
        if any(folder.startswith(f"{taken}/") for taken in found):
            continue
        answer = collect(source.sub(folder), buildpacks, settings)
        if answer.offers:
            found[folder] = answer
    strong = {path: item for path, item in found.items() if item.offers[0].strength > Strength.LOOSE} or found
    return sorted(strong.items(), key=_folder_rank)


def _folder_rank(item: tuple[str, Found]) -> tuple[int, bool, int, int, str]:
    path, found = item
    offer = found.offers[0]
    name = path.rpartition("/")[2].lower()
    preferred = _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)
    return -offer.strength, not starts(offer.plan), path.count("/"), preferred, path


def _folders(source: Source) -> set[str]:
    found: set[str] = set()
    for path in source.files():
        parts = path.split("/")[:-1][:2]
        for depth, part in enumerate(parts, 1):
            if _SKIPPED.match(part):
                break
            found.add("/".join(parts[:depth]))
    return found


def _folder_line(path: str, found: Found) -> str:
    offer = found.offers[0]
    return f"{path}/: {headline(offer.plan) or offer.buildpack} (--path {path})"


def _too_many(candidates: Sequence[tuple[str, Found]]) -> PlanError:
    names = ", ".join(path for path, _ in candidates[:MAX_CANDIDATES])
    return PlanError(
        f"{len(candidates)} folders here could be deployed, and nothing in the root",
        hint=f"Choose one with --path, or path in mini.toml: {names}, …",
        code="ambiguous",
    )


# --- Applying and checking -------------------------------------------------------------------------------------


def apply_manifest(plan: Plan, manifest: Manifest) -> Plan:
    """The plan with what mini.toml, Procfile and app.json say on top."""
    processes = merge_processes(plan.processes, manifest)
    health = manifest.health
    packages = manifest.build.packages
    changed = replace(
        plan,
        processes=processes,
        env=_merge_env(plan.env, manifest.env),
        packages=_unique((*plan.packages, *packages)),
        runtime_packages=_unique((*plan.runtime_packages, *packages)),
        health=replace(
            plan.health,
            path=plan.health.path if health.path is None else health.path,
            timeout=health.timeout or plan.health.timeout,
            interval=health.interval or plan.health.interval,
        ),
    )
    web = changed.process("web")
    if changed.static is not None and web is not None and web.source != "detected":
        return _started_instead(changed)
    return changed


def _started_instead(plan: Plan) -> Plan:
    """A static plan whose repository says how to start it: the command counts, where there are tools to run it."""
    tools = [item.name for item in plan.toolchains if item.name not in ("static", "debian")]
    if tools:
        return replace(plan, static=None, artifacts=(".",), runtime=plan.runtime or tools[0])
    others = tuple(item for item in plan.processes if item.name != "web")
    return replace(
        plan, processes=others, warnings=(*plan.warnings, "The Procfile's web is not used: a static site is served")
    )


def merge_processes(detected: Sequence[ProcessType], manifest: Manifest) -> tuple[ProcessType, ...]:
    """A Procfile replaces what was detected (one that only has `release` adds it); mini.toml goes type by type."""
    from_procfile = manifest.procfile
    found = {item.name: item for item in detected}
    if any(item.name != "release" for item in from_procfile):
        found = {}
    found.update({item.name: item for item in from_procfile})
    for name, line in manifest.processes.items():
        if line:
            found[name] = ProcessType(name=name, command=shell(line), source="mini.toml")
        else:
            found.pop(name, None)
    return tuple(found.values())


def _merge_env(detected: Sequence[EnvEntry], given: Sequence[EnvEntry]) -> tuple[EnvEntry, ...]:
    return tuple({entry.name: entry for entry in (*detected, *given)}.values())


def formation(processes: Iterable[ProcessType], given: Mapping[str, int]) -> dict[str, int]:
    """Instances per process type: as given, else one of `web` and of `worker` and none of the others."""
    names = [item.name for item in processes if item.name != "release"]
    return {name: given.get(name, 1 if name in ("web", "worker") else 0) for name in names}


def validate(plan: Plan) -> None:
    """Raises PlanError naming what a plan must not have. Guards the platform against a buildpack's mistakes."""
    for problem in _problems(plan):
        raise PlanError(
            f"the {plan.buildpack} buildpack made an invalid plan: {problem}",
            hint="This is a fault of the buildpack, or of an amendment by a plugin: mini plugins list.",
            code="invalid-plan",
        )


def _problems(plan: Plan) -> Iterator[str]:
    names = [item.name for item in plan.processes]
    tools = [item.name for item in plan.toolchains]
    for process in plan.processes:
        if not _PROCESS.fullmatch(process.name):
            yield f"{process.name!r} is no name of a process type"
        if names.count(process.name) > 1:
            yield f"process {process.name} twice"
        if not plan.dockerfile and (not process.command or not all(process.command[:1])):
            yield f"process {process.name} has no command"
    for step in plan.steps:
        if not step.argv or not step.argv[0]:
            yield f"step {step.name} has no command"
        if step.toolchain and step.toolchain not in tools:
            yield f"step {step.name} needs the toolchain {step.toolchain}, which the plan does not have"
    if plan.runtime and plan.runtime not in tools:
        yield f"the app runs on {plan.runtime}, which the plan does not have"
    for path in _paths(plan):
        if path.startswith("/") or ".." in path.split("/"):
            yield f"{path} is not a path inside the app's folder"
    if plan.port is not None and not 0 < plan.port < 65536:
        yield f"port {plan.port}"
    if plan.health.path and not plan.health.path.startswith("/"):
        yield f"health path {plan.health.path}"


def _paths(plan: Plan) -> Iterator[str]:
    yield plan.path
    yield from plan.artifacts
    yield from plan.bin
    if plan.static:
        yield plan.static.root
    if plan.dockerfile:
        yield plan.dockerfile.path
    for step in plan.steps:
        yield from step.files
        yield from (cache.path for cache in step.caches)


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
