"""Frontend assets of a Python app: where package.json has a build script, one plan does both.

The Node buildpack says how they are built; Python stays the app's language. An app whose package.json starts a
server of its own is left alone: then the two are rivals, and evidence decides.
"""

from __future__ import annotations

import json

from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Evidence, Plan, Step, replace

_BUILDS = ("build", "heroku-postbuild", "build:prod", "build:production")


def combine(source: Source, settings: BuildSettings, plan: Plan) -> Plan:
    """The plan with Node's toolchain and steps, where the source has assets to build."""
    script = _build_script(source)
    if not script:
        return plan
    from mini_buildpacks.node import NodeBuildpack

    offer = NodeBuildpack().detect(source, settings)
    if offer is None or not offer.plan.toolchains:
        return plan
    node = offer.plan
    if node.framework and node.process("web") is not None and node.static is None:
        return plan
    steps = tuple(replace(step, toolchain="node") for step in node.steps if step.name != "prune")
    early = tuple(step for step in plan.steps if step.files and "." not in step.files)
    late = tuple(step for step in plan.steps if step not in early)
    tidy = Step(name="tidy-assets", argv=("rm", "-rf", "node_modules"), toolchain="python")
    return replace(
        plan,
        toolchains=(*plan.toolchains, replace(node.toolchains[0], name="node")),
        summary=(*plan.summary, f"{node.package_manager or 'npm'} run {script}"),
        evidence=(*plan.evidence, Evidence(file="package.json", detail=f"scripts.{script} builds assets")),
        steps=(*early, *steps, *late, tidy),
        packages=tuple(dict.fromkeys((*plan.packages, *node.packages))),
        bin=(*plan.bin, *(folder for folder in node.bin if folder not in plan.bin)),
        warnings=tuple(dict.fromkeys((*plan.warnings, *node.warnings))),
    )


def _build_script(source: Source) -> str:
    try:
        data = json.loads(source.text("package.json") or "{}")
    except (ValueError, RecursionError):
        return ""
    scripts = data.get("scripts") if isinstance(data, dict) else None
    return next((name for name in _BUILDS if isinstance(scripts, dict) and scripts.get(name)), "")
