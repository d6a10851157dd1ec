"""Commands at set times, and commands that a user runs."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from mini_core import api
from mini_core.controller import open_controller
from mini_core.engine import oneoffs
from mini_core.engine.cron import Cron, due
from mini_core.engine.job import QuietJob
from mini_core.errors import Conflict, NotFound, UsageError
from mini_core.testing import free_port, tar_of, until
from mini_core.types import Secret
from tests.engine.conftest import Lab
from tests.engine.dying_controller import settings


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_of_missed_slots_only_the_last_is_due_and_none_that_is_a_day_old():
    since, now = at("2026-03-02T10:00:00"), at("2026-03-02T10:47:10")
    assert due("*/15 * * * *", since, now) == at("2026-03-02T10:45:00")
    assert due("*/15 * * * *", at("2026-03-02T10:45:00"), now) is None
    assert due("@daily", at("2026-01-01T12:00:00"), now) == at("2026-03-02T00:00:00")
    assert due("0 9 1 3 *", at("2026-01-01T12:00:00"), now) is None
    assert due("61 * * * *", since, now) is None


def test_a_due_entry_runs_once_and_its_end_is_an_event(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mini_core.engine.cron.CHECK_EVERY", 0.05)
    monkeypatch.setattr("mini_core.reconcile.INTERVAL", 0.05)
    toml = '[cron]\nnightly = { schedule = "* * * * *", command = "clean up" }\n'
    lab.deploy(web=["serve", "hello"], **{"file_mini.toml": toml})
    app = lab.store.apps.get("blog")
    lab.store.apps.change(app.id, deployed_at=time.time() - 90)
    until(lambda: lab.events("cron.done"), what="the run")
    assert lab.events("cron.done")[0].data["exit_code"] == 0
    until(lambda: "clean up" in [line.text for line in lab.controller.logs("blog", process="nightly")], what="its line")
    lab.at_rest()
    assert lab.world.starts["nightly"] <= 2, "one a minute, and a minute may have passed"


def test_a_run_that_is_still_going_lets_the_next_slot_pass(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mini_core.engine.cron.CHECK_EVERY", 0.05)
    monkeypatch.setattr("mini_core.reconcile.INTERVAL", 0.05)
    toml = '[cron]\nlong = { schedule = "* * * * *", command = "work" }\n'
    lab.deploy(web=["serve", "hello"], **{"file_mini.toml": toml})
    app = lab.store.apps.get("blog")
    lab.store.apps.change(app.id, deployed_at=time.time() - 90)
    until(lambda: lab.world.starts.get("long"), what="the run")
    lab.controller._engine.cron._clock = lambda: time.time() + 120
    until(lambda: lab.events("cron.skipped"), what="the skipped slot")
    assert lab.world.starts["long"] == 1


def test_commands_need_a_release_and_a_running_instance(lab: Lab):
    lab.controller.create_app(api.NewApp(name="blog"), "me", "")
    with pytest.raises(Conflict, match="no release yet"):
        lab.controller.run("blog", api.OneOffRequest(command=("true",)), "me")
    lab.deploy(web=["serve", "hello"])
    with pytest.raises(UsageError):
        lab.controller.run("blog", api.OneOffRequest(command=()), "me")


def run(lab: Lab, *command: str, **env: str) -> api.Started:
    secrets = {name: Secret(item) for name, item in env.items()}
    return lab.controller.start_run("blog", api.OneOffRequest(command=command, env=secrets), "me")


def written(lab: Lab, process: str = "run") -> list[str]:
    return [line.text for line in lab.controller.logs("blog", process=process)]


def test_a_command_that_goes_on_by_itself_says_in_the_log_and_in_an_event_how_it_ended(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    started = run(lab, "exit", "7", "done", "done")
    assert (started.name, started.id[:14]) == ("run.1", "blog-v1-run-1-")
    until(lambda: lab.events("run.failed"), what="its end")
    assert lab.events("run.failed")[0].data == {"name": "run.1", "instance": started.id, "exit_code": 7}
    until(lambda: written(lab) == ["done", "done", "Exited with code 7"], what="its lines, each once")
    lab.at_rest()


def test_a_secret_that_is_given_to_one_command_is_masked_in_its_log(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    run(lab, "betray", "TOKEN", TOKEN="open-sesame")
    until(lambda: written(lab)[:1] == ["cannot log in with [REDACTED]"], what="its line")


def test_deploys_restarts_and_sleep_leave_commands_alone_and_a_stop_ends_them(lab: Lab):
    lab.deploy(web=["serve", "hello"], **{"file_mini.toml": '[deploy]\nstrategy = "recreate"\n'})
    run(lab, "hang")
    assert lab.deploy(web=["serve", "hello"], **{"file_mini.toml": '[deploy]\nstrategy = "recreate"\n'}).unchanged
    lab.ended(lab.controller.restart("blog", "me"))
    lab.set_env(A="b")
    assert lab.controller.app("blog", "").running == {"web": 1}
    lab.controller._engine.sleeper.put_to_sleep(lab.store.apps.get("blog"))
    until(lambda: [item.spec.kind for item in lab.world.of("blog")] == ["oneoff"], what="sleep")
    (command,) = lab.controller.ps("blog")
    assert (command.name, command.state, command.release) == ("run.1", "running", 1)
    lab.controller.stop("blog", "me")
    assert lab.controller.ps("blog") == ()


def test_a_command_ends_with_the_controller_through_which_its_client_held_it(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    app = lab.store.apps.get("blog")
    request = api.OneOffRequest(command=("hang", "s3same"))
    item, spec = oneoffs._prepare(lab.controller._parts, app, request, attached=True)
    lab.controller._engine.reconciler.sessions.add(item.id)
    lab.store.instances.change(item.id, phase="live")
    lab.controller._parts.runtime.start(spec, QuietJob(5.0))
    lab.controller._engine.reconciler.look()
    held, _ = lab.controller.ps("blog")
    assert (held.name, held.state, held.command) == ("run.1", "running", "hang s3same")
    lab.world.instances[item.id].write("for the client alone")
    started = run(lab, "hang")
    lab.world.instances[started.id].write("for the log")
    until(lambda: written(lab), what="the line")
    assert written(lab) == ["for the log"]
    lab.reopen()
    until(lambda: [item.id for item in lab.controller.ps("blog") if item.process == "run"] == [started.id])


def test_a_command_is_stopped_by_its_name(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    assert [run(lab, "hang").name, run(lab, "hang").name] == ["run.1", "run.2"]
    lab.controller.stop_run("blog", "run.1", "me")
    assert run(lab, "exit", "0").name == "run.3"
    until(lambda: [item.name for item in lab.controller.ps("blog")] == ["run.2", "web.1"], what="its end")
    with pytest.raises(NotFound, match=r"no command run\.1"):
        lab.controller.stop_run("blog", "run.1", "me")
    with pytest.raises(UsageError, match=r"web\.1 is started again"):
        lab.controller.stop_run("blog", "web.1", "me")


def test_a_deploy_between_a_slot_and_the_look_for_it_does_not_swallow_the_slot(lab: Lab):
    toml = '[cron]\nhourly = { schedule = "0 * * * *", command = "clean up" }\n'
    lab.deploy(web=["serve", "hello"], **{"file_mini.toml": toml})
    app, now = lab.store.apps.get("blog").id, at("2026-03-02T09:59:58")
    cron = Cron(lab.controller._parts, lambda: None, clock=lambda: now)
    for moment, deployed in (("T09:59:58", "T09:30:00"), ("T10:00:04", "T10:00:01")):
        now = at(f"2026-03-02{moment}")
        lab.store.apps.change(app, deployed_at=at(f"2026-03-02{deployed}"))
        cron._next_check = 0.0
        cron.check()
    assert lab.store.cron.last(app, "hourly", now) == at("2026-03-02T10:00:00")


def test_a_clock_that_jumps_neither_stops_the_slots_nor_runs_one_twice(lab: Lab):
    toml = '[cron]\nhourly = { schedule = "0 * * * *", command = "clean up" }\n'
    lab.deploy(web=["serve", "hello"], **{"file_mini.toml": toml})
    app, now = lab.store.apps.get("blog").id, 0.0
    lab.store.apps.change(app, deployed_at=at("2026-03-02T11:30:00"))
    cron = Cron(lab.controller._parts, lambda: None, clock=lambda: now)
    taken: list[str] = []
    for moment in ("12:00:04", "15:30:00", "12:30:00", "12:59:59", "13:00:04", "14:00:04", "15:00:04", "16:00:04"):
        now = at(f"2026-03-02T{moment}")
        cron._next_check = 0.0
        cron.check()
        runs = lab.store.cron._db.query("SELECT slot FROM cron_runs ORDER BY rowid")
        taken = [datetime.fromtimestamp(run["slot"]).strftime("%H:%M") for run in runs]
    assert taken == ["12:00", "15:00", "13:00", "14:00", "16:00"]


@pytest.mark.slow
def test_a_one_off_and_a_command_in_an_instance_have_the_releases_environment(tmp_path):  # type: ignore[no-untyped-def]
    from mini_core.paths import find_paths

    controller = open_controller(settings(free_port()), find_paths(str(tmp_path / "home")))
    controller.start()
    try:
        archive = tar_of({"index.html": "hello"}, tmp_path / "app.tar.gz")
        options = api.DeployOptions(env={"COLOUR": "crimson"})
        info = controller.deploy("blog", archive, options, "me", "")
        assert list(controller.deploy_events(info.id))[-1].kind == "done"
        command = ("sh", "-c", "cat; echo $COLOUR; exit 5")
        for one_off in (
            controller.run("blog", api.OneOffRequest(command=command), "me"),
            controller.exec("blog", api.OneOffRequest(command=command, instance="web.1"), "me"),
        ):
            one_off.write(b"typed ")
            one_off.close_stdin()
            assert b"".join(data for _, data in one_off.output()) == b"typed crimson\n"
            assert one_off.wait() == 5
            one_off.close()
        with pytest.raises(NotFound):
            controller.exec("blog", api.OneOffRequest(command=command, instance="web.7"), "me")
        until(lambda: len(controller.ps("blog")) == 1, what="the one-off's end")
    finally:
        controller.shutdown()
        controller.close()
