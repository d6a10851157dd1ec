"""Tiny Node apps, made in one line, and their plans."""

from __future__ import annotations

import json
from typing import Any

from mini_buildpacks.node import NodeBuildpack
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings, Plan, Step


def package(**entries: Any) -> str:
    """A package.json; `scripts` and the like as keywords."""
    return json.dumps({"name": "app", **entries})


def plan_of(files: dict[str, str] | None = None, /, env: dict[str, str] | None = None, **entries: Any) -> Plan:
    """The plan of an app with these files and, unless there is one among them, a package.json of these entries."""
    every = {"package.json": package(**entries), **(files or {})}
    offer = NodeBuildpack().detect(
        MemorySource({name: text.encode() for name, text in every.items()}), BuildSettings(env=env or {})
    )
    assert offer
    return offer.plan


def step(plan: Plan, name: str) -> Step:
    return next(item for item in plan.steps if item.name == name)


def install(plan: Plan) -> Step:
    return step(plan, "install dependencies")


def started(plan: Plan) -> str:
    """What is started, as one would say it."""
    if plan.static:
        return f"static {plan.static.root}" + (f" fallback {plan.static.fallback}" if plan.static.fallback else "")
    web = plan.process("web")
    if web is None:
        return ""
    return web.command[2] if web.command[:2] == ("sh", "-c") else " ".join(web.command)
