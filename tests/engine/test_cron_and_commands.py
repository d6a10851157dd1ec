"""Commands at set times, and commands that a user runs."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from mini_core import api
from mini_core.controller import open_controller
from mini_core.engine.cron import due
from mini_core.errors import Conflict, NotFound, UsageError
from mini_core.testing import free_port, tar_of, until
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
    info = lab.controller.run("blog", api.OneOffRequest(command=("exit", "0", "done"), detach=True), "me")
    assert b"blog-v1-run-1-" in next(info.output())[1]
    until(lambda: "done" in [line.text for line in lab.controller.logs("blog", process="run")], what="its output")
    lab.at_rest()


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
