"""What should run, runs again: crashes, hangs, removal by hand, restarts of the controller and of the machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from mini_core import api
from mini_core.engine.describe import _instance_state
from mini_core.engine.supervise import CALM, delay, is_due
from mini_core.errors import Conflict, StartError
from mini_core.store import records
from mini_core.testing import until
from mini_core.types import InstanceStatus, from_data, replace
from tests.engine.conftest import Lab
from tests.engine.fakes import FakeRuntime, Instance


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_core.reconcile.INTERVAL", 0.1)
    monkeypatch.setattr("mini_core.reconcile.RECOVERING", 0.05)
    monkeypatch.setattr("mini_core.reconcile.RETRY_PROBE", 0.05)
    monkeypatch.setattr("mini_core.reconcile.PATHLESS_INTERVAL", 0.2)
    monkeypatch.setattr("mini_core.engine.supervise.FIRST_DELAY", 0.05)


def only(lab: Lab, app: str = "blog") -> Instance:
    (item,) = lab.world.of(app)
    return item


def test_a_crashed_instance_is_started_again_under_its_own_name(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    first = only(lab)
    first.end(1)
    until(lambda: lab.world.of("blog") and only(lab) is not first and lab.get() == (200, "hello"), what="the restart")
    assert only(lab).spec.id == first.spec.id
    until(lambda: lab.controller.ps("blog")[0].state == "running", what="health")
    info = lab.controller.ps("blog")[0]
    assert info.restarts == 1
    assert re.fullmatch(r"crashed once since \d\d:\d\d, exit code 1", info.note)
    (said,) = lab.controller.logs("blog", source="platform")
    assert re.fullmatch(r"Crashed once since \d\d:\d\d, exit code 1, next try in \d s", said.text)
    assert (said.process, said.release) == ("web.1", 1)
    assert [event.kind for event in lab.controller.events() if event.kind.startswith("instance.")] == [
        "instance.crashed",
        "instance.restarted",
    ]


def test_what_waits_for_its_start_after_that_of_the_platform_has_not_crashed(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    (item,) = lab.store.instances.standing(lab.store.apps.get("blog").id)
    assert _instance_state(item, None) == "starting"
    assert _instance_state(replace(item, crashes=1), None) == "crashed"


def test_a_paused_instance_goes_on_as_it_was(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    first = only(lab)
    lab.world.paused.add(first.spec.id)
    until(lambda: lab.events("instance.resumed"), what="its going on")
    assert (only(lab) is first, lab.world.paused) == (True, set())
    assert lab.controller.ps("blog")[0].restarts == 0


def test_what_was_mended_while_it_was_looked_at_is_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.deploy(web=["serve", "hello"])
    lab.world.hold_starts.clear()
    look = FakeRuntime.list

    def slow(self: FakeRuntime) -> tuple[InstanceStatus, ...]:
        found = look(self)
        if not found and not lab.world.hold_starts.is_set():
            lab.world.hold_starts.set()
            until(lambda: not lab.controller._engine.reconciler._busy, what="the end of the restart")
        return found

    monkeypatch.setattr(FakeRuntime, "list", slow)
    only(lab).end(1)
    until(lambda: lab.events("instance.restarted") and lab.controller.ps("blog")[0].state == "running", what="health")
    kinds = [event.kind for event in lab.controller.events() if event.kind.startswith("instance.")]
    assert kinds == ["instance.crashed", "instance.restarted"]


def test_a_crash_loop_is_named_with_its_cause_and_the_next_try(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.deploy(web=["serve", "hello"])
    monkeypatch.setattr("tests.engine.fakes.Instance._behave", lambda self, *_: self.end(137, oom=True))
    only(lab).end(137, oom=True)
    until(lambda: lab.controller.ps("blog")[0].restarts >= 4, what="four crashes")
    note = until(lambda: re.search(r"next try", lab.controller.ps("blog")[0].note), what="a note").string
    assert re.fullmatch(r"crashed \d times since \d\d:\d\d, out of memory \(256 MB\), next try in \d+ s", note)
    app = lab.controller.app("blog", "")
    assert app.state == "crashed"
    problems = lab.controller.status("").problems
    assert any(line.startswith("blog: web.1 crashed") and "mini logs blog" in line for line in problems)


def test_back_off_doubles_up_to_five_minutes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mini_core.engine.supervise.FIRST_DELAY", 1.0)
    assert [delay(crashes) for crashes in (1, 2, 3, 9, 10, 99)] == [1, 2, 4, 256, 300, 300]
    assert CALM == 600


def test_what_was_removed_by_hand_comes_back(lab: Lab):
    lab.deploy(web=["serve", "hello"], worker=["work"])
    for name in list(lab.world.instances):
        lab.world.instances.pop(name).remove()
    until(lambda: lab.get() == (200, "hello"), what="the web process")
    until(lambda: len(lab.world.running("blog")) == 2, what="the worker")


def test_a_stranger_with_our_label_is_removed(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    from mini_core.types import replace

    spec = replace(only(lab).spec, id="blog-v0-web-1-lost", command=("work",))
    lab.world.instances[spec.id] = Instance(spec)
    until(lambda: spec.id not in lab.world.instances, what="its end")
    until(lambda: lab.events("instance.orphan"), what="an event")
    assert lab.get() == (200, "hello")


def test_an_instance_that_stops_answering_leaves_the_routes_and_is_restarted(lab: Lab):
    lab.deploy(web=["serve", "hello"], health="/up", interval=0.2)
    lab.ended(lab.controller.scale("blog", api.Scale(quantities={"web": 2}), "me"))
    sick = lab.world.of("blog")[0]
    generation = lab.world.table.generation
    sick.status = 500
    until(lambda: lab.events("instance.unhealthy"), seconds=40, what="the diagnosis")
    until(
        lambda: any(
            table.generation > generation and sick.spec.id not in [t.instance for t in table.routes[0].targets]
            for table in lab.world.tables
        ),
        what="leaving the routes",
    )
    until(lambda: len(lab.world.table.routes[0].targets) == 2, what="coming back")
    assert lab.world.instances[sick.spec.id] is not sick


def test_what_the_engine_would_not_restart_is_put_under_its_care(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    until(lambda: lab.world.supervised == {only(lab).spec.id}, what="supervision")
    lab.controller.close()
    lab.world.supervised.clear()  # as where the controller was killed between the routes and this
    lab.open()
    until(lambda: lab.world.supervised == {only(lab).spec.id}, what="supervision again", seconds=2)


def test_what_the_engine_restarts_leaves_the_routes_and_its_cause_is_kept(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.ended(lab.controller.scale("blog", api.Scale(quantities={"web": 2}), "me"))
    sick, generation = lab.world.of("blog")[0].spec.id, lab.world.table.generation
    lab.world.restarting[sick] = 4  # its exit code, while the engine waits
    until(
        lambda: any(
            table.generation > generation and sick not in [item.instance for item in table.routes[0].targets]
            for table in lab.world.tables
        ),
        what="leaving the routes",
    )
    found = next(item for item in lab.controller.ps("blog") if item.id == sick)
    assert found.state == "crashed"
    assert re.fullmatch(r"crashed once since \d\d:\d\d, exit code 4", found.note)
    until(lambda: len(lab.world.table.routes[0].targets) == 2, what="coming back")


def test_what_its_own_health_check_calls_unhealthy_is_restarted_though_it_answers(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mini_core.reconcile.PATHLESS_INTERVAL", 0.05)
    monkeypatch.setattr("mini_core.reconcile.RETRY_PROBE", 0.05)
    lab.deploy(web=["serve", "hello"], interval=0.05)
    first = only(lab)
    lab.world.health = "unhealthy"
    until(lambda: lab.events("instance.restarted"), what="the restart")
    assert first.removed and lab.get() == (200, "hello")
    assert lab.events("instance.unhealthy")[0].data["detail"] == "its HEALTHCHECK does not succeed: curl: (22) 500"
    lab.world.health = "starting"  # its first check may be far off: that it answers is enough
    until(lambda: lab.controller.ps("blog")[0].state == "running", what="health")


def test_the_last_instance_is_never_unrouted_only_restarted(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    generation = lab.world.table.generation
    first = only(lab)
    first.end(1)
    until(lambda: lab.world.of("blog") and only(lab) is not first, what="the restart")
    until(lambda: lab.controller.ps("blog")[0].state == "running", what="health")
    later = [table for table in lab.world.tables if table.generation > generation]
    assert all(route.targets for table in later for route in table.routes)


def test_a_new_controller_adopts_what_runs_and_restarts_what_does_not(lab: Lab):
    lab.deploy(web=["serve", "hello"], worker=["work"])
    before = dict(lab.world.instances)
    lab.controller.close()
    worker = next(item for item in before.values() if item.spec.process == "worker")
    worker.end(1)
    assert lab.get() == (200, "hello"), "apps go on without a controller"
    lab.open()
    until(lambda: len(lab.world.running("blog")) == 2, what="the worker")
    web = next(item for item in before.values() if item.spec.process == "web")
    assert lab.world.instances[web.spec.id] is web


def test_after_down_and_up_everything_runs_again_and_nothing_counts_as_a_crash(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.controller.shutdown()
    assert (lab.world.running("blog"), lab.world.router_runs) == ([], False)
    lab.reopen()
    until(lambda: lab.get() == (200, "hello"), what="the app")
    until(lambda: lab.controller.app("blog", "").state == "running", what="health")
    assert lab.controller.ps("blog")[0].restarts == 0


def test_a_second_controller_on_the_same_folder_refuses(lab: Lab):
    with pytest.raises(Conflict, match="Another controller"):
        lab.open()
    lab.reopen()


def test_a_router_that_forgot_everything_gets_the_table_again(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mini_core.reconcile.ROUTER_INTERVAL", 0.05)
    lab.deploy(web=["serve", "hello"])
    lab.world.router_runs = False
    until(lambda: lab.world.router_starts == 2, what="the router's restart")
    assert lab.get() == (200, "hello")


def test_a_router_that_has_seen_more_than_a_restored_store_is_caught_up_with(lab: Lab):
    from mini_core.types import replace

    lab.deploy(web=["serve", "hello"])
    lab.controller.close()
    lab.world.table = replace(lab.world.table, generation=1000)
    lab.open()
    assert lab.world.table.generation > 1000
    lab.deploy(web=["serve", "again"])
    assert lab.get() == (200, "again")


def test_an_idle_app_sleeps_and_the_next_request_wakes_it_once(make_lab: Callable[..., Lab]):
    lab = make_lab(idle=0.3)
    lab.deploy(web=["serve", "hello"], worker=["work"])
    until(lambda: lab.get() == (503, "asleep"), what="sleep")
    until(lambda: not lab.world.instances, what="no instances")
    assert lab.controller.app("blog", "").state == "asleep"
    lab.world.asked["blog"] = 0.0
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: lab.controller.wake("blog"), range(5)))
    assert lab.get() == (200, "hello")
    assert lab.world.starts == {"web": 2, "worker": 2}
    lab.at_rest()


def test_an_app_says_itself_whether_it_sleeps(make_lab: Callable[..., Lab]):
    lab = make_lab(idle=0.3)
    lab.deploy("kept", web=["serve", "kept"], **{"file_mini.toml": "idle = 0\n"})
    lab.deploy("slow", web=["serve", "slow"], **{"file_mini.toml": 'idle = "1h"\n'})
    lab.deploy("blog", web=["serve", "hello"])
    until(lambda: lab.get() == (503, "asleep"), what="sleep")
    assert (lab.get("kept"), lab.get("slow")) == ((200, "kept"), (200, "slow"))
    assert [lab.controller.app(name, "").idle for name in ("kept", "slow", "blog")] == [0.0, 3600.0, 0.3]
    lab.deploy("slow", web=["serve", "slow"], **{"file_mini.toml": "idle = 0.2\n"})
    until(lambda: lab.get("slow") == (503, "asleep"), what="sleep of the other")
    assert lab.get("kept") == (200, "kept")


def test_who_wakes_an_app_waits_for_what_answers_and_not_until_its_workers_are_proven(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    lab.deploy(web=["serve", "hello"], worker=["work"])
    lab.controller._engine.sleeper.put_to_sleep(lab.store.apps.get("blog"))
    until(lambda: not lab.world.instances, what="sleep")
    monkeypatch.setattr("mini_core.engine.health.SETTLED", 60.0)
    began = time.monotonic()
    lab.controller.wake("blog")
    assert (lab.get(), lab.controller.app("blog", "").state) == ((200, "hello"), "running")
    assert time.monotonic() - began < 10


def test_an_app_that_does_not_wake_says_why_and_is_not_started_by_every_request(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.controller._engine.sleeper.put_to_sleep(lab.store.apps.get("blog"))
    until(lambda: not lab.world.instances, what="sleep")
    images, lab.world.images = lab.world.images, set()
    for _ in range(3):
        with pytest.raises(StartError, match="is gone"):
            lab.controller.wake("blog")
    assert len(lab.events("app.wake_failed")) == 1
    assert any(line.startswith("blog: does not wake: image ") for line in lab.controller.status("").problems)
    lab.world.images = images
    lab.controller._engine.sleeper._failed["blog"] = (0.0, StartError("long ago"))
    lab.controller.wake("blog")
    assert (lab.get(), lab.controller.status("").problems) == ((200, "hello"), ())


def test_a_platform_that_has_just_come_up_lets_its_apps_be_asked_for_first(make_lab: Callable[..., Lab]):
    lab = make_lab()
    lab.deploy(web=["serve", "hello"])
    lab.store.apps.change(lab.store.apps.get("blog").id, deployed_at=time.time() - 3600)
    lab.reopen(idle=60.0)
    lab.controller._engine.sleeper.check()
    assert lab.get() == (200, "hello")


@pytest.mark.parametrize(("delays", "due"), [(-1.0, True), (0.9, False), (1.1, True), (1e6, True)])
def test_a_next_try_that_is_further_away_than_it_ever_was_is_due(delays: float, due: bool):
    then = 1000.0 + delays * delay(3)
    columns = {"id": "a", "app": 1, "release": 1, "process": "web", "index": 1, "kind": "web", "phase": "live"}
    item = from_data(records.Instance, columns | {"created_at": 0.0, "crashes": 3, "next_try": then})
    assert is_due(item, 1000.0) is due


def test_a_clock_that_jumps_back_does_not_keep_a_worker_from_being_well(lab: Lab):
    lab.deploy(web=["serve", "hello"], worker=["work"])
    (worker,) = lab.store.instances.find(process="worker")
    lab.store.instances.change(worker.id, healthy=0, started_at=time.time() + 86_400.0)
    until(lambda: lab.store.instances.get(worker.id).healthy, what="health")


def test_a_clock_that_jumps_back_keeps_no_idle_app_awake(make_lab: Callable[..., Lab]):
    lab = make_lab(idle=0.3)
    lab.deploy(web=["serve", "hello"])
    lab.store.apps.change(lab.store.apps.get("blog").id, deployed_at=time.time() + 86_400.0)
    until(lambda: lab.get() == (503, "asleep"), what="sleep")


def test_a_clock_that_jumps_back_keeps_no_stored_job_waiting(lab: Lab):
    with lab.store.transaction():
        lab.store.jobs.add("destroy", "ghost", data={"app": 999, "actor": "me"})
        lab.store.jobs.failed(lab.store.jobs.all()[0], "the engine does not answer", time.time() + 86_400.0)
    lab.controller._engine.worker.wake()
    until(lambda: not lab.store.jobs.all(), what="the job's end")


def test_a_clock_that_jumps_back_does_not_keep_a_crashed_instance_waiting(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    first = only(lab)
    lab.store.instances.change(first.spec.id, next_try=time.time() + 86_400.0, healthy=0, crashes=1)
    first.end(1)
    until(lambda: lab.world.of("blog") and only(lab) is not first, what="the restart")
