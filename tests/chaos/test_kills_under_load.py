"""`kill -9` of the controller, of a router worker and of the router's master, under a steady load."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_core.paths import find_paths
from mini_core.server import adminclient
from mini_core.testing import until
from tests.chaos.apps import write_app
from tests.chaos.kills import FINISHED, RECEIVED, Moment, admin, begin, end, kill_at, settled
from tests.chaos.load import steady_load
from tests.chaos.sockets import kept_socket
from tests.e2e.platform import MiniPlatform, processes_of

pytestmark = [pytest.mark.slow, pytest.mark.load, pytest.mark.docker]

APP, HOST = "lives", "lives.localhost"

DEPLOY_MOMENTS = (
    RECEIVED,
    begin("planned"),
    end("planned"),
    begin("built"),
    begin("built", later=0.4),
    end("built"),
    begin("released"),
    end("released"),
    Moment("info", "Running the release command"),
    Moment("info", "Running the release command", later=0.4),
    begin("starting"),
    end("starting"),
    begin("healthy", later=0.1),
    end("healthy"),
    begin("routed"),
    end("routed"),
    Moment("info", "Running the dokku-postdeploy command", later=0.3),
    begin("drained", later=0.2),
)
OTHER_MOMENTS = (
    (begin("starting"), ("rollback", "-a", APP)),
    (begin("healthy"), ("scale", "-a", APP, "web=2")),
    (end("routed"), ("restart", "-a", APP)),
)


@pytest.fixture(scope="module")
def platform(make_platform: Callable[[str], MiniPlatform], tmp_path_factory: pytest.TempPathFactory) -> MiniPlatform:
    platform = make_platform("docker")
    platform.mini(
        "deploy", str(write_app(tmp_path_factory.mktemp("app"), "0", release="sleep 1", after="sleep 1")), APP
    )
    return platform


def test_the_app_answers_while_the_controller_is_killed_at_every_step_of_a_deploy(
    platform: MiniPlatform, tmp_path: Path
):
    """Twenty-one times; each deploy ends by itself, as done or as failed with the reason, and what answers is what it
    says."""
    states = []
    with (
        steady_load(tmp_path, platform.port, HOST, slow_path="/slow?seconds=1") as load,
        kept_socket(platform.port, HOST) as socket,
    ):
        for number, moment in enumerate(DEPLOY_MOMENTS, 1):
            before = platform.get(APP)[1]
            source = write_app(tmp_path / "app", str(number), release="sleep 1", after="sleep 1")
            deploy = kill_at(platform, moment, ("deploy", str(source), APP))
            states.append(_explained(deploy, moment))
            assert platform.get(APP)[1] == (f"{number} none" if deploy["state"] == "done" else before), moment
        for moment, command in OTHER_MOMENTS:
            states.append(_explained(kill_at(platform, moment, command), moment))
    print(load.summary())
    print(f"{states.count('done')} done, {states.count('failed')} failed; {socket.farewells}")
    assert len(states) == 21
    assert set(states[15:18]) == {"done"}, "after ROUTED a deploy goes forward"
    assert (load.failed, load.errors) == (0, [])
    assert (socket.abrupt, socket.refused) == ([], [])
    assert settled(platform, lambda: _wrong(platform)) == []


def _explained(deploy: dict[str, Any], moment: Moment) -> str:
    if deploy["state"] == "failed":
        assert deploy["failure"]["code"] == "interrupted", (str(moment), deploy["failure"])
        assert re.search("The controller was restarted|was interrupted", deploy["failure"]["message"])
        assert deploy["failure"]["hint"], deploy["failure"]
    print(f"{moment}: {deploy['kind']} {deploy['state']} {(deploy['failure'] or {}).get('step', '')}")
    return str(deploy["state"])


def _wrong(platform: MiniPlatform) -> list[str]:
    """What is not as the store says, and what nobody knows: one line each."""
    instances = {item["id"]: item for item in platform.json("ps", "-a", APP)}
    wrong = [f"{item['name']} is {item['state']}" for item in instances.values() if item["state"] != "running"]
    wrong += [f"deploy {item['id']} goes on" for item in _deploys(platform) if item["state"] not in FINISHED]
    containers = _docker(platform, "ps", "-a", "--format", "{{.Names}}")
    wrong += [f"container {name} is nobody's" for name in containers - instances.keys()]
    wrong += [f"container {name} is missing" for name in instances.keys() - containers]
    unkept = [name for name in containers if _policy(name) in ("no", "")]
    wrong += [f"container {name} would not be restarted by the engine" for name in unkept]
    releases = adminclient.call(admin(platform), "GET", f"/v1/apps/{APP}/releases")
    images = {item["image"] for item in releases if item["image_kept"]}
    wrong += [
        f"image {name} is nobody's"
        for name in _docker(platform, "images", "--format", "{{.Repository}}:{{.Tag}}") - images
    ]
    data = find_paths(str(platform.home)).data
    wrong += [f"{path} is left over" for folder in ("work", "uploads") for path in (data / folder).glob("*")]
    with contextlib.closing(sqlite3.connect(f"file:{data / 'mini.db'}?mode=ro", uri=True)) as store:
        wrong += [f"store: {row}" for row in store.execute("pragma integrity_check") if row != ("ok",)]
        wrong += [f"store: {row}" for row in store.execute("pragma foreign_key_check")]
    return wrong


def _deploys(platform: MiniPlatform) -> list[dict[str, Any]]:
    return list(platform.json("deploys", "list", "-n", "100"))


def _docker(platform: MiniPlatform, *command: str) -> set[str]:
    label = f"label=mini.platform={(platform.home / 'platform-id').read_text()}"
    done = subprocess.run(["docker", *command, "--filter", label], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _policy(container: str) -> str:
    """Empty where the container went away since it was listed."""
    asked = ["docker", "inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", container]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


# --- the router


def _router(platform: MiniPlatform, *, worker: bool) -> list[int]:
    return [
        pid for pid, line in processes_of(platform.home) if "-m mini_proxy" in line and ("--worker" in line) is worker
    ]


def test_a_killed_router_worker_loses_only_what_it_holds(platform: MiniPlatform, tmp_path: Path):
    """No request that begins after the kill fails, and another worker takes its place."""
    workers = _router(platform, worker=True)
    kills = []
    with steady_load(tmp_path, platform.port, HOST) as load:
        time.sleep(2)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            kills.append(time.time())
            until(lambda gone=pid: gone not in _router(platform, worker=True), what="an end of the worker")
            until(lambda: len(_router(platform, worker=True)) == len(workers), what="a new worker")
            time.sleep(2)
    print(load.summary())
    assert load.total > 500
    assert load.lost_outside(kills) == [], "requests failed that the killed worker never held"
    assert not set(workers) & set(_router(platform, worker=True))


def test_nobody_notices_a_kill_of_the_routers_master(platform: MiniPlatform, tmp_path: Path):
    (master,) = _router(platform, worker=False)
    with steady_load(tmp_path, platform.port, HOST) as load, kept_socket(platform.port, HOST) as socket:
        time.sleep(1)
        os.kill(master, signal.SIGKILL)
        until(lambda: _router(platform, worker=False) not in ([master], []), what="a new master")
        source = write_app(tmp_path / "app", "after the master", release="true")
        platform.mini("deploy", str(source), APP)
        assert platform.get(APP)[1] == "after the master none"
        time.sleep(2)
    print(load.summary())
    assert load.total > 500
    assert (load.failed, load.errors) == (0, [])
    assert (socket.abrupt, socket.refused) == ([], [])


def test_what_went_through_all_this_leaves_nothing_behind(platform: MiniPlatform):
    assert settled(platform, lambda: _wrong(platform)) == []
    platform.mini("apps", "destroy", APP, "--yes")
    platform.mini("down", "--purge", "--yes")
    assert platform.left_over() == []
