"""From a source to a plan: collect the offers of all buildpacks, choose, apply what the repository asks for, check.

Pure: the same source, buildpacks and wishes give the same plan, whatever order the buildpacks come in.

Precedence, strongest first: flags, mini.toml, Procfile and app.json, what was detected. Among offers the strongest
evidence wins (`types.Strength`); equally strong ones are ranked by `_rank`, and the loser is named in a warning.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mini_core import api
from mini_core.errors import ConfigError, MiniError, PlanError
from mini_core.explain import headline
from mini_core.interfaces import Buildpack, Source, WorkspaceBuildpack
from mini_core.manifest import CronJob, Manifest, read_manifest, shell
from mini_core.types import BuildSettings, EnvEntry, Offer, Plan, ProcessType, Strength, value

Amend = Callable[[Source, Plan], Plan]
"""Adds what plugins want to a plan, as `Hooks.amend_plan` does. The source is the app's folder."""

MAX_CANDIDATES = 12
"""A repository with more apps than that is a collection: choosing one of them would be a coin toss."""

_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_SKIPPED = re.compile(
    r"\.|node_modules$|vendor$|venv$|env$|tests?$|__pycache__$|site-packages$|docs?$|fixtures$|third_party$"
)
_PREFERRED = ("app", "web", "server", "backend", "api", "site", "frontend", "client", "src")
_OTHER_LANGUAGES = {
    "Gemfile": "Ruby",
    "composer.json": "PHP",
    "index.php": "PHP",
    "pom.xml": "Java",
    "build.gradle": "Java",
    "build.gradle.kts": "Java",
    "Cargo.toml": "Rust",
    "mix.exs": "Elixir",
    "deno.json": "Deno",
    "deno.jsonc": "Deno",
    "project.clj": "Clojure",
    "build.sbt": "Scala",
    "pubspec.yaml": "Dart",
    "Package.swift": "Swift",
    "stack.yaml": "Haskell",
    "build.zig": "Zig",
    "CMakeLists.txt": "C or C++",
}


@value
class Planned:
    """A plan, and how it came about.

    offers: of all buildpacks, the chosen one first. alternatives: what else could be deployed, and how to choose
    it. warnings: for the user, the plan's own included. formation: instances per process type, `release` left out.
    """

    plan: Plan
    manifest: Manifest = Manifest()
    offers: tuple[Offer, ...] = ()
    alternatives: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    formation: Mapping[str, int] = field(default_factory=dict)

    @property
    def cron(self) -> tuple[CronJob, ...]:
        return self.manifest.cron

    def info(self, files: Mapping[str, str] | None = None) -> api.PlanInfo:
        """The same for the API. files: generated ones, such as a Dockerfile."""
        offers = tuple(
            api.OfferInfo(buildpack=offer.buildpack, strength=offer.strength.name.lower(), reason=offer.reason)
            for offer in self.offers
        )
        return api.PlanInfo(
            plan=self.plan,
            offers=offers,
            alternatives=self.alternatives,
            files=files or {},
            warnings=self.warnings,
        )


@dataclass(frozen=True)
class Failed:
    """A buildpack that recognised a source and found it broken, and how strongly it believes that it is its own."""

    buildpack: str
    error: MiniError
    strength: Strength


@dataclass(frozen=True)
class Found:
    """What the buildpacks say about one folder."""

    offers: tuple[Offer, ...] = ()
    failed: tuple[Failed, ...] = ()
    warnings: tuple[str, ...] = ()


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
    settings = _settings(manifest, buildpack, build_env or {})
    folder, found, alternatives = _folder(source, manifest, buildpacks, settings, fixed=bool(path))
    if folder != manifest.path:
        manifest = read_manifest(source, folder, app)
        settings = _settings(manifest, buildpack, build_env or {})
    member = _member(source, manifest.path, found, buildpacks, settings)
    if member is not None:
        folder, found, manifest = ".", replace(found, offers=(member, *found.offers[1:])), _inside(manifest)
    root = source if folder == "." else source.sub(folder)
    offer, chosen_notes = choose(found, buildpacks, settings, manifest, root)
    plan = apply_manifest(replace(offer.plan, path=folder), manifest)
    if amend is not None:
        plan = amend(root, plan)
    validate(plan)
    others = [item for item in found.offers if item is not offer]
    alternatives = (*alternatives, *(_alternative(item) for item in others))
    start_notes = [] if _starts(plan) else [NO_START]
    return Planned(
        plan=plan,
        manifest=manifest,
        offers=(offer, *others),
        alternatives=alternatives,
        warnings=_unique((*notes, *manifest.warnings, *found.warnings, *chosen_notes, *plan.warnings, *start_notes)),
        formation=formation(plan.processes, manifest.formation),
    )


NO_START = "No start command found: add a Procfile with a line such as `web: python app.py`"


def require_start(plan: Plan) -> None:
    """Raises PlanError for a plan that builds but has nothing to start."""
    if not _starts(plan):
        raise PlanError(
            f"no start command found for this {plan.buildpack} app{_tried(plan)}",
            hint="Add a Procfile with a line such as `web: COMMAND`, or [processes] in mini.toml.",
            code="no-start",
        )


def _tried(plan: Plan) -> str:
    return f" ({'; '.join(plan.warnings)})" if plan.warnings else ""


def _starts(plan: Plan) -> bool:
    return bool(plan.dockerfile or plan.static or any(item.name != "release" for item in plan.processes))


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


def _settings(manifest: Manifest, buildpack: str, build_env: Mapping[str, str]) -> BuildSettings:
    """What buildpacks get to see: the environment that the repository's files give is theirs to read, too."""
    given = {entry.name: entry.value for entry in manifest.env if entry.kind == "value"}
    build = manifest.build
    return replace(build, buildpack=buildpack or build.buildpack, env={**given, **build.env, **build_env})


