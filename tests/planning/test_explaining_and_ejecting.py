"""What `mini plan` says, the mini.toml that `mini init` writes, and the compose.yaml to leave with."""

from __future__ import annotations

import yaml

from mini_buildpacks import BuildpacksPlugin
from mini_core.eject import compose_yaml, init_toml, portable
from mini_core.explain import command_line, explain, headline
from mini_core.planned import Planned
from mini_core.planning import make_plan
from mini_core.sources import MemorySource
from mini_core.types import decode, encode

FILES = {
    ".python-version": "3.13\n",
    "requirements.txt": "flask\npsycopg2\n",
    "app.py": "import os\nfrom flask import Flask\napp = Flask(__name__)\napp.secret_key = os.environ['SECRET_KEY']\n",
    "index.html": "",
}


def planned(**more: str) -> Planned:
    return make_plan(MemorySource({**FILES, **more}), tuple(BuildpacksPlugin().mini_detect()))


def test_the_headline_is_what_a_deploy_shows() -> None:
    assert headline(planned().plan) == "python 3.13 (from .python-version) · pip · Flask → gunicorn"


def test_a_plan_is_explained_from_evidence_to_what_else_could_be() -> None:
    text = "\n".join(explain(planned()))
    for line in (
        "Chosen: python, because it has requirements.txt and app.py (a manifest with a lock file or an entry point)",
        "  app.py:3            Flask application app",
        "  install  pip install -r requirements.txt",
        "  build  libpq-dev",
        "  run    libpq5",
        "  SECRET_KEY           generated once  (read in app.py:4)",
        "Also possible\n  static  has index.html (--buildpack static)",
    ):
        assert line in text, line


def test_commands_are_shown_as_they_are_typed() -> None:
    assert command_line(("sh", "-c", "exec web --port $PORT")) == "exec web --port $PORT"
    assert command_line(("python", "-c", "print(1)")) == "python -c 'print(1)'"


def test_everything_that_was_found_survives_as_json() -> None:
    info = planned().info({"Dockerfile": "FROM x"})
    assert decode(type(info), encode(info)) == info
    assert info.offers[1].strength == "loose"


def test_what_init_writes_means_the_plan_that_was_detected() -> None:
    first = planned()
    text = init_toml(first, "blog")
    assert text.startswith("# Made by `mini init`")
    second = planned(**{"mini.toml": text})
    assert second.manifest.app == "blog"
    assert [item.name for item in second.plan.processes] == [item.name for item in first.plan.processes]
    assert second.plan.processes[0].command == first.plan.processes[0].command
    assert {entry.name: entry.kind for entry in second.plan.env} == {entry.name: entry.kind for entry in first.plan.env}
    assert (second.plan.packages, second.plan.runtime_packages) == (first.plan.packages, first.plan.runtime_packages)
    assert second.alternatives == first.alternatives


def test_what_is_taken_along_builds_without_buildkit() -> None:
    first = planned()
    assert any(step.caches for step in first.plan.steps)
    taken = portable(first).plan
    assert [(step.argv, step.caches) for step in taken.steps] == [(step.argv, ()) for step in first.plan.steps]


def test_compose_starts_what_mini_would_start() -> None:
    procfile = "web: gunicorn app:app --bind :$PORT\nworker: python w.py\nclock: python c.py\nrelease: python r.py"
    data = yaml.safe_load(compose_yaml(planned(Procfile=procfile, **{"mini.toml": "[volumes]\ndata = '/data'"})))
    services = data["services"]
    assert list(services) == ["web", "worker", "clock", "release"]
    assert services["web"]["command"] == ["sh", "-c", "gunicorn app:app --bind :$$PORT"]
    assert services["web"]["environment"]["PORT"] == "8080" and services["web"]["ports"] == ["8080:8080"]
    assert services["web"]["environment"]["SECRET_KEY"] == "${SECRET_KEY:?set SECRET_KEY}"
    assert services["web"]["depends_on"] == {"release": {"condition": "service_completed_successfully"}}
    assert services["clock"]["profiles"] == ["clock"] and "profiles" not in services["worker"]
    assert "restart" not in services["release"]
    assert services["web"]["volumes"] == ["data:/data"] and data["volumes"] == {"data": {}}


def test_the_headline_says_when_a_file_of_the_repository_starts_the_app() -> None:
    node = {"package.json": '{"main": "index.js", "dependencies": {"express": "5"}}', "index.js": ""}
    packs = tuple(BuildpacksPlugin().mini_detect())
    assert headline(planned(Procfile="web: flask run").plan).endswith("pip · Flask · started by Procfile")
    assert headline(make_plan(MemorySource({**node, "Procfile": "web: node a.js"}), packs).plan).endswith(
        "npm · started by Procfile"
    )
    assert headline(make_plan(MemorySource(node), packs).plan).endswith("npm · node index.js")
