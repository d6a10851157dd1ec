"""What the README says is so."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mini_core.hooks import Hooks
from mini_core.hookspecs import KINDS
from mini_core.manifest import read_manifest
from mini_core.plugins import SPECS, Plugins
from mini_core.settings import load_settings
from mini_core.sources import MemorySource
from mini_core.testing import BuildpackContract, until
from tests.e2e.platform import MiniPlatform

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def table_rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| (\w[\w ]*) \| (`mini_.*?) \|", README, re.MULTILINE)
    return {kind: re.findall(r"`(mini_\w+)`", hooks) for kind, hooks in rows}


def test_it_names_every_hook_under_its_kind():
    expected: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name, spec in SPECS.items():
        expected[(spec.__doc__ or "").partition(":")[0]].append(name)
    assert {kind: sorted(hooks) for kind, hooks in table_rows().items()} == {
        kind: sorted(hooks) for kind, hooks in expected.items()
    }


def test_its_mini_toml_is_valid_and_uses_every_section():
    text = blocks("toml")[0]
    manifest = read_manifest(MemorySource({"mini.toml": text.encode(), "services/blog/app.py": b""}))
    assert manifest.app == "blog"
    assert set(tomllib.loads(text)) == {
        "app", "path", "idle", "build", "processes", "env", "health", "limits", "volumes", "deploy", "cron"
    }  # fmt: skip


def test_its_server_toml_is_valid(tmp_path: Path):
    file = tmp_path / "server.toml"
    file.write_text(blocks("toml")[1])
    settings = load_settings(file)
    assert settings.domain == "example.com"
    assert (settings.disk_reserve, settings.limits.memory) == (1024**3, 512 * 1024**2)
    assert settings.plugins["drains"] == {"syslog": "udp://logs.example.com:514"}


def lua() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    return names


class TestItsBuildpack(BuildpackContract):
    @pytest.fixture
    def buildpack(self):
        return lua()["LuaBuildpack"]()

    @pytest.fixture
    def recognised(self):
        return {"main.lua": "print('hi')"}


def test_its_plugin_provides_the_buildpack():
    hooks = Hooks(Plugins.of({"lua": lua()["LuaPlugin"]()}))
    assert [item.name for item in hooks.buildpacks()] == ["lua"]


def steps() -> list[tuple[str, str]]:
    """(command, what it prints) of the tour."""
    (tour,) = blocks("console")
    parts = re.split(r"^\$ mini (.*)\n", tour, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def pattern(text: str) -> re.Pattern[str]:
    """Figures may differ, "..." stands for anything, and words of the runtimes for each other."""
    kept = {"... Done": "<done>", "code...": "<code>", '"...': "<quote>"}
    for words, mark in kept.items():
        text = text.replace(words, mark)
    quoted = re.escape(text.strip()).replace(r"\.\.\.", ".*")
    quoted = re.sub(r"\b[0-9a-f]{8}\b", "<commit>", quoted)
    quoted = re.sub(r"\d+(\\\.\d+)*", r"[\\d.]+", quoted).replace("<commit>", "[0-9a-f]{8}")
    quoted = re.sub(r"(\\ )+", r" +", quoted)
    for words, mark in kept.items():
        quoted = quoted.replace(mark, re.escape(words))
    return re.compile(quoted.replace("container", "(container|process)"), re.DOTALL)


def run(platform: MiniPlatform, command: str) -> str:
    done = platform.mini(*shlex.split(command), cwd=ROOT)
    return (done.stderr + done.stdout).strip()


@pytest.mark.slow
def test_its_tour_prints_what_it_says(tmp_path_factory: pytest.TempPathFactory):
    platform = MiniPlatform(tmp_path_factory.mktemp("home"), "process")
    platform.up()
    try:
        for command, expected in steps():
            if command.startswith(("logs", "ps")):  # lines and figures that come a moment after what they tell of
                until(lambda c=command, e=expected: pattern(e).search(run(platform, c)), what=f"{command}: {expected}")
                continue
            printed = run(platform, command)
            assert pattern(expected).search(printed), f"{command}\nexpected:\n{expected}\nprinted:\n{printed}"
    finally:
        platform.mini("down", "--purge", "--yes", check=False)


def test_its_two_commands_are_where_people_and_machines_look_for_them():
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    assert [command.rsplit("/", 1)[1] for command in commands] == ["flask", "pytest"]
    assert commands[1] in README.partition("## Tests")[2]
