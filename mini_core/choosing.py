"""Offers: ask all buildpacks, and choose by strength of evidence. Pure.

The strongest wins (`types.Strength`); equally strong ones are ranked by `_rank`, and the loser is named in a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mini_core.errors import ConfigError, MiniError, PlanError
from mini_core.interfaces import Buildpack, Source
from mini_core.manifest import Manifest
from mini_core.types import BuildSettings, Offer, Plan, Strength, Value, replace

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


class Failed(Value):
    """A buildpack that recognised a source and found it broken, and how strongly it believes that it is its own."""

    buildpack: str
    error: MiniError
    strength: Strength


class Found(Value):
    """What the buildpacks say about one folder."""

    offers: tuple[Offer, ...] = ()
    failed: tuple[Failed, ...] = ()
    warnings: tuple[str, ...] = ()


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
            strength = getattr(error, "strength", Strength.MANIFEST)
            failed.append(Failed(buildpack=buildpack.name, error=error, strength=strength))
        except Exception as error:  # third-party code: whatever it raises
            warnings.append(f"buildpack {buildpack.name} crashed: {type(error).__name__}: {error}")
        else:
            if offer is not None:
                offers.append(offer)
    offers.sort(key=_rank)
    return Found(offers=tuple(offers), failed=tuple(failed), warnings=tuple(warnings))


def _rank(offer: Offer) -> tuple[int, bool, bool, int, int, str]:
    """Sorts the best first: strength, then a framework, something to start, languages combined, evidence, name."""
    plan = offer.plan
    return (
        -offer.strength,
        not plan.framework,
        not starts(plan),
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


def alternative(offer: Offer) -> str:
    """A losing offer in a line, and how to take it."""
    return f"{offer.buildpack}: {offer.reason} (--buildpack {offer.buildpack})"


def other_language(source: Source) -> str:
    """The file that says that a source is written in a language without a built-in buildpack, "" if none does."""
    return next((name for name in _OTHER_LANGUAGES if source.has(name)), "")


def _nothing(source: Source, buildpacks: Sequence[Buildpack]) -> PlanError:
    looked = "; ".join(f"{item.name}: {item.description}" for item in sorted(buildpacks, key=lambda item: item.name))
    name = other_language(source)
    if name:
        language = _OTHER_LANGUAGES[name]
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


def starts(plan: Plan) -> bool:
    """Whether there is something to start: a process, a site, or an image that starts by itself."""
    return bool(plan.dockerfile or plan.static or any(item.name != "release" for item in plan.processes))
