"""A third party's package, installed with pip, works like a built-in: buildpack, amendment, log sink, command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core.testing import until, write_files
from tests.e2e.platform import MiniPlatform

PLUGIN = Path(__file__).parent.parent.parent / "examples" / "plugins" / "mini-php"
APP = {"public/index.php": "<?php echo 'Hello from PHP, workers: ' . getenv('PHP_CLI_SERVER_WORKERS');\n"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(PLUGIN)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[MiniPlatform]:
    platform = MiniPlatform(tmp_path_factory.mktemp("home"), "docker")
    platform.env["PYTHONPATH"] = str(site)
    settings = platform.home / "config" / "server.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[plugins.php]\nlog = "{platform.home / "php.log"}"\n')
    yield platform
    platform.mini("down", "--purge", "--yes", check=False)


def test_it_is_listed_with_its_hooks_and_where_it_comes_from(platform: MiniPlatform):
    (info,) = (item for item in platform.json("plugins", "list") if item["name"] == "php")
    assert info["origin"] == "mini-php" and info["state"] == "ok"
    assert set(info["hooks"]) == {"mini_detect", "mini_amend_plan", "mini_log"}
    assert "php" in {item["name"] for item in platform.json("buildpacks", "list")}


def test_it_plans_a_repository_of_its_language(platform: MiniPlatform, tmp_path: Path):
    answer = platform.json("plan", str(write_files(tmp_path, APP)))
    assert answer["plan"]["buildpack"] == "php"
    assert answer["plan"]["env"] == [
        {"name": "PHP_CLI_SERVER_WORKERS", "kind": "value", "value": "4", "description": ""}
    ]


@pytest.mark.docker
@pytest.mark.slow
def test_its_app_is_deployed_its_sink_fed_and_its_command_run(platform: MiniPlatform, tmp_path: Path):
    platform.up()
    platform.mini("deploy", str(write_files(tmp_path, APP)), "site")
    assert platform.get("site") == (200, "Hello from PHP, workers: 4")

    def sunk() -> bool:
        file = platform.home / "php.log"
        return file.exists() and any(json.loads(line)["app"] == "site" for line in file.read_text().splitlines())

    until(sunk, what="a line in the plugin's sink")
    assert "site v1: " in platform.mini("php", "version", "site").stdout
    platform.mini("apps", "destroy", "site", "--yes")