# --- Detecting -------------------------------------------------------------------------------------------------


def collect(source: Source, buildpacks: Iterable[Buildpack], settings: BuildSettings) -> Found:
    """Asks every buildpack. One that crashes is a warning that names it; the others go on."""
    offers: list[Offer] = []
    failed: list[Failed] = []
    warnings: list[str] = []
    for buildpack in sorted(buildpacks, key=lambda item: item.name):
        try:
            offer = buildpack.detect(source, settings)
            if offer is not None and not isinstance(offer, Offer):
                raise TypeError(f"expected an Offer, got {type(offer).__name__}")
        except MiniError as error:
            failed.append(Failed(buildpack.name, error, getattr(error, "strength", Strength.MANIFEST)))
        except Exception as error:  # third-party code: whatever it raises
            warnings.append(f"buildpack {buildpack.name} crashed: {type(error).__name__}: {error}")
        else:
            if offer is not None:
                offers.append(offer)
    offers.sort(key=_rank)
    return Found(tuple(offers), tuple(failed), tuple(warnings))


def _rank(offer: Offer) -> tuple[int, bool, bool, int, int, str]:
    """Sorts the best first: strength, then a framework, something to start, languages combined, evidence, name."""
    plan = offer.plan
    return (
        -offer.strength,
        not plan.framework,
        not _starts(plan),
        -len(plan.toolchains),
        -len(plan.evidence),
        offer.buildpack,
    )


def choose(
    found: Found, buildpacks: Sequence[Buildpack], settings: BuildSettings, manifest: Manifest, source: Source
) -> tuple[Offer, tuple[str, ...]]:
    """The offer to take, and warnings. Raises PlanError where there is none, or what the best buildpack found."""
    wanted = settings.buildpack
    if wanted:
        return _explicit(found, buildpacks, wanted), ()
    notes: tuple[str, ...] = ()
    named = _from_app_json(manifest.buildpacks)
    if named:
        best = next((offer for offer in found.offers if offer.buildpack == named), None)
        if best is not None and best.strength < Strength.DOCKERFILE:
            return best, ()
        broken = next((item for item in found.failed if item.buildpack == named), None)
        if broken is not None:
            raise broken.error
    worst = max(found.failed, key=lambda item: item.strength, default=None)
    if not found.offers or (worst is not None and worst.strength > found.offers[0].strength):
        raise worst.error if worst is not None else _nothing(source, buildpacks)
    if worst is not None and worst.strength == found.offers[0].strength and not found.offers[0].plan.framework:
        raise worst.error
    for item in found.failed:
        notes = (*notes, f"{item.buildpack} was left out: {item.error.message}")
    return found.offers[0], (*notes, *_contest(found.offers))


def _explicit(found: Found, buildpacks: Sequence[Buildpack], wanted: str) -> Offer:
    for failed in found.failed:
        if failed.buildpack == wanted:
            raise failed.error
    for offer in found.offers:
        if offer.buildpack == wanted:
            return replace(offer, strength=Strength.EXPLICIT)
    known = {item.name: item for item in buildpacks}
    if wanted not in known:
        raise ConfigError(f"no buildpack named {wanted}", hint=f"There are: {', '.join(sorted(known))}.")
    raise PlanError(
        f"the {wanted} buildpack does not recognise this app: it looks for {known[wanted].description}",
        hint="Add what is missing, or take the buildpack out of mini.toml (or the --buildpack flag).",
        code="not-detected",
    )


_HEROKU_NAME = re.compile(r"(?:heroku/|heroku-buildpack-|buildpacks-|^)(python|nodejs|node|go|static|nginx)\b")


def _from_app_json(names: Sequence[str]) -> str:
    """The buildpack that app.json names: the last known one, for that one starts the app at Heroku."""
    for name in reversed(names):
        match = _HEROKU_NAME.search(name)
        if match:
            return {"nodejs": "node", "nginx": "static"}.get(match[1], match[1])
    return ""


def _contest(offers: Sequence[Offer]) -> Iterator[str]:
    """A warning for every offer as strong as the chosen one, unless the plan combines both."""
    best, *others = offers
    for other in others:
        main = other.plan.toolchains[0].name if other.plan.toolchains else other.buildpack
        if other.strength == best.strength and best.plan.toolchain(main) is None:
            yield (
                f"{best.buildpack} ({best.reason}) and {other.buildpack} ({other.reason}) fit equally "
                f"well: {best.buildpack} taken. The other: --buildpack {other.buildpack}, or build.buildpack in "
                "mini.toml"
            )


def _alternative(offer: Offer) -> str:
    return f"{offer.buildpack}: {offer.reason} (--buildpack {offer.buildpack})"


def _nothing(source: Source, buildpacks: Sequence[Buildpack]) -> PlanError:
    looked = "; ".join(f"{item.name}: {item.description}" for item in sorted(buildpacks, key=lambda item: item.name))
    for name, language in _OTHER_LANGUAGES.items():
        if source.has(name):
            return PlanError(
                f"this looks like a {language} app ({name}), for which there is no buildpack here",
                hint=f"Add a Dockerfile, or install a buildpack for {language}. Looked for: {looked}.",
                code="not-detected",
            )
    count = len(source.files())
    return PlanError(
        f"nothing that can be run was recognised in {count} file{'s' if count != 1 else ''}",
        hint=f"Looked for: {looked}. Add one of them, or say how to start it in a Procfile.",
        code="not-detected",
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
    foreign = not found.offers and any(source.has(name) for name in _OTHER_LANGUAGES)
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
    for folder in sorted(_folders(source), key=lambda item: (item.count("/"), item)):
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
    return -offer.strength, not _starts(offer.plan), path.count("/"), preferred, path


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
