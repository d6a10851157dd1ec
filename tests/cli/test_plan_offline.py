"""`mini plan`, `init` and `eject` work without server and network."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeServer

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_HOST", "http://127.0.0.1:1")


@pytest.fixture
def express(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "package.json").write_text('{"dependencies": {"express": "4"}, "scripts": {"start": "node server.js"}}')
    (tmp_path / "server.js").write_text("require('express')().listen(process.env.PORT)\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plan_says_who_matched_and_why(mini: Mini, express: Path):
    out = mini("plan").out
    assert "Chosen: node, because it" in out and "package.json" in out and "Processes" in out


def test_json_has_plan_offers_and_files(mini: Mini, express: Path):
    info = json.loads(mini("plan", ".", "--json").out)
    assert info["plan"]["buildpack"] == "node"
    assert info["offers"][0]["buildpack"] == "node"


def test_the_dockerfile_is_printed_whole(mini: Mini, express: Path):
    out = mini("plan", "--dockerfile").out
    assert out.splitlines()[0].startswith(("FROM ", "#")) and "npm" in out


def test_a_repositorys_own_dockerfile_is_printed_as_it_is(mini: Mini):
    own = (EXAMPLES / "dockerfile/Dockerfile").read_text()
    assert mini("plan", str(EXAMPLES / "dockerfile"), "--dockerfile").out == own


def test_only_what_a_deploy_would_send_is_looked_at(mini: Mini, tmp_path: Path):
    (tmp_path / ".gitignore").write_text("package.json\n")
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "index.html").write_text("<p>hello")
    assert "Chosen: static" in mini("plan", str(tmp_path)).out


def test_nothing_recognised_says_what_was_looked_for(mini: Mini, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    result = mini("plan", str(tmp_path), code=1)
    assert "package.json" in result.err and len(result.err.splitlines()) == 2


def test_a_missing_folder_and_a_broken_mini_toml(mini: Mini, tmp_path: Path):
    assert "is not a folder" in mini("plan", str(tmp_path / "nope"), code=1).err
    (tmp_path / "index.html").write_text("x")
    (tmp_path / "mini.toml").write_text("app = [")
    assert "mini.toml" in mini("plan", str(tmp_path), code=1).err


def test_init_writes_a_mini_toml_that_gives_the_same_plan(mini: Mini, express: Path):
    before = json.loads(mini("plan", "--json").out)["plan"]["processes"][0]["command"]
    assert mini("init").err == "Wrote mini.toml\n"
    assert tomllib.loads((express / "mini.toml").read_text())["build"]["buildpack"] == "node"
    after = json.loads(mini("plan", "--json").out)["plan"]["processes"][0]["command"]
    assert after[-1].endswith(before[-1])
    assert "mini.toml exists" in mini("init", code=1).err
    mini("init", "--force")


def test_eject_writes_files_to_go_on_with(mini: Mini, express: Path):
    mini("eject")
    assert (express / "Dockerfile").read_text() and "services:" in (express / "compose.yaml").read_text()
    assert mini("eject", code=1).err == "Error: compose.yaml exists\nReplace with --force.\n"


def test_remote_asks_the_server(mini: Mini, server: FakeServer, express: Path):
    assert mini("plan", "--remote").out == "PHP\n"
    assert mini("plan", "--remote", "--dockerfile").out == "FROM php\n"
    assert "no buildpack named x" in mini("plan", "--remote", "--buildpack", "x", code=1).err
