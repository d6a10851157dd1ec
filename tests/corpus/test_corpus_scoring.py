"""The scoring tool, on tiny apps written here: what counts as a pass, as a failure, and as neither."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_core.errors import BuildError, MiniError, PlanError, Unavailable
from mini_core.testing import write_files
from mini_core.types import Plan, ProcessType, StaticSite, Step, Toolchain
from tests.corpus import scoring
from tests.corpus.__main__ import main
from tests.corpus.detecting import differences
from tests.corpus.facts import Fact, read_facts
from tests.corpus.platform import Platform
from tests.corpus.report import failures, summary
from tests.corpus.scoring import Scorer
from tests.corpus.verdicts import Result, Store, Verdict

EXPRESS = {"package.json": '{"scripts": {"start": "node server.js"}, "engines": {"node": "22.x"}}', "server.js": ""}
SERVER = """\
import http.server, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/" else 404)
        self.end_headers()
        self.wfile.write(b"hello from " + os.environ["PORT"].encode())

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def fact(identifier: str = "some/app", language: str = "node", tier: str = "core", **data: Any) -> Fact:
    return Fact(id=identifier, language=language, tier=tier, data=data)


def lay_out(apps: Path, item: Fact, files: dict[str, str]) -> Fact:
    write_files(item.folder(apps), files)
    return item


# --- detect


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "buildpack": "node",
        "package_manager": "npm",
        "toolchains": (Toolchain(name="node", version="22.x", source="package.json engines.node"),),
        "processes": (ProcessType(name="web", command=("npm", "run", "start"), source="package.json scripts.start"),),
    }
    return Plan(**{**given, **changes})


@pytest.mark.parametrize(
    ("facts", "changes", "difference"),
    [
        ({"package_manager": "npm", "pins": {"engines.node": "22.x"}}, {}, ""),
        ({"detect_oracle": {"derived_start": "script start: node server.js"}}, {}, ""),
        ({"detect_oracle": {"derived_start": "static"}}, {"static": StaticSite(root="dist"), "processes": ()}, ""),
        ({"detect_oracle": {"derived_start": "static"}}, {}, "expected a static site"),
        ({"package_manager": "pnpm@9.9.0"}, {"package_manager": "pnpm@9.9.0"}, ""),
        ({"package_manager": "pnpm@9.9.0"}, {"package_manager": "pnpm@8.0.0"}, "expected pnpm@9.9.0"),
        ({"package_manager": "yarn"}, {}, "package manager npm, expected yarn"),
        ({"pins": {".nvmrc": "20"}}, {}, "version 22.x (package.json engines.node), expected 20 (.nvmrc)"),
        ({"pins": {"engines.node": ">=20", "mise.toml:node": "20"}},
         {"toolchains": (Toolchain(name="node", version="20", source="mise.toml"),)}, ""),
        ({"detect_oracle": {"derived_start": "node app.js"}},
         {"processes": (ProcessType(name="web", command=("node", "app.js")),)}, ""),
        ({"detect_oracle": {"derived_start": "node app.js"}}, {"processes": ()}, "starts nothing"),
        ({"detect_oracle": {"main_packages": ["cmd/web"]}},
         {"steps": (Step(name="build", argv=("go", "build", "./cmd/web")),)}, ""),
        ({"detect_oracle": {"main_packages": ["cmd/web"]}},
         {"steps": (Step(name="build", argv=("go", "build", "./cmd/api")),)}, "builds none of cmd/web"),
    ],
)  # fmt: skip
def test_a_plan_is_compared_with_what_the_facts_know(
    facts: dict[str, Any], changes: dict[str, Any], difference: str
) -> None:
    found = "; ".join(differences(fact(**facts), plan(**changes)))
    assert (difference in found) if difference else not found


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Scorer]:
    platform = Platform(tmp_path / "platform", "process")
    yield Scorer(platform, tmp_path / "apps")
    platform.close()


