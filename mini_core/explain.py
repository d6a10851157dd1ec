"""A plan in words: what `mini plan` and a deploy's first lines say. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from mini_core.planned import Planned
from mini_core.types import EnvEntry, Offer, Plan, ProcessType, Strength

MAX_COMMAND = 140
"""Characters of a build command that are shown."""


def headline(plan: Plan) -> str:
    """The one line that a user reads: `python 3.13 (from .python-version) · pip · Flask → gunicorn`."""
    tools = [
        f"{item.name} {item.version or 'default'} ({'default' if item.source == 'default' else f'from {item.source}'})"
        for item in plan.toolchains
        if item.name not in ("static", "debian")
    ]
    return " · ".join((*tools, *plan.summary))


def explain(planned: Planned) -> list[str]:
    """What `mini plan` prints: who matched and why, how it is built, what is started, what else could be."""
    plan = planned.plan
    chosen = planned.offers[0] if planned.offers else None
    lines = [headline(plan)]
    if plan.path != ".":
        lines.append(f"in {plan.path}/")
    if chosen is not None:
        lines += ["", f"Chosen: {chosen.buildpack}, because it {chosen.reason} ({_strength(chosen)})"]
        lines += _columns((_place(item.file, item.line), item.detail) for item in plan.evidence)
    lines += _section("Build", ((step.name, _shortened(command_line(step.argv))) for step in plan.steps))
    lines += _section("Packages", _packages(plan))
    lines += _section("Processes", ((item.name, _process_line(item)) for item in plan.processes))
    if plan.static:
        fallback = f", unknown paths get {plan.static.fallback}" if plan.static.fallback else ""
        lines += _section("Static files", [(f"{plan.static.root}/", f"served as they are{fallback}")])
    lines += _section("Environment", ((entry.name, _env_line(entry)) for entry in plan.env))
    lines += _section("Health", _health_lines(plan))
    lines += _section(
        "Also possible", ((line.partition(": ")[0], line.partition(": ")[2]) for line in planned.alternatives)
    )
    lines += _section("Note", ((f"{number}.", text) for number, text in enumerate(planned.warnings, 1)))
    return lines


def _strength(offer: Offer) -> str:
    return {
        Strength.LOOSE: "loose files only",
        Strength.MANIFEST: "a manifest",
        Strength.PROJECT: "a manifest with a lock file or an entry point",
        Strength.DOCKERFILE: "a Dockerfile is used as it is",
        Strength.EXPLICIT: "you chose it",
    }[offer.strength]


def _place(file: str, line: int | None) -> str:
    return file if line is None else f"{file}:{line}"


def _packages(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.packages:
        yield "build", " ".join(plan.packages)
    if plan.runtime_packages:
        yield "run", " ".join(plan.runtime_packages)


def _process_line(process: ProcessType) -> str:
    shown = command_line(process.command) or "what the image starts"
    return f"{shown}  ({process.source})"


def _env_line(entry: EnvEntry) -> str:
    shown = {"value": entry.value, "generated": "generated once", "required": "you must set it"}[entry.kind]
    return f"{shown}  ({entry.description})" if entry.description else shown


def _health_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.health.path:
        yield "path", plan.health.path
    if plan.port:
        yield "port", f"{plan.port} (unless it heeds PORT)"


def _shortened(line: str) -> str:
    """What fits on a line or two: `--json` and `--dockerfile` have it whole."""
    return line if len(line) <= MAX_COMMAND else f"{line[: MAX_COMMAND - 1]}…"


def command_line(argv: Sequence[str]) -> str:
    """An argv as one would type it; the line itself for ("sh", "-c", line)."""
    return argv[2] if len(argv) == 3 and argv[:2] == ("sh", "-c") else shlex.join(argv)


def _section(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = _columns(rows)
    return ["", title, *lines] if lines else []


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = min(max((len(left) for left, _ in pairs), default=0), 32)
    return [f"  {left:<{width}}  {right}".rstrip() for left, right in pairs]
