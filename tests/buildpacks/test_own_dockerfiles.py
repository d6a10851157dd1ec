"""The repository's own Dockerfile: what the platform reads from it."""

from __future__ import annotations

import pytest

from mini_buildpacks.dockerfile import DockerfileBuildpack
from mini_buildpacks.python import PythonBuildpack
from mini_core.errors import ConfigError, PlanError
from mini_core.planning import make_plan
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings, Offer, Plan, Strength


def offer_of(text: str, name: str = "Dockerfile", **settings: object) -> Offer:
    source = MemorySource({name: text})
    offer = DockerfileBuildpack().detect(source, BuildSettings(**settings))  # type: ignore[arg-type]
    assert offer is not None
    return offer


def plan_of(text: str, **settings: object) -> Plan:
    return offer_of(text, **settings).plan  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("FROM x\nEXPOSE 3000", 3000),
        ("from x\nexpose 3000/tcp", 3000),
        ("FROM x\nEXPOSE 53/udp 8080/tcp", 8080),
        ("FROM x\nEXPOSE 8000-8010", 8000),
        ("FROM x\nARG PORT=5000\nEXPOSE $PORT", 5000),
        ("FROM x\nENV PORT 4000\nEXPOSE ${PORT}", 4000),
        ("FROM x\nENV A=1 PORT=4000\nEXPOSE ${PORT:-9}", 4000),
        ("FROM x\nEXPOSE ${PORT:-9000}", 9000),
        ("FROM x\nEXPOSE $UNKNOWN", None),
        ("FROM x\nRUN echo \\\n  # a comment inside\n  hi\nEXPOSE 80", 80),
        ("FROM x\nRUN <<EOF\nEXPOSE 1\nEOF\nEXPOSE 81", 81),
        ("# escape=`\nFROM x\nRUN a `\n  b\nEXPOSE 82", 82),
        ("FROM a AS build\nEXPOSE 1\nFROM b\nEXPOSE 2", 2),
        ("FROM a AS base\nEXPOSE 1\nFROM base", 1),
        ("FROM x", None),
    ],
)
def test_the_exposed_port_is_read(text: str, port: int | None) -> None:
    assert plan_of(text).port == port


def test_build_arguments_override_defaults() -> None:
    plan = plan_of("ARG VERSION=1\nFROM x:$VERSION\nARG PORT=1\nEXPOSE $PORT", args={"PORT": "7000", "VERSION": "2"})
    assert plan.port == 7000
    assert plan.evidence[0].detail == "FROM x:2"
    assert plan.dockerfile is not None and dict(plan.dockerfile.args) == {"PORT": "7000", "VERSION": "2"}


def test_a_target_stage_is_chosen_by_name_or_number() -> None:
    text = "FROM a AS Dev\nEXPOSE 1\nFROM b AS prod\nEXPOSE 2"
    assert plan_of(text, target="dev").port == 1
    assert plan_of(text, target="0").port == 1
    assert plan_of(text).port == 2
    with pytest.raises(ConfigError, match=r"build\.target: Dockerfile has no stage test") as caught:
        plan_of(text, target="test")
    assert caught.value.hint == "Its stages: Dev, prod."


@pytest.mark.parametrize(
    ("line", "path", "timeout"),
    [
        ("HEALTHCHECK CMD curl -f http://localhost:8080/healthz || exit 1", "/healthz", 60.0),
        ('HEALTHCHECK --interval=5s CMD ["curl", "-f", "http://127.0.0.1/"]', "/", 60.0),
        ("HEALTHCHECK --start-period=2m CMD wget -q http://localhost:3000/up", "/up", 180.0),
        ("HEALTHCHECK CMD pg_isready", "", 60.0),
        ("HEALTHCHECK CMD curl http://localhost/x\nHEALTHCHECK NONE", "", 60.0),
    ],
)
def test_the_path_of_a_health_check_is_read(line: str, path: str, timeout: float) -> None:
    health = plan_of(f"FROM x\n{line}").health
    assert (health.path, health.timeout) == (path, timeout)


def test_several_ports_are_pointed_out() -> None:
    assert plan_of("FROM x\nEXPOSE 80 443").warnings == (
        "Dockerfile exposes 80, 443: 80 is taken for web traffic unless PORT is heeded",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Dockerfile: no FROM in it"),
        ("# nothing\n", "Dockerfile: no FROM"),
        ("RUN x", "Dockerfile:1: expected FROM, got RUN"),
        ("ARG V\nFROM python:${V}-slim", "Dockerfile:2: FROM python:${V}-slim: V has no value"),
    ],
)
def test_a_file_that_cannot_be_built_is_an_error(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(text)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("name", ["Dockerfile", "Containerfile", "dockerfile"])
def test_its_names(name: str) -> None:
    offer = offer_of("FROM x", name)
    assert offer.strength is Strength.DOCKERFILE
    assert offer.plan.dockerfile is not None and offer.plan.dockerfile.path == name
    assert [(item.name, item.command) for item in offer.plan.processes] == [("web", ())]


def test_it_beats_every_language_unless_another_is_asked_for() -> None:
    source = MemorySource({"Dockerfile": "FROM x", "requirements.txt": "", "main.py": "", "uv.lock": ""})
    buildpacks = [PythonBuildpack(), DockerfileBuildpack()]
    assert make_plan(source, buildpacks).plan.buildpack == "dockerfile"
    assert make_plan(source, buildpacks, buildpack="python").plan.buildpack == "python"


def test_mini_toml_names_another_file_and_a_procfile_its_processes() -> None:
    files = {
        "deploy/web.Dockerfile": "FROM x AS base\nEXPOSE 9\nFROM base AS test",
        "mini.toml": "[build]\ndockerfile = 'deploy/web.Dockerfile'\ntarget = 'base'\nargs = { A = '1' }",
        "Procfile": "web: ./serve\nworker: ./work",
        "index.html": "",
    }
    plan = make_plan(MemorySource(files), [DockerfileBuildpack()]).plan
    assert plan.dockerfile is not None
    assert (plan.dockerfile.path, plan.dockerfile.target) == ("deploy/web.Dockerfile", "base")
    assert [(item.name, item.command[-1]) for item in plan.processes] == [("web", "./serve"), ("worker", "./work")]
    with pytest.raises(ConfigError, match=r"build\.dockerfile: there is no file gone"):
        make_plan(MemorySource({"a": "", "mini.toml": "[build]\ndockerfile = 'gone'"}), [DockerfileBuildpack()])