def test_detect_passes_and_fails_with_the_reason(scorer: Scorer) -> None:
    good = lay_out(scorer.apps, fact("good", package_manager="npm", pins={"engines.node": "22.x"}), EXPRESS)
    assert scorer.score(good).verdicts["detect"] == Verdict("pass")
    bad = lay_out(scorer.apps, fact("bad", package_manager="pnpm"), EXPRESS)
    assert scorer.score(bad).verdicts["detect"].reason == "package manager npm, expected pnpm"


def test_an_app_that_must_fail_passes_when_planning_names_the_cause(scorer: Scorer) -> None:
    broken = lay_out(scorer.apps, fact("broken", tier="negative"), {"package.json": '{"name": '})
    verdict = scorer.score(broken).verdicts["detect"]
    assert verdict.state == "pass"
    assert "package.json: not valid JSON" in verdict.reason


def test_what_cannot_be_judged_here_is_no_pass(scorer: Scorer) -> None:
    assert scorer.score(fact("ruby", language="ruby")).verdicts["detect"].state == "apart"
    assert scorer.score(fact("nowhere")).verdicts["detect"].reason == "not laid out: nowhere"
    builds = Scorer(scorer.platform, scorer.apps, level="run")
    far = lay_out(scorer.apps, fact("far", needs_unreachable=["browser download"]), EXPRESS)
    assert builds.score(far).verdicts["build"] == Verdict("apart", "needs browser download")
    near = lay_out(scorer.apps, fact("near", services=["postgres"]), EXPRESS)
    assert builds.score(near).verdicts["build"] == Verdict("apart", "needs postgres")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (BuildError("install failed with exit code 1", step="install", tail=["npm error code E404"]), "fail"),
        (BuildError("no image for node 4", code="no-base-image"), "apart"),
        (BuildError("install failed", tail=["getaddrinfo EAI_AGAIN cdn.example.com"]), "apart"),
    ],
)
def test_a_failed_build_is_a_failure_unless_something_was_out_of_reach(error: MiniError, state: str) -> None:
    assert scoring._failed(error).state == state


def test_a_failure_that_is_a_traceback_names_no_cause() -> None:
    assert scoring._named(PlanError("requirements.txt: line 3 is not understood")).state == "pass"
    assert scoring._named(PlanError("Traceback (most recent call last): …")).state == "fail"


