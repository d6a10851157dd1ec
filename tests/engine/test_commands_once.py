"""Commands that a deploy runs once (the release command, app.json's scripts) outlive the controller: the next one
attaches to them, and none is run twice. The controller's end here is that of a SIGTERM; test_kill_at_every_step has
`kill -9`."""

from __future__ import annotations

import json

import pytest

from mini_core import api
from mini_core.testing import until
from tests.engine.conftest import Lab
from tests.engine.fakes import Instance


def scripts(**dokku: str) -> str:
    once = {"postdeploy": dokku.pop("once")} if "once" in dokku else {}
    return json.dumps({"scripts": {**once, "dokku": dokku}})


def running(lab: Lab, process: str) -> Instance:
    def look() -> Instance | None:
        return next((item for item in lab.world.running("blog") if item.spec.process == process), None)

    found: Instance = until(look, what=f"the {process} command")
    return found


def reopened(lab: Lab, process: str) -> Instance:
    """The command, after the controller was ended and came back while it ran."""
    command = running(lab, process)
    lab.reopen()
    assert running(lab, process) is command
    return command


def ran(lab: Lab, info: api.DeployInfo) -> dict[str, int]:
    lab.at_rest()
    assert lab.ended(info).state == "done"
    return {name: count for name, count in lab.world.starts.items() if name != "web"}


def test_a_release_command_goes_on_and_those_before_it_are_not_run_again(lab: Lab):
    wish = json.loads(scripts(predeploy="check")) | {"formation": {"worker": {"quantity": 2}}}
    info = lab.send(web=["serve", "new"], worker=["work"], release=["hang"], **{"file_app.json": json.dumps(wish)})
    reopened(lab, "release").end(0)
    assert lab.ended(info).state == "done"
    assert ran(lab, info) == {"predeploy": 1, "release": 1, "worker": 2}
    assert lab.get() == (200, "new")


def test_a_release_command_that_fails_meanwhile_fails_the_deploy(lab: Lab):
    lab.deploy(web=["serve", "old"])
    info = lab.send(web=["serve", "new"], release=["hang"])
    command = running(lab, "release")
    lab.controller.close()
    command.write("relation users does not exist")
    command.end(7)
    lab.open()
    failure = lab.ended(info).failure
    assert failure and (failure.code, failure.exit_code) == ("release-failed", 7)
    assert failure.tail == ("relation users does not exist",)
    lab.at_rest()
    assert (lab.get(), lab.world.starts["release"]) == ((200, "old"), 1)


@pytest.mark.parametrize("process", ["postdeploy", "dokku-postdeploy"])
def test_a_script_behind_the_commit_point_goes_on(lab: Lab, process: str):
    hangs = {"once": "hang"} if process == "postdeploy" else {"postdeploy": "hang"}
    info = lab.send(web=["serve", "new"], **{"file_app.json": scripts(**hangs)})
    running(lab, process).write("seeding")
    until(lambda: "seeding" in lab.lines(info), what="its line")
    command = reopened(lab, process)
    assert lab.get() == (200, "new")
    command.write("seeded 3 rows")
    command.end(0)
    assert ran(lab, info) == {process: 1}
    assert [line for line in lab.lines(info) if "seed" in line] == ["seeding", "seeded 3 rows"]
    assert [line.source for line in lab.controller.logs("blog") if line.text == "seeded 3 rows"] == ["build"]


def test_a_script_that_is_gone_is_reported_and_not_run_again(lab: Lab):
    info = lab.send(web=["serve", "new"], **{"file_app.json": scripts(once="hang", postdeploy="warm")})
    command = running(lab, "postdeploy")
    lab.controller.close()
    lab.world.instances.pop(command.spec.id).remove()
    lab.open()
    assert ran(lab, info) == {"postdeploy": 1, "dokku-postdeploy": 1}
    said = "The postdeploy command was interrupted, and is not run twice. The release is live all the same."
    assert said in lab.lines(info)


def test_a_script_that_had_not_begun_runs_after_all(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object) -> None:
        lab.controller._engine.queue._closed = True  # as a crash: nothing more is written down
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("mini_core.deploy.run_once", dies)
        info = lab.send(web=["serve", "new"], **{"file_app.json": scripts(once="seed")})
        until(lambda: lab.controller._engine.queue._closed, what="the crash")
    lab.reopen()
    assert ran(lab, info) == {"postdeploy": 1}


def test_a_cancelled_deploy_ends_its_release_command(lab: Lab):
    info = lab.send(web=["serve", "new"], release=["hang"])
    command = running(lab, "release")
    lab.controller.cancel_deploy(info.id, "me")
    assert lab.ended(info).state == "cancelled"
    until(lambda: command.removed, what="its end")
    lab.at_rest()
