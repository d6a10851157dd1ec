"""Commands that other packages bring along."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeServer

CODE = """
import click

@click.group()
def hello():
    "Says hello."

@hello.command()
@click.argument("app", required=False)
@click.pass_obj
def world(context, app):
    "Greets the world."
    name = context.app(app)
    found = context.client().get(f"/v1/apps/{name}")
    context.info("on stderr")
    context.data({"state": found["state"]}, f"hello {name}: {found['state']}")

@hello.command()
@click.pass_obj
def ask(context):
    "Asks."
    context.confirm("Really?")
    context.data(None, "done")
"""


def install(site: Path, distribution: str, points: str, code: str = CODE) -> None:
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[console_scripts]\nx = y:z\n\n[mini.commands]\n{points}\n\n[other]\na = b:c\n"
    )
    (site / f"{distribution.replace('-', '_')}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    install(folder, "mini-hello", "hello = mini_hello:hello")
    yield folder
    sys.modules.pop("mini_hello", None)


def test_they_are_in_the_overview_with_where_they_come_from_without_being_imported(mini: Mini, site: Path):
    assert "hello" in (line.split()[0] for line in mini("--help").out.splitlines() if line.strip())
    assert "From mini_hello." in mini("--help").out
    assert "mini_hello" not in sys.modules


def test_they_get_client_app_output_and_questions(mini: Mini, site: Path, server: FakeServer):
    mini("apps", "create", "blog")
    assert mini("hello", "world", "blog").out == "hello blog: new\n"
    assert mini("hello", "world", "-a", "blog").err == "on stderr\n"
    assert json.loads(mini("hello", "world", "blog", "--json").out) == {"state": "new"}
    assert "No app named" in mini("hello", "world", code=2).err
    assert "Really? Nobody to ask here" in mini("hello", "ask", code=2).err
    assert mini("hello", "ask", "--yes").out == "done\n"
    assert "Greets the world." in mini("hello", "--help").out


def test_a_broken_one_is_named_and_all_others_work(mini: Mini, site: Path):
    install(site, "mini-sick", "sick = mini_sick:nothing", "import no_such_module_at_all\n")
    result = mini("sick", code=1)
    assert result.err.splitlines() == [
        "Error: The command sick cannot be loaded: ModuleNotFoundError: No module named 'no_such_module_at_all'",
        "See: mini plugins list",
    ]
    assert mini("version").out


def test_two_of_one_name_and_one_of_minis_own_name_are_listed_as_broken(mini: Mini, site: Path):
    install(site, "mini-other", "hello = mini_other:hello\ndeploy = mini_other:hello")
    assert "cannot be used: the command hello comes from" in mini("hello", code=1).err
    assert "From mini_hello" not in mini("--help").out
    assert "Deploys the folder PATH" in mini("deploy", "--help").out
    reasons = {info["reason"] for info in json.loads(mini("plugins", "list", "--json").out)}
    assert "the command deploy is mini's own" in reasons