def test_a_crash_of_mini_is_a_failure_and_the_others_go_on(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    item = lay_out(scorer.apps, fact("crash"), EXPRESS)

    def crash(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Platform, "plan", crash)
    assert scorer.score(item).verdicts["detect"].reason == "crash: ZeroDivisionError: a bug"


def test_an_engine_that_goes_away_says_nothing_of_the_app(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    item = lay_out(scorer.apps, fact("lost"), EXPRESS)

    def gone(*_: object) -> None:
        raise Unavailable("Docker does not answer")

    monkeypatch.setattr(Scorer, "_score", gone)
    assert scorer.score(item).verdicts["detect"] == Verdict("apart", "Docker does not answer")


def test_steps_that_ran_again_are_seen() -> None:
    steps = (Step(name="install", argv=("a",), files=("lock",)), Step(name="build", argv=("b",)))
    lines = [("info", "install (cached)"), ("info", "build"), ("output", "install")]
    assert scoring._ran(plan(steps=steps), lines) == ["build"]


# --- build and run, with local processes


@pytest.fixture
def runs(scorer: Scorer) -> Scorer:
    return Scorer(scorer.platform, scorer.apps, level="run")


PINNED = {".python-version": f"{sys.version_info.major}.{sys.version_info.minor}\n"}


def test_a_web_app_has_to_answer_at_two_ports_and_to_stop(runs: Scorer) -> None:
    answer = {"type": "http", "path": "/", "status": 200, "body_contains": ["hello from "]}
    item = lay_out(runs.apps, fact("web", "python", expected=[answer]), {"main.py": SERVER, **PINNED})
    result = runs.score(item)
    assert {level: (verdict.state, verdict.reason) for level, verdict in result.verdicts.items()} == {
        "detect": ("pass", ""), "build": ("pass", ""), "run": ("pass", ""),
    }  # fmt: skip


def test_another_answer_is_a_failure_that_shows_both(runs: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.corpus.running.START_SECONDS", 3.0)
    answer = {"type": "http", "path": "/missing", "status": 200}
    item = lay_out(runs.apps, fact("web", "python", expected=[answer]), {"main.py": SERVER, **PINNED})
    assert runs.score(item).verdicts["run"].reason == "/missing answers 404, expected 200"


def test_a_program_has_to_print_what_is_expected(runs: Scorer) -> None:
    files = {"main.py": "print('version 3.12')", **PINNED}
    relaxed = {"type": "output", "contains": ["version 3.12.1"], "relaxed_contains": ["version 3.12"]}
    good = lay_out(runs.apps, fact("good", "python", expected=[relaxed]), files)
    assert runs.score(good).verdicts["run"].state == "pass"
    bad = lay_out(runs.apps, fact("bad", "python", expected=[{"type": "output", "contains": ["bye"]}]), files)
    assert runs.score(bad).verdicts["run"].reason == "exited without printing 'bye'"


def test_what_must_fail_and_does_not_is_a_failure(runs: Scorer) -> None:
    fails = lay_out(runs.apps, fact("fails", "python", "negative"), {"main.py": "raise SystemExit(3)", **PINNED})
    assert runs.score(fails).verdicts["negative"].reason == "does not start: exited with 3"
    works = lay_out(runs.apps, fact("works", "python", "negative"), {"main.py": SERVER, **PINNED})
    assert runs.score(works).verdicts["negative"].reason == "does not fail"


# --- keeping, choosing, telling


def test_results_are_kept_and_what_was_judged_is_not_judged_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apps, facts, kept = tmp_path / "apps", tmp_path / "facts.json", tmp_path / "results.json"
    facts.write_text(json.dumps([{"id": "a/b", "language": "node", "tier": "core", "package_manager": "pnpm"}]))
    write_files(apps / "a__b", EXPRESS)
    command = ["--apps", str(apps), "--facts", str(facts), "--results", str(kept), "--runtime", "process"]
    assert main(command) == 1
    first = capsys.readouterr()
    assert "[1/1] a/b" in first.err
    assert "detect    a/b [core]: package manager npm, expected pnpm" in first.out
    main(command)
    assert capsys.readouterr().err == ""
    main([*command, "--retry"])
    assert "[1/1] a/b" in capsys.readouterr().err
    assert Store(kept).results["a/b"].verdicts["detect"].state == "fail"


def test_facts_are_chosen_by_prefix_glob_and_field(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    rows = [("x/go-1", "go", "core"), ("x/node-1", "node", "core"), ("y/node-2", "node", "negative")]
    file.write_text(json.dumps([{"id": name, "language": language, "tier": tier} for name, language, tier in rows]))

    def chosen(*patterns: str) -> list[str]:
        return [item.id for item in read_facts(file, patterns)]

    assert chosen() == ["x/go-1", "x/node-1", "y/node-2"]
    assert chosen("x/") == ["x/go-1", "x/node-1"]
    assert chosen("*node*", "x/go") == ["x/go-1", "x/node-1", "y/node-2"]
    assert chosen("language=node&tier=core,services") == ["x/node-1"]


def test_the_summary_counts_only_what_was_judged_and_names_the_rest() -> None:
    results = [
        Result("a", "go", "core", ("vendored",), "run", {}, {"detect": Verdict("pass"), "build": Verdict("pass")}),
        Result(
            "b", "go", "core", ("vendored",), "run", {}, {"detect": Verdict("pass"), "build": Verdict("fail", "no")}
        ),
        Result("c", "go", "core", (), "run", {}, {"detect": Verdict("pass"), "build": Verdict("apart", "needs a db")}),
    ]
    text = summary(results, capabilities=True)
    assert "3/3 100 %" in text
    assert "1/2 50 % +1" in text
    assert "1  build: needs a db" in text
    assert "vendored                       1 of 2" in text
    assert failures(results) == "build     b [core]: no"
