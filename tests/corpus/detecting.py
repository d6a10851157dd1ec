"""Detect: is the plan the one that the facts tell of? Language, package manager, version and its source, start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mini_core.types import Plan
from tests.corpus.facts import Fact

_MANAGERS = {
    "pyproject-nolock": ("pip", "uv", "poetry", "pdm", ""),
    "poetry-nolock": ("poetry", "pip"),
    "none": ("none", ""),
    "setup.py": ("pip",),
}
"""Names that the facts have for what is no package manager's own."""

_PIN_SOURCES = {
    "go directive": "go.mod",
    "heroku goVersion": "goversion",
    "requires-python": "requires-python",
    "tool.poetry.python": "pyproject",
    "pipfile.python_version": "pipfile",
    "pipfile.python_full_version": "pipfile",
}
_OF_LANGUAGE = {
    "node": ("engines.node", ".nvmrc", ".node-version", ".tool-versions", "mise", "volta"),
    "python": ("python", "runtime.txt", ".tool-versions", "mise"),
    "go": ("go", ".tool-versions", "mise"),
}


def differences(fact: Fact, plan: Plan) -> list[str]:
    """What the plan has otherwise than the facts; empty where all agrees."""
    return [
        text for text in (_language(fact, plan), _manager(fact, plan), _version(fact, plan), _start(fact, plan)) if text
    ]


def _language(fact: Fact, plan: Plan) -> str:
    return "" if plan.buildpack == fact.language else f"language {plan.buildpack}, expected {fact.language}"


def _manager(fact: Fact, plan: Plan) -> str:
    """Only names are compared, and versions where the facts have one and the plan names one."""
    name, _, version = fact.manager.partition("@")
    if "+" in name:  # several managers' files: which one is taken is the platform's choice
        return (
            ""
            if plan.package_manager.partition("@")[0] in name.split("+")
            else f"package manager {plan.package_manager}"
        )
    if not name or fact.language == "static":
        return ""
    ours, _, own_version = plan.package_manager.partition("@")
    if ours not in _MANAGERS.get(name, (name,)):
        return f"package manager {plan.package_manager or 'none'}, expected {fact.manager}"
    if version and own_version and _bare(version) != _bare(own_version):
        return f"package manager {plan.package_manager}, expected {fact.manager}"
    return ""


def _version(fact: Fact, plan: Plan) -> str:
    """One of the pins has to be what the plan asks for, and the plan has to name where it is from."""
    words = _OF_LANGUAGE.get(fact.language, ())
    pins = {name: version for name, version in fact.pins.items() if _concerns(name, words)}
    toolchain = plan.toolchain(fact.language)
    if not pins or toolchain is None:
        return ""
    for name, version in pins.items():
        wanted, ours = _bare(version), _bare(toolchain.version)
        same = ours == wanted or wanted in ours or wanted in ("latest", "stable", "*")
        if same and _source(name) in toolchain.source.lower():
            return ""
    told = " or ".join(f"{version} ({name})" for name, version in pins.items())
    return f"version {toolchain.version or 'default'} ({toolchain.source}), expected {told}"


def _concerns(name: str, words: tuple[str, ...]) -> bool:
    lowered = name.lower()
    if ":" in lowered:
        lowered, _, tool = lowered.partition(":")
        return tool in ("node", "python", "go") and tool in " ".join(words)
    return any(word in lowered for word in words)


def _source(name: str) -> str:
    lowered = name.lower()
    return _PIN_SOURCES.get(lowered) or _PIN_SOURCES.get(name) or lowered.split(":")[0].removesuffix(".toml")


def _bare(version: str) -> str:
    """A version as it is compared: no `v`, no spaces, no mark for "exactly" or "this release line"."""
    return re.sub(r"^(?:go|python-|v|==?|~)+", "", re.sub(r"\s+", "", version.strip().lower()))


def _start(fact: Fact, plan: Plan) -> str:
    """How it is started, where the facts know: a site, a start script, a file, one of several Go programs."""
    if any(item.text("start_override") for item in fact.expected) or fact.tier == "negative":
        return ""
    derived = fact.oracle.get("derived_start") or ""
    mains = fact.oracle.get("main_packages") or ()
    web = plan.process("web")
    command = " ".join(web.command) if web else ""
    shown = f"the site in {plan.static.root}" if plan.static else (command or "nothing")
    if mains:
        built = {word.removeprefix("./") or "." for step in plan.steps for word in step.argv}
        return (
            ""
            if any(main in " ".join(built) or main in built for main in mains)
            else f"builds none of {', '.join(mains)}"
        )
    if not derived or (derived == "static" and plan.static):
        return ""
    if derived == "static":
        return f"starts {shown}, expected a static site"
    if not web:
        return f"starts {shown}, expected {derived}"
    return "" if _agrees(derived, command, web.source) else f"starts {shown}, expected {derived}"


def _agrees(derived: str, command: str, source: str) -> bool:
    if derived.startswith("script start:"):
        line = derived.split(":", 1)[1].strip()
        return "scripts.start" in source or line in command
    if derived.startswith("Procfile"):
        return "Procfile" in source
    last = derived.split()[-1].removeprefix("./")
    return last in command or set(_words(derived)) <= set(_words(command))


def _words(line: str) -> Iterator[str]:
    return (word.removeprefix("./") for word in line.split())
