"""What a plan's Dockerfile looks like: written for people, and the same without an engine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mini_core.types import Cache, EnvEntry, Plan, ProcessType, StaticSite, Step, Toolchain, replace
from mini_docker.builder import DockerBuilder
from mini_docker.cache import BuildCache
from mini_docker.dockerfile import Base, Style, ignored, render
from mini_docker.engine import Engine
from mini_docker.images import offline
from mini_docker.nginx import config

PIP = Cache(name="pip", variable="PIP_CACHE_DIR")

FLASK = Plan(
    buildpack="python",
    toolchains=(Toolchain(name="python"),),
    runtime="python",
    steps=(
        Step(name="venv", argv=("python", "-m", "venv", ".venv"), files=("requirements.txt",)),
        Step(
            name="install",
            argv=("pip", "install", "-r", "requirements.txt"),
            files=("requirements.txt",),
            caches=(PIP,),
        ),
    ),
    bin=(".venv/bin",),
    env=(EnvEntry(name="PYTHONUNBUFFERED", value="1"), EnvEntry(name="SECRET_KEY", kind="generated")),
    processes=(ProcessType(name="web", command=("sh", "-c", "gunicorn -b ${HOST:-0.0.0.0}:$PORT app:app")),),
)

NODE = Plan(
    buildpack="node",
    toolchains=(Toolchain(name="node", version="^22"),),
    runtime="node",
    steps=(
        Step(
            name="install", argv=("npm", "ci"), files=("package.json", "package-lock.json", "packages/ui/package.json")
        ),
        Step(name="build", argv=("npm", "run", "build"), caches=(Cache(name="next", path=".next/cache"),)),
    ),
    processes=(ProcessType(name="web", command=("npm", "start")),),
)


def text(plan: Plan, style: Style = Style()) -> str:  # noqa: B008
    return render(plan, offline(plan, {}), style).text


def test_dependencies_come_before_the_source_and_are_a_layer_of_their_own() -> None:
    assert text(FLASK) == textwrap.dedent(
        """\
        FROM python:3.13 AS build
        WORKDIR /app
        ENV PYTHONUNBUFFERED=1 \\
            PATH=/app/.venv/bin:$PATH
        COPY requirements.txt ./
        RUN python -m venv .venv
        RUN --mount=type=cache,id=pip,target=/cache/pip \\
            PIP_CACHE_DIR=/cache/pip pip install -r requirements.txt

        FROM python:3.13-slim AS app
        RUN useradd --create-home --uid 10001 app && install -d -o app -g app /app
        WORKDIR /app
        ENV PYTHONUNBUFFERED=1 \\
            PATH=/app/.venv/bin:$PATH
        COPY --from=build --chown=app:app /app ./
        COPY --chown=app:app . ./
        USER app
        ENV HOST=0.0.0.0 PORT=8080
        EXPOSE 8080
        CMD ["sh", "-c", "gunicorn -b ${HOST:-0.0.0.0}:$PORT app:app"]
        """
    )


def test_steps_that_need_the_whole_source_run_after_it_and_the_result_is_copied() -> None:
    assert text(NODE) == textwrap.dedent(
        """\
        FROM node:22 AS build
        WORKDIR /app
        COPY package.json package-lock.json ./
        COPY packages/ui/package.json ./packages/ui/
        RUN npm ci
        COPY . ./
        RUN --mount=type=cache,id=next,target=/app/.next/cache,sharing=locked \\
            npm run build

        FROM node:22-slim AS app
        RUN useradd --create-home --uid 10001 app && install -d -o app -g app /app
        WORKDIR /app
        COPY --from=build --chown=app:app /app ./
        USER app
        ENV HOST=0.0.0.0 PORT=8080
        EXPOSE 8080
        CMD ["npm", "start"]
        """
    )


def test_a_second_toolchain_has_a_stage_whose_result_is_handed_on() -> None:
    plan = replace(
        FLASK,
        toolchains=(*FLASK.toolchains, Toolchain(name="node")),
        steps=(
            *FLASK.steps,
            Step(name="npm", argv=("npm", "ci"), files=("package.json",), toolchain="node"),
            Step(name="assets", argv=("npm", "run", "build"), toolchain="node"),
            Step(name="collect", argv=("python", "manage.py", "collectstatic")),
        ),
    )
    stages = text(plan).split("\n\n")
    assert [stage.splitlines()[0] for stage in stages] == [
        "FROM node:24 AS node",
        "FROM python:3.13 AS python",
        "FROM python:3.13-slim AS app",
    ]
    node, python, app = (stage.splitlines() for stage in stages)
    assert node.index("RUN npm ci") < node.index("COPY . ./") < node.index("RUN npm run build")
    assert python.index("COPY --from=node /app ./") == len(python) - 2
    assert python[-1] == "RUN python manage.py collectstatic"
    assert "COPY --from=python --chown=app:app /app ./" in app
    steps = render(plan, offline(plan, {})).steps
    assert steps[("python", len([x for x in python if x.startswith(("RUN", "COPY", "WORKDIR"))]) + 1)] == "collect"


def test_only_the_artifacts_of_a_compiled_app_reach_its_bare_runtime_image() -> None:
    plan = Plan(
        buildpack="go",
        toolchains=(Toolchain(name="go", version="1.26"),),
        steps=(
            Step(name="download", argv=("go", "mod", "download"), files=("go.mod", "go.sum")),
            Step(name="build", argv=("go", "build", "-o", "bin/", "./cmd/web")),
        ),
        artifacts=("bin", "templates"),
        packages=("libvips-dev",),
        runtime_packages=("libvips42",),
        processes=(ProcessType(name="web", command=("bin/web",)),),
    )
    lines = text(plan).splitlines()
    assert lines[0] == "FROM golang:1.26-bookworm AS build"
    assert "FROM debian:bookworm-slim AS app" in lines
    assert "    && apt-get install -y --no-install-recommends libvips42 ca-certificates tzdata \\" in lines
    assert "COPY --from=build --chown=app:app /app/bin ./bin" in lines
    assert "COPY --from=build --chown=app:app /app/templates ./templates" in lines
    assert not [line for line in lines if line.startswith("COPY --from") and line.endswith("/app ./")]


def test_a_static_site_ends_in_nginx_as_an_ordinary_user() -> None:
    plan = Plan(buildpack="static", toolchains=(Toolchain(name="static"),), static=StaticSite(root="public"))
    lines = text(plan).splitlines()
    assert lines[0] == "FROM debian:bookworm-slim"
    assert "COPY --chown=app:app public /srv/www/" in lines
    assert lines.index("USER app") < lines.index("STOPSIGNAL SIGQUIT")
    spa = replace(NODE, static=StaticSite(root="dist", fallback="index.html"), runtime="")
    assert "COPY --from=build --chown=app:app /app/dist /srv/www/" in text(spa)


def test_what_a_single_page_app_hashes_is_cached_and_everything_else_falls_back() -> None:
    conf = config(StaticSite(root="dist", fallback="index.html", immutable=("assets",)))
    assert "try_files $uri $uri.html $uri/ /index.html;" in conf
    assert "location ^~ /assets/ {" in conf and "immutable" in conf
    assert "try_files $uri $uri.html $uri/ =404;" in config(StaticSite(root="."))


def test_build_time_secrets_are_mounted_for_the_steps_that_want_them() -> None:
    plan = replace(NODE, steps=(replace(NODE.steps[0], secrets=False), NODE.steps[1]))
    made = text(plan, Style(context=True, secrets="env-1", scope="blog-"))
    assert made.count("--mount=type=secret,id=env-1,target=/run/mini/env-1") == 1
    assert "    set -a; . /run/mini/env-1; set +a; npm run build\n" in made
    assert "COPY src/package.json src/package-lock.json ./" in made
    assert "id=blog-next," in made, "a cache inside the app's folder is the app's own"


def test_the_classic_builder_gets_no_mounts_and_labels_on_every_stage() -> None:
    made = text(FLASK, Style(mounts=False, context=True, labels={"mini.platform": "p"}))
    assert "--mount" not in made and "PIP_CACHE_DIR" not in made
    assert made.count("LABEL mini.platform=p") == made.count("FROM ") == 2


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (Step(name="x", argv=("echo", "it's", "$HOME")), """RUN echo 'it'"'"'s' '$HOME'"""),
        (Step(name="x", argv=("sh", "-c", "a && b"), env={"K": "v w"}), "RUN export K='v w'; a && b"),
        (Step(name="x", argv=("sh", "-c", "a\nb")), 'RUN ["sh", "-c", "a\\nb"]'),
        (Step(name="x", argv=("sh", "-c", "cat <<EOF")), 'RUN ["sh", "-c", "cat <<EOF"]'),
        (Step(name="x", argv=("a", "b\nc"), env={"K": "v"}), 'RUN ["env", "K=v", "a", "b\\nc"]'),
    ],
)
def test_a_commands_words_arrive_as_they_are(step: Step, line: str) -> None:
    assert line in text(replace(NODE, steps=(step,))).splitlines()


def test_environment_defaults_are_quoted() -> None:
    plan = replace(FLASK, env=(EnvEntry(name="A", value='say "$HI" \\'), EnvEntry(name="B", value="two\nlines")))
    made = text(plan)
    assert 'ENV A="say \\"\\$HI\\" \\\\" \\' in made.splitlines()
    assert "B=" not in made, "ENV has no line breaks: such a value comes with the container"


def test_names_of_folders_keep_a_line_of_their_own() -> None:
    step = Step(name="install", argv=("pnpm", "i"), files=("package.json", "prisma", ".yarn/releases", ".npmrc"))
    lines = text(replace(NODE, steps=(step,))).splitlines()
    assert "COPY package.json .npmrc ./" in lines
    assert "COPY prisma ./prisma" in lines and "COPY .yarn/releases ./.yarn/releases" in lines


def test_an_image_that_stands_in_for_the_full_one_gets_the_tools_it_lacks() -> None:
    bases = {"python": Base(build="python:3.14-slim", run="python:3.14-slim", packages=("build-essential",)), "": Base(
        build="debian:bookworm-slim", run="debian:bookworm-slim")}  # fmt: skip
    first = render(FLASK, bases).text.split("\n\n")[0]
    assert first.startswith("FROM python:3.14-slim AS build\nRUN apt-get update") and "build-essential" in first


def test_what_a_build_makes_anew_is_not_taken_from_the_source() -> None:
    assert ignored(NODE) == (".git", "**/node_modules")
    assert ".venv" in ignored(FLASK)
    assert ignored(replace(NODE, steps=())) == (".git",), "without an install what is there is needed"


def test_a_plan_without_steps_has_one_stage() -> None:
    assert text(replace(FLASK, steps=())).count("FROM ") == 1


def test_the_repositorys_own_dockerfile_is_not_generated_again() -> None:
    from mini_core.types import Dockerfile

    builder = DockerBuilder(Engine(), "p", {}, cache=BuildCache(Engine(), Path("unused"), {}))
    assert builder.render(Plan(buildpack="dockerfile", dockerfile=Dockerfile())) == {}


def test_rendering_needs_no_docker_library() -> None:
    script = """
import sys
sys.modules["docker"] = None
from mini_core.types import *
from mini_core.hookspecs import Context
from mini_docker import DockerPlugin
from pathlib import Path
context = Context(platform="p", data=Path("/nowhere"), cache=Path("/nowhere"), images={}, settings={})
[builder] = DockerPlugin().mini_build(context=context)
[runtime] = DockerPlugin().mini_run(context=context)
plan = Plan(buildpack="static", toolchains=(Toolchain(name="static"),), static=StaticSite())
print(sorted(builder.render(plan)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['.dockerignore', 'Dockerfile', 'nginx.conf.mini']"
