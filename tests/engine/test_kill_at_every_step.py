"""The controller is killed at every step of a deploy: the app answers all through, and the next controller ends the
deploy by itself. Real processes and the real router."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mini_core.controller import Controller, open_controller
from mini_core.paths import find_paths
from mini_core.testing import free_port, tar_of, until
from tests.engine import dying_controller

pytestmark = pytest.mark.slow

BEFORE = ("planned", "built", "released", "started", "starting", "healthy")
AFTER = ("routed", "published", "drained")


class Visitor(threading.Thread):
    """Asks for the app's page without a break; `failed` has every answer that was not the page."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._done = threading.Event()
        self.total = 0
        self.failed: list[str] = []

    def ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/", headers={"Host": "blog.localhost"})
            answer = connection.getresponse()
            text = answer.read().decode()
            return text if answer.status == 200 else f"failed: {answer.status} {text[:80]}"
        except OSError as error:
            return f"failed: {error!r}"
        finally:
            connection.close()

    def run(self) -> None:
        while not self._done.wait(0.005):
            answer = self.ask()
            self.total += 1
            if not answer.startswith("release"):
                self.failed.append(answer)

    def stop(self) -> None:
        self._done.set()
        self.join(20)


class Platform:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.home = str(folder / "home")
        self.number = 0
        self.visitor = Visitor(self.port)

    def deploy(self, point: str) -> int:
        """Deploys the next version in a controller of its own; its exit code."""
        with self.deploying(point, {}) as process:
            pass
        return process.returncode

    @contextmanager
    def deploying(self, point: str, files: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
        """The same, under way."""
        self.number += 1
        archive = tar_of({"index.html": f"release {self.number}"} | files, self.folder / f"{self.number}.tar.gz")
        script = [sys.executable, dying_controller.__file__, self.home, str(self.port), str(archive), point]
        pipe = subprocess.PIPE
        with subprocess.Popen(script, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parents[2]) as process:
            yield process
            _, said = process.communicate(timeout=120)
        assert process.returncode in (0, dying_controller.DEAD), said

    def open(self) -> Controller:
        controller = open_controller(dying_controller.settings(self.port), find_paths(self.home))
        controller.start()
        return controller


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("killed"))
    try:
        assert platform.deploy("never") == 0
        assert platform.visitor.ask() == "release 1"
        platform.visitor.start()
        yield platform
    finally:
        platform.visitor.stop()
        controller = platform.open()
        controller.shutdown()
        controller.close()


def consistent(controller: Controller) -> SimpleNamespace:
    """Waits until nothing is under way, then: what runs is exactly what the store says."""
    store, runtime = controller._store, controller._parts.runtime

    def calm() -> bool:
        rows = store.instances.find()
        running = {status.id for status in runtime.list() if status.state == "running"}
        return all(item.phase == "live" and item.healthy for item in rows) and {item.id for item in rows} == running

    until(lambda: not store.deploys.unfinished(), what="the end of every deploy")
    until(calm, what="what runs to be what is stored")
    app = store.apps.get("blog")
    assert not [item for item in store.releases.all(app.id) if item.state == "pending"]
    until(lambda: not any((controller.paths.data / "work").iterdir()), what="the source's tree to be removed")
    assert not list((controller.paths.data / "uploads").glob("*"))
    (instance,) = store.instances.find()
    assert instance.routed and instance.release == app.release
    return SimpleNamespace(app=app, deploy=store.deploys.list(app.id)[0])


@pytest.mark.parametrize("point", BEFORE + AFTER)
def test_killed_at_any_step_the_app_answers_and_the_deploy_ends(platform: Platform, point: str):
    before = platform.visitor.ask()
    failed = len(platform.visitor.failed)
    assert platform.deploy(point) == dying_controller.DEAD
    controller = platform.open()
    try:
        state = consistent(controller)
        if point in BEFORE:
            assert (state.deploy.state, state.deploy.failure.code) == ("failed", "interrupted")
            assert platform.visitor.ask() == before
        else:
            assert (state.deploy.state, state.deploy.failure) == ("done", None)
            until(lambda: platform.visitor.ask() == f"release {platform.number}", what="the new release")
        last = list(controller.deploy_events(state.deploy.id))[-1]
        assert last.kind == state.deploy.state
    finally:
        controller.close()
    assert platform.visitor.failed[failed:] == []
    assert platform.visitor.total > 50


COMMANDS = {
    "release": {"Procfile": "release: {line}\n"},
    "postdeploy": {"app.json": '{{"scripts": {{"dokku": {{"postdeploy": "{line}"}}}}}}'},
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_that_was_running_is_attached_to_and_never_run_twice(platform: Platform, kind: str):
    ran = platform.folder / f"{kind} ran"
    line = f"echo once >> '{ran}'; sleep 2; echo finished"
    files = {name: text.format(line=line) for name, text in COMMANDS[kind].items()}
    with platform.deploying("never", files) as process:
        until(ran.exists, seconds=60, what=f"the {kind} command")
        process.kill()
    controller = platform.open()
    try:
        state = consistent(controller)
        assert (state.deploy.state, state.deploy.failure) == ("done", None)
        lines = [item.text for item in controller.deploy_events(state.deploy.id)]
        assert "finished" in lines
        assert ran.read_text() == "once\n"
        assert platform.visitor.ask() == f"release {platform.number}"
    finally:
        controller.close()
    assert platform.visitor.failed == []
