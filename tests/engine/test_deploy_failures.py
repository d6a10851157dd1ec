"""A deploy that fails says how, keeps saying it, and leaves what ran before running."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_core import api
from mini_core.controller import open_controller
from mini_core.engine.causes import explain, folded, how_it_ended
from mini_core.errors import Conflict, MiniError, UsageError
from mini_core.hooks import Hooks
from mini_core.plugins import Plugins
from mini_core.testing import until
from tests.engine.conftest import Lab
from tests.engine.fakes import FakePlugin

FAILURES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "plan": ({"file_mini.toml": "[processes]\nweb = 3"}, "config", "planned", "processes.web"),
    "no start": ({"steps": []}, "no-start", "planned", "no start command"),
    "required": ({"web": ["work"], "env": [{"name": "KEY", "kind": "required"}]}, "env-missing", "planned", "KEY"),
    "build": ({"web": ["work"], "steps": [["fail", "no such package"]]}, "build", "step 1", "step 1 failed"),
    "exits": ({"web": ["exit", "3", "no database"]}, "exited", "healthy", "web.1 exited with code 3"),
    "memory": ({"web": ["oom"]}, "out-of-memory", "healthy", "ran out of memory (256 MB)"),
    "deaf": ({"web": ["deaf"], "timeout": 0.3}, "never-listens", "healthy", "never listened on port"),
    "unhealthy": ({"web": ["answer", "500"], "health": "/up", "timeout": 0.3}, "unhealthy", "healthy", "500"),
    "release": ({"web": ["work"], "release": ["exit", "9", "bad column"]}, "release-failed", "release", "code 9"),
    "worker": ({"web": ["serve", "x"], "worker": ["exit", "0"]}, "exited", "healthy", "worker.1 exited with code 0"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_every_failure_names_its_step_and_cause_and_the_old_release_serves_on(lab: Lab, kind: str):
    wish, code, step, words = FAILURES[kind]
    lab.deploy(web=["serve", "old"])
    before = set(lab.world.instances)
    info = lab.deploy(**wish)
    failure = info.failure
    assert failure is not None and info.state == "failed"
    assert (failure.code, failure.step) == (code, step)
    assert words in failure.message
    assert failure.hint
    assert lab.get() == (200, "old")
    lab.at_rest()
    assert set(lab.world.instances) == before
    assert lab.controller.app("blog", "").release == 1
    assert lab.controller.deploy_info(info.id).failure == failure
    last = list(lab.controller.deploy_events(info.id))[-1]
    assert (last.kind, last.text, last.data["failure"]["code"]) == ("failed", failure.message, code)
    assert lab.events("deploy.failed")[0].data["code"] == code


def test_an_app_that_never_ran_says_which_deploy_failed(lab: Lab):
    info = lab.deploy(web=["exit", "3"])
    assert lab.controller.app("blog", "").note == f"deploy {info.id} failed"
    lab.deploy(web=["serve", "well"])
    assert lab.controller.app("blog", "").note == ""


def test_the_last_lines_and_the_exit_code_are_kept(lab: Lab):
    failure = lab.deploy(web=["exit", "3", "connecting", "no database"]).failure
    assert failure is not None
    assert (failure.exit_code, failure.tail) == (3, ("connecting", "no database"))
    until(
        lambda: [line.text for line in lab.controller.logs("blog", source="app")][-1:] == ["no database"], what="logs"
    )


def test_what_the_images_own_health_check_says_counts(lab: Lab):
    lab.deploy(web=["serve", "old"])
    lab.world.health = "unhealthy"
    failure = lab.deploy(web=["serve", "new"], timeout=0.3).failure
    assert failure is not None
    assert (failure.code, failure.step) == ("unhealthy", "healthy")
    assert "its HEALTHCHECK does not succeed: curl: (22) 500" in failure.message
    assert "[health] path" in failure.hint
    assert lab.get() == (200, "old")
    lab.world.health = "healthy"
    assert lab.deploy(web=["serve", "new"]).state == "done"


CAUSES = {
    "ModuleNotFoundError: No module named 'flask'": "The package flask is not installed: add it to the dependencies.",
    "Error: Cannot find module 'express'": "The package express is not installed: add it to the dependencies.",
    "Error: Cannot find module '/app/server.js'": "There is no server.js: ",
    "Error: Cannot find module './db'": "There is no ./db: is it ignored, or not committed?",
    "python: can't open file '/srv/builds/c15a/app/main.py': [Errno 2] No such file": "There is no main.py: ",
    "sh: 1: exec: gunicron: not found": "There is no command gunicron: ",
    "sh: line 1: gunicron: command not found": "There is no command gunicron: ",
    "sh: 1: gunicron: not found": "There is no command gunicron: ",
    'npm error Missing script: "start"': "package.json has no script start: ",
    "Failed to find attribute 'app' in 'blog.wsgi'.": "The module blog.wsgi has no app: ",
    "KeyError: 'SMTP_HOST'": "If SMTP_HOST is a variable of its environment: mini env set SMTP_HOST=… -a blog",
    'FATAL: password authentication failed for user "app"': "A database refuses its credentials: mini env list -a blog",
    'could not translate host name "db" to address: Name or service not known': "It does not find the host of a ",
    "Error: connect ECONNREFUSED 127.0.0.1:5432": "It cannot reach a service that it needs; localhost is the app",
    "[FATAL tini (7)] exec /start.sh failed: Permission denied": "/start.sh is not executable: chmod +x /start.sh",
    "sh: 1: ./start.sh: Permission denied": "./start.sh is not executable: ",
    "[FATAL tini (7)] exec /start.sh failed: No such file or directory": "There is no /start.sh in the image, ",
    "it gave up": "Its last lines say why.",
}


@pytest.mark.parametrize("line", CAUSES)
def test_a_likely_cause_is_named(line: str):
    cause = explain("blog", ["starting", line], 1, None, limit=20)
    assert cause.hint.startswith(CAUSES[line])
    assert cause.tail == ("starting", line)


def test_a_telling_line_is_shown_though_a_page_came_after_it():
    page = [f"    at Module._load (node:internal:{number})" for number in range(30)]
    lines = ["starting", "Error: Cannot find module 'express'", *page, "Node.js v24", "npm notice of a newer version"]
    cause = explain("blog", lines, 1, None, limit=20)
    assert cause.hint.startswith("The package express is not installed")
    assert (len(cause.tail), cause.tail[0], cause.tail[10], cause.tail[-1]) == (20, lines[1], "…", "Node.js v24")


def test_a_line_that_came_again_and_again_leaves_room_for_the_others():
    assert folded(["boot", "GET /up", "GET /up", "GET /up", "done", "done"]) == [
        "boot",
        "GET /up",
        "(3 times)",
        "done",
        "done",
    ]


def test_how_it_ended_is_said_with_the_signal_and_the_exit_code():
    assert how_it_ended(3, None) == "exited with code 3"
    assert how_it_ended(137, 9) == how_it_ended(137, None) == "was ended by SIGKILL (exit code 137)"
    assert explain("blog", ["working"], 137, None, limit=20).hint.startswith("It was killed from outside")
    assert explain("blog", ["working"], 139, 11, limit=20).hint.startswith("Native code crashed")


def test_the_likely_cause_comes_with_the_failure(lab: Lab):
    failure = lab.deploy(web=["exit", "1", "ModuleNotFoundError: No module named 'flask'"]).failure
    assert failure and failure.hint == "The package flask is not installed: add it to the dependencies."


def test_in_an_isolated_runtime_listening_on_the_own_loopback_is_an_error(make_lab: Callable[..., Lab]):
    lab = make_lab(abilities=frozenset({"isolation", "side-by-side-ports"}))
    failure = lab.deploy(web=["loopback", "3000"], timeout=10).failure
    assert failure is not None
    assert failure.code == "loopback-only"
    assert "listen on 0.0.0.0" in failure.hint


def test_a_variable_with_one_of_mini_s_own_words_leaves_the_message_readable(make_lab: Callable[..., Lab]):
    lab = make_lab(abilities=frozenset({"isolation", "side-by-side-ports"}))
    env = {"MODE": "loopback", "LISTEN": "0.0.0.0", "TOKEN": "s3cret-token"}
    failure = lab.deploy(web=["loopback", "3000"], timeout=10, options=api.DeployOptions(env=env)).failure
    assert failure is not None
    assert failure.message.startswith("web.1 listens on its own loopback only")
    assert "listen on 0.0.0.0" in failure.hint
    betrayed = lab.deploy(web=["betray", "TOKEN"], options=api.DeployOptions(env=env)).failure
    assert betrayed is not None and betrayed.tail == ("cannot log in with [REDACTED]",)


def test_a_refusal_names_the_plugin(lab: Lab):
    lab.world.refusals = ["frozen until Monday"]
    failure = lab.deploy().failure
    assert failure is not None
    assert (failure.code, failure.message) == ("refused", "Refused: fake: frozen until Monday.")


def test_a_disk_that_is_nearly_full_refuses_with_the_numbers(lab: Lab):
    lab.reopen(disk_reserve=1 << 60)
    with pytest.raises(MiniError, match=r"nearly full: .* free at .*TB must stay free"):
        lab.send()


def test_a_hostile_archive_fails_the_deploy_and_is_removed(lab: Lab, tmp_path: Path):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("../../evil")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    info = lab.ended(lab.controller.deploy("blog", archive, api.DeployOptions(), "ci", ""))
    assert info.failure and info.failure.code == "source"
    until(lambda: not list((lab.paths.data / "uploads").iterdir()), what="the upload's end")
    assert not list((lab.paths.data / "work").iterdir())


def test_a_deadline_ends_a_build(lab: Lab):
    info = lab.deploy(web=["work"], steps=[["hang"]], options=api.DeployOptions(timeout=0.3))
    assert (info.state, info.failure and info.failure.code) == ("failed", "timeout")


def test_an_engine_that_is_gone_is_said_and_nothing_is_lost(lab: Lab):
    lab.deploy(web=["serve", "old"])
    lab.world.engine_gone = True
    failure = lab.deploy(web=["serve", "new"]).failure
    assert failure and failure.code == "engine-gone"
    assert lab.get() == (200, "old")
    until(lambda: lab.controller.status("").problems, what="a problem in the status")
    lab.world.engine_gone = False
    lab.at_rest()
    assert lab.deploy(web=["serve", "new"]).state == "done"


def test_a_router_that_dies_is_started_again_and_the_deploy_ends(lab: Lab):
    lab.deploy(web=["serve", "old"])
    lab.world.router_runs = False
    assert lab.deploy(web=["serve", "new"]).state == "done"
    assert (lab.get(), lab.world.router_starts) == ((200, "new"), 2)


def test_an_unknown_failure_is_a_bug_that_still_ends_the_deploy(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mini_core.releases.add_release", lambda *_: 1 / 0)
    failure = lab.deploy().failure
    assert failure and failure.code == "bug"
    assert "ZeroDivisionError" in failure.message


# --- one at a time


def test_two_deploys_of_an_app_run_one_after_the_other(lab: Lab):
    first = lab.send(web=["serve", "first"], steps=[["hang"]])
    second = lab.send(web=["serve", "second"])
    assert (second.state, second.waiting_for) == ("waiting", first.id)
    assert lab.lines(second)[0].startswith(f"Waiting for deploy {first.id} (key ci, ")
    lab.controller.cancel_deploy(first.id, "me")
    assert lab.ended(first).state == "cancelled"
    assert lab.ended(second).state == "done"
    assert lab.get() == (200, "second")


def test_many_deploys_at_once_all_end_and_the_last_one_is_live(lab: Lab):
    infos = [lab.send(web=["serve", str(number)]) for number in range(6)]
    assert [lab.ended(info).state for info in infos] == ["done"] * 6
    assert lab.get() == (200, "5")
    lab.at_rest()
    assert len(lab.world.instances) == 1


def test_builds_are_limited_over_all_apps(make_lab: Callable[..., Lab]):
    lab = make_lab(builds=1)
    first = lab.send("one", web=["work"], steps=[["hang"]])
    until(lambda: lab.controller.deploy_info(first.id).step == "planned", what="the first build")
    second = lab.send("two", web=["serve", "two"])
    until(lambda: "Waiting for another build to end" in lab.lines(second), what="the second to wait")
    lab.controller.cancel_deploy(first.id, "me")
    assert lab.ended(second).state == "done"


def test_a_waiting_deploy_can_be_cancelled(lab: Lab):
    first = lab.send(web=["work"], steps=[["hang"]])
    second = lab.send()
    assert lab.controller.cancel_deploy(second.id, "me").state == "cancelled"
    ended = lab.ended(second)
    assert ended.state == "cancelled" and ended.failure
    assert ended.failure.message == "Cancelled by key me while it waited."
    lab.controller.cancel_deploy(first.id, "me")
    lab.ended(first)
    with pytest.raises(Conflict):
        lab.controller.cancel_deploy(first.id, "me")
    until(lambda: not list((lab.paths.data / "uploads").iterdir()), what="the uploads' end")


HANGS: dict[str, dict[str, Any]] = {
    "built": {"web": ["serve", "new"], "steps": [["hang"]]},
    "released": {"web": ["serve", "new"], "release": ["hang"]},
    "healthy": {"web": ["deaf"], "timeout": 60},
}


@pytest.mark.parametrize("step", HANGS)
def test_a_cancelled_deploy_stops_soon_wherever_it_is(lab: Lab, step: str):
    lab.deploy(web=["serve", "old"])
    info = lab.send(**HANGS[step])
    reached = {"built": "planned", "released": "released", "healthy": "starting"}[step]
    until(lambda: lab.controller.deploy_info(info.id).step == reached, what=reached)
    began = time.monotonic()
    lab.controller.cancel_deploy(info.id, "me")
    ended = lab.ended(info)
    assert ended.state == "cancelled" and ended.failure and ended.failure.message == "Cancelled by key me."
    assert time.monotonic() - began < 5
    lab.at_rest()
    assert (lab.get(), len(lab.world.instances)) == ((200, "old"), 1)


def test_progress_reaches_who_watches_and_is_not_stored(lab: Lab):
    info = lab.send(web=["work"], steps=[["hang"]])
    until(lambda: "built" in lab.lines(info), what="the build")
    events = lab.controller.deploy_events(info.id)
    job = lab.controller._engine.queue._jobs[info.id]
    job.emit("40 %", kind="progress")
    assert next(item for item in events if item.kind == "progress").text == "40 %"
    assert "40 %" not in lab.lines(info)
    lab.controller.cancel_deploy(info.id, "me")
    lab.ended(info)


def test_wrong_variables_are_refused_before_anything_happens(lab: Lab):
    for name in ("PORT", "1X", "A-B", "MINI_INSTANCE"):
        with pytest.raises(UsageError):
            lab.send(options=api.DeployOptions(env={name: "x"}))
    assert lab.controller.apps("") == ()


def test_deploying_to_a_name_that_no_app_can_have_is_refused(lab: Lab):
    for name in ("../etc", "Blog", "a.b", "mini", "-x", "x" * 41, "a--b", "1-2-3-4", "blog-10-0-0-1", ""):
        if name:
            with pytest.raises(UsageError):
                lab.send(name)
    created = lab.controller.create_app(api.NewApp(), "me", "")
    assert created.name.count("-") == 1
    with pytest.raises(Conflict):
        lab.controller.create_app(api.NewApp(name=created.name), "me", "")


# --- secrets


def test_secrets_are_in_no_log_event_or_error(lab: Lab):
    secret = "s3cr3t-sentinel-value"
    lab.deploy(web=["greet", "TOKEN"], options=api.DeployOptions(env={"TOKEN": secret}))
    assert lab.deploy(web=["betray", "TOKEN"]).failure.tail == ("cannot log in with [REDACTED]",)  # type: ignore[union-attr]
    lab.deploy(web=["work"], steps=[["fail", f"curl https://{secret}@example.com"]])
    lab.controller.change_env("blog", api.EnvChange(set={"BUILD": "build-only-sentinel"}, build=True), "me")
    lab.deploy(web=["work"], steps=[["fail", "build-only-sentinel"]])
    until(lambda: any("TOKEN=" in line.text for line in lab.controller.logs("blog")), what="the app's line")
    lab.controller.close()
    stored = b"".join(path.read_bytes() for path in lab.paths.data.rglob("*") if path.is_file())
    assert b"[REDACTED]" in stored
    assert secret.encode() not in stored
    assert b"build-only-sentinel" not in stored
    lab.open()


def test_ended_deploys_keep_no_secrets_of_their_request(lab: Lab):
    info = lab.deploy(web=["exit", "1"], options=api.DeployOptions(env={"TOKEN": "s3cr3t-sentinel"}))
    assert dict(lab.store.deploys.request(info.id).env) == {}


def test_a_plugin_without_which_nothing_may_be_deployed_is_named(lab: Lab):
    lab.controller.close()
    plugins = Plugins.of({"fake": FakePlugin(lab.world)})
    plugins._required = ("audit",)
    lab.controller = open_controller(lab.settings, lab.paths, hooks=Hooks(plugins))
    lab.controller.start()
    failure = lab.deploy().failure
    assert failure and (failure.code, "audit" in failure.message) == ("plugin-broken", True)
