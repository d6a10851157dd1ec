"""Files that a user can take over: mini.toml from what was detected, compose.yaml to leave. Pure."""

from __future__ import annotations

from typing import Any

import tomli_w
import yaml

from mini_core.explain import command_line
from mini_core.planned import Planned
from mini_core.types import EnvEntry, Health, Plan, ProcessType, replace

PORT = 8080
"""The port that the web process gets in compose.yaml."""


def init_toml(planned: Planned, app: str = "") -> str:
    """A mini.toml that says what was detected, to be changed at will."""
    plan = planned.plan
    data: dict[str, Any] = {}
    if app or planned.manifest.app:
        data["app"] = app or planned.manifest.app
    if plan.path != ".":
        data["path"] = plan.path
    data["build"] = _build(planned)
    processes = {item.name: command_line(item.command) for item in plan.processes if item.command}
    if processes:
        data["processes"] = processes
    if plan.env:
        data["env"] = {entry.name: _env(entry) for entry in plan.env}
    if plan.health != Health():
        data["health"] = _health(plan)
    return "# Made by `mini init` from what was detected. Every line is optional.\n\n" + tomli_w.dumps(data)


def _build(planned: Planned) -> dict[str, Any]:
    build: dict[str, Any] = {"buildpack": planned.plan.buildpack}
    if planned.manifest.build.packages:  # those that dependencies need are found again
        build["packages"] = list(planned.manifest.build.packages)
    if planned.manifest.build.env:
        build["env"] = dict(planned.manifest.build.env)
    dockerfile = planned.plan.dockerfile
    if dockerfile is not None:
        build |= {"dockerfile": dockerfile.path}
        build |= {"target": dockerfile.target} if dockerfile.target else {}
        build |= {"args": dict(dockerfile.args)} if dockerfile.args else {}
    return build


def _env(entry: EnvEntry) -> Any:
    if entry.kind == "value":
        return entry.value
    flag = {"generated": "generate", "required": "required"}[entry.kind]
    return {flag: True, **({"description": entry.description} if entry.description else {})}


def _health(plan: Plan) -> dict[str, Any]:
    health: dict[str, Any] = {"timeout": plan.health.timeout, "interval": plan.health.interval}
    return {"path": plan.health.path, **health} if plan.health.path else health


def portable(planned: Planned) -> Planned:
    """The same without cache mounts, which only BuildKit knows: a plain `docker build .` has to do, anywhere."""
    steps = tuple(replace(step, caches=()) for step in planned.plan.steps)
    return replace(planned, plan=replace(planned.plan, steps=steps))


def compose_yaml(planned: Planned, *, dockerfile: str = "Dockerfile") -> str:
    """A compose.yaml that builds and runs the plan with the Dockerfile beside it.

    `release` runs before the others start; process types that mini would not start get a profile of their name.
    """
    plan = planned.plan
    processes = plan.processes or (ProcessType(name="web"),)
    release = plan.process("release")
    services = {item.name: _service(planned, item, dockerfile, release) for item in processes}
    data: dict[str, Any] = {"services": services}
    if planned.manifest.volumes:
        data["volumes"] = {volume.name: {} for volume in planned.manifest.volumes}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _service(planned: Planned, process: ProcessType, dockerfile: str, release: ProcessType | None) -> dict[str, Any]:
    plan = planned.plan
    service: dict[str, Any] = {"build": {"context": ".", "dockerfile": dockerfile}, "init": True}
    if process.command:
        service["command"] = [part.replace("$", "$$") for part in process.command]
    environment = {entry.name: _compose_env(entry) for entry in plan.env}
    if process.name == "web":
        environment |= {"PORT": str(PORT), "HOST": "0.0.0.0"}
        service["ports"] = [f"{PORT}:{PORT}"]
    if environment:
        service["environment"] = environment
    if planned.manifest.volumes:
        service["volumes"] = [f"{volume.name}:{volume.target}" for volume in planned.manifest.volumes]
    if process.name == "release":
        return service
    if release is not None:
        service["depends_on"] = {"release": {"condition": "service_completed_successfully"}}
    if planned.formation.get(process.name, 1) == 0:
        service["profiles"] = [process.name]
    return service | {"restart": "unless-stopped"}


def _compose_env(entry: EnvEntry) -> str:
    """Secrets are read from the environment (or `.env`) and missing ones are an error there, too."""
    if entry.kind == "value":
        return entry.value.replace("$", "$$")
    return f"${{{entry.name}:?set {entry.name}}}"
