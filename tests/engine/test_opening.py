"""Opening a controller: the runtime is chosen once, the port and the lock are its own, what is missing is named."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_core import api
from mini_core.engine.opening import choose_runtime, own
from mini_core.errors import Conflict, Unavailable
from mini_core.interfaces import Runtime
from mini_core.locks import FileLock
from mini_core.store import Store, open_store
from mini_core.testing import until
from tests.engine.conftest import Lab
from tests.engine.fakes import FakeRuntime, World


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "mini.db", tmp_path / "secret.key")
    yield store
    store.close()


@pytest.fixture
def runtimes() -> tuple[World, dict[str, Runtime]]:
    engine = World()
    return engine, {"docker": FakeRuntime(engine, "docker"), "process": FakeRuntime(World(), "process")}


def test_docker_is_chosen_where_it_answers_and_kept_when_it_does_not_any_more(
    store: Store, runtimes: tuple[World, dict[str, Runtime]]
):
    engine, found = runtimes
    assert choose_runtime(store, "", found)[0].name == "docker"
    engine.engine_gone = True
    assert choose_runtime(store, "", found)[0].name == "docker"


def test_local_processes_are_chosen_where_docker_does_not_answer_and_that_is_said(
    store: Store, runtimes: tuple[World, dict[str, Runtime]]
):
    engine, found = runtimes
    engine.engine_gone = True
    runtime, notice = choose_runtime(store, "", found)
    assert (runtime.name, notice) == ("process", "the engine does not answer: Start it.")
    engine.engine_gone = False
    assert choose_runtime(store, "", found)[0].name == "process", "never switched silently"


def test_another_runtime_is_taken_on_demand_only_while_no_app_runs(
    store: Store, runtimes: tuple[World, dict[str, Runtime]]
):
    _, found = runtimes
    with pytest.raises(Unavailable, match="no runtime firecracker"):
        choose_runtime(store, "firecracker", found)
    choose_runtime(store, "docker", found)
    assert choose_runtime(store, "process", found)[0].name == "process"
    app = store.apps.create("blog", "me")
    store.apps.change(app.id, release=1, state="running")
    with pytest.raises(Conflict, match="The apps here run on process: blog"):
        choose_runtime(store, "docker", found)


def test_an_unknown_router_is_named_and_the_folder_is_free_again(make_lab: Callable[..., Lab]):
    lab = make_lab()
    platform = lab.controller.platform
    with pytest.raises(Unavailable, match="no router caddy"):
        lab.reopen(router="caddy")
    lab.reopen(router="fake")
    assert lab.controller.platform == platform


def test_a_controller_knows_that_its_folder_was_removed_and_another_is_there(lab: Lab):
    assert not lab.controller.homeless
    data = lab.controller.paths.data
    data.rename(data.with_name("elsewhere"))
    assert lab.controller.homeless
    lock = own(data)
    assert lock.in_place
    assert lab.controller.homeless
    with pytest.raises(BlockingIOError):
        fcntl.flock(os.open(data, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)  # as who tidies up asks
    lock.release()
    (data / "controller.lock").unlink()
    data.rmdir()
    data.with_name("elsewhere").rename(data)
    assert not lab.controller.homeless


def test_status_tells_the_platform_and_its_apps(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    status = lab.controller.status("http://192.0.2.7:18080")
    assert (status.state, status.runtime, status.router, status.problems) == ("ok", "fake", "fake", ())
    (app,) = status.apps
    assert (app.state, app.url, dict(app.running)) == ("running", "http://blog.192.0.2.7.nip.io:18080", {"web": 1})
    assert status.disk_used > 0
    assert lab.controller.doctor().checks[0].state == "ok"
    assert [item.name for item in lab.controller.buildpacks()] == ["fake"]


def test_a_plan_is_made_without_an_app_and_leaves_nothing(lab: Lab):
    archive = lab.archive(web=["serve", "hello"])
    info = lab.controller.plan(archive, api.DeployOptions())
    assert (info.plan.buildpack, dict(info.files)) == ("fake", {"Dockerfile": "FROM scratch\n"})
    assert archive.exists()
    until(lambda: not any((lab.paths.data / "work").iterdir()), what="the tree to be removed")
    assert lab.controller.apps("") == ()


def test_an_app_under_way_is_neither_renamed_nor_stopped_but_can_be_destroyed(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    info = lab.send(web=["work"], steps=[["hang"]])
    for call in (lambda: lab.controller.stop("blog", "me"), lambda: lab.controller.rename_app("blog", "x", "me")):
        with pytest.raises(Conflict, match=f"Deploy {info.id} of blog is under way"):
            call()
    lab.controller.destroy_app("blog", "me")
    assert lab.controller.apps("") == ()
    assert lab.world.instances == {}


def test_a_lock_that_cannot_be_looked_at_is_not_taken_to_be_gone(tmp_path: Path):
    lock = FileLock.take(tmp_path / "a" / "lock", Conflict("taken"))
    assert lock.in_place
    (tmp_path / "a").rename(tmp_path / "b")
    assert not lock.in_place
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert lock.in_place, "a loop of links is an error of its own"
    lock.release()
