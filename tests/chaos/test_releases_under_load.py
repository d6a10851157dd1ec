"""No request is dropped by a deploy, a broken deploy, a rollback, a scaling or a restart, under a steady load."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.apps import BROKEN, WORDS, write_app
from tests.chaos.load import steady_load
from tests.chaos.sockets import kept_socket
from tests.e2e.platform import MiniPlatform

pytestmark = [pytest.mark.slow, pytest.mark.load, pytest.mark.docker]

APP = "steady"


@pytest.fixture(scope="module")
def platform(make_platform: Callable[[str], MiniPlatform], tmp_path_factory: pytest.TempPathFactory) -> MiniPlatform:
    platform = make_platform("docker")
    platform.mini("deploy", str(write_app(tmp_path_factory.mktemp("app"), "0")), APP)
    platform.mini("scale", "-a", APP, "web=2")
    return platform


def test_thirty_deploys_ten_of_them_broken_drop_no_request(platform: MiniPlatform, tmp_path: Path):
    """With requests of 3 s and a WebSocket open all the time: the socket gets the app's own goodbye each time."""
    broken = itertools.cycle(BROKEN)
    host = f"{APP}.localhost"
    with (
        steady_load(tmp_path, platform.port, host, slow_path="/slow?seconds=3") as load,
        kept_socket(platform.port, host) as socket,
    ):
        for number in range(1, 31):
            if number % 3:
                deploy(platform, tmp_path / "app", str(number))
            else:
                deploy_broken(platform, tmp_path / "app", str(number), next(broken))
            if number % 6 == 0:
                platform.mini("rollback", "-a", APP)
                platform.mini("scale", "-a", APP, f"web={1 + number // 6 % 3}")
            if number % 10 == 0:
                platform.mini("restart", "-a", APP)
    print(load.summary())
    print(f"WebSocket: {socket.messages} messages, {len(socket.farewells)} farewells")
    assert load.total > 200 * 30, "the load was too short to mean anything"
    assert (load.failed, load.errors) == (0, [])
    assert len(socket.farewells) > 5
    assert (socket.abrupt, socket.refused) == ([], [])


def deploy(platform: MiniPlatform, folder: Path, version: str) -> None:
    platform.mini("deploy", str(write_app(folder, version)), APP)
    assert platform.get(APP)[1].startswith(f"{version} ")


def deploy_broken(platform: MiniPlatform, folder: Path, version: str, kind: str) -> None:
    """It is refused in words that a user understands; what ran before goes on, and the words are kept."""
    before = platform.get(APP)[1]
    done = platform.mini("deploy", str(write_app(folder, version, broken=kind)), APP, check=False)
    assert done.returncode == 1, kind
    missing = [word for word in WORDS[kind] if word not in done.stderr + done.stdout]
    assert not missing, f"{kind}: no word of {missing} in\n{done.stderr}"
    assert platform.get(APP)[1] == before
    last = platform.json("deploys", "list")[0]
    assert (last["state"], last["failure"]["message"].rstrip(".") in done.stderr) == ("failed", True), last


def test_a_release_that_failed_keeps_its_last_words(platform: MiniPlatform):
    """What `mini deploys show` and `mini logs` say of each, long after its container is gone."""
    shown = [
        platform.mini("deploys", "show", str(item["id"]), "--log").stdout
        for item in platform.json("deploys", "list", "-n", "100")
        if item["state"] == "failed"
    ]
    assert len(shown) == 10
    for kind, words in WORDS.items():
        assert any(all(word in text for word in words) for text in shown), kind
    assert "no database" in platform.mini("logs", APP, "-n", "100000").stdout
