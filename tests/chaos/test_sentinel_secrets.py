"""Secrets with unique values, in an app that prints all of them wherever it can: they are found nowhere afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from mini_core.testing import until
from tests.chaos.kills import admin
from tests.chaos.secrets import BUILD, RUNTIME, answers, files_below, found_in, image_bytes, write_leaky
from tests.e2e.platform import MiniPlatform

pytestmark = [pytest.mark.slow, pytest.mark.docker]

APP = "leaky"


@pytest.fixture(scope="module")
def platform(make_platform: Callable[[str], MiniPlatform]) -> MiniPlatform:
    return make_platform("docker")


@pytest.fixture(scope="module")
def seen(platform: MiniPlatform, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What the user of an app that prints its secrets got to see of each command."""
    folder = tmp_path_factory.mktemp("leaky")
    pem = folder.parent / "pem"
    pem.write_text(RUNTIME["PEM_SECRET"])
    said: list[tuple[str, str]] = []

    def mini(*command: str, expect: int = 0, stdin: str = "") -> None:
        done = platform.mini(*command, check=False, stdin=stdin)
        assert done.returncode == expect, (command, done.stdout, done.stderr)
        said.append((f"mini {' '.join(command[:2])}", done.stdout + done.stderr))

    mini("apps", "create", APP)
    mini("env", "set", "-a", APP, *(f"{name}={text}" for name, text in RUNTIME.items()))
    mini("env", "set", "-a", APP, "--build", *(f"{name}={text}" for name, text in BUILD.items()))
    mini("deploy", str(write_leaky(folder)), APP)
    mini("deploy", str(write_leaky(folder, build=3)), APP, expect=1)
    mini("deploy", str(write_leaky(folder, release=4)), APP, expect=1)
    mini("env", "set", "-a", APP, "ONLY_PRINT=5", expect=1)
    mini("env", "set", "-a", APP, "PLAIN_SECRET=another one, that may be seen")
    mini("rollback", "-a", APP)
    mini("restart", "-a", APP)
    for shown in ("env", "releases", "ps", "deploys", "events", "status", "doctor"):
        mini(shown, *(("-a", APP) if shown not in ("status", "doctor") else ()))
    mini("env", "list", "-a", APP, "--build")
    mini("logs", APP, "-n", "100000")
    return said


def test_no_command_shows_them(seen: list[tuple[str, str]]):
    assert [hit for command, text in seen for hit in found_in(command, text)] == []
    printed = [text for command, text in seen if "[REDACTED]" in text]
    assert len(printed) > 4, "the app has printed them, and each time they were masked"


def test_stored_logs_hold_what_was_printed_without_them(platform: MiniPlatform, seen: list[tuple[str, str]]):
    text = seen[-1][1]
    for name in RUNTIME:
        assert re.search(rf"{name} is .*\[REDACTED\]", text), name
    assert text.count("PLAIN_SECRET is [REDACTED]") >= 6, "release commands, starts and ends, old and new value"


def test_the_api_gives_none_without_reveal(platform: MiniPlatform, seen: list[tuple[str, str]]):
    asked = dict(answers(admin(platform), APP))
    assert len(asked) > 30
    assert [hit for address, text in asked.items() for hit in found_in(address, text)] == []


def test_no_image_has_one_in_its_history_or_layers(platform: MiniPlatform, seen: list[tuple[str, str]]):
    looked = 0
    for what, content in image_bytes((platform.home / "platform-id").read_text()):
        looked += 1
        assert found_in(what, content) == []
    assert looked > 10


def test_no_file_of_the_platform_has_one_in_clear(platform: MiniPlatform, seen: list[tuple[str, str]]):
    """Database, write-ahead log, platform's and router's logs, stored logs, uploads and work folders."""
    until(lambda: not list((platform.home / "data" / "work").glob("*")), what="the end of the last build's folder")
    looked = dict(files_below(platform.home))
    assert any(name.endswith("mini.db") for name in looked)
    assert any(name.endswith("platform.log") for name in looked)
    assert [hit for name, content in looked.items() for hit in found_in(name, content)] == []


def test_they_are_given_to_who_asks_for_them(platform: MiniPlatform, seen: list[tuple[str, str]]):
    """What is masked is kept whole, with quotes and line ends."""
    assert platform.json("env", "list", "-a", APP, "--reveal") | RUNTIME == platform.json(
        "env", "list", "-a", APP, "--reveal"
    )
    assert platform.json("env", "list", "-a", APP, "--build", "--reveal") == BUILD
