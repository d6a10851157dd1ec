"""What `mini deploy` says from the first line to the URL, and when something goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mini_core import api
from mini_core.cli import view
from mini_core.cli.context import Context
from mini_core.client import config
from mini_core.client.follow import follow_deploy
from mini_core.client.http import Client
from mini_core.errors import Unavailable
from mini_core.types import replace
from tests.cli.conftest import Mini
from tests.cli.fake_platform import KEY, STORY, FakeController, FakeServer, said, step


@pytest.fixture(autouse=True)
def localhost_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **named: object) -> object:
        return real("127.0.0.1" if host.endswith(".localhost") else host, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_the_main_story_line_by_line(mini: Mini, server: FakeServer, folder: Path):
    result = mini("deploy", ".", "blog")
    assert result.err.splitlines() == [
        "[1/3] Packing source code... Done.  (1 file, 15 bytes)",
        f"Deploying blog on {server.url}",
        '[2/3] Building image "app-blog"...',
        "      python 3.13 (from .python-version) · pip · Flask → gunicorn",
        "      Collecting flask",
        "      Successfully installed flask",
        "[3/3] Starting container... Done.  (healthy after 0.8 s)",
    ]
    assert result.out == "🚀 Your app is live at: http://blog.localhost:8080\n"


def test_what_arrives_is_the_folder_with_its_origin(mini: Mini, server: FakeServer, folder: Path, tmp_path: Path):
    mini("deploy", ".", "blog", "--timeout", "90s", "--buildpack", "php", "--no-cache")
    (tmp_path / "a.tar.gz").write_bytes(server.controller.sources[0])
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert tar.getnames() == ["app.py"]
    (options,) = server.controller.options
    assert (options.timeout, options.buildpack, options.no_cache) == (90.0, "php", True)
    assert options.origin and options.origin.files == 1 and options.origin.digest.startswith("sha256:")


def test_the_commit_and_what_differs_from_it_are_said(mini: Mini, server: FakeServer, folder: Path):
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], check=True)
    (folder / "app.py").write_text("changed")
    assert "(1 file, 7 bytes; 1 file differs from the last commit)" in mini("deploy", ".", "blog").err
    (folder / "new.py").write_text("new")
    assert "(2 files, 10 bytes; 2 files differ from the last commit)" in mini("deploy", ".", "blog").err


def test_env_files_are_not_sent_and_it_says_how_to_set_them(mini: Mini, server: FakeServer, folder: Path):
    (folder / ".env").write_text("A=1\nB=2\nC=3\n")
    assert "Not sent: .env (3 keys). To set them: mini env import .env" in mini("deploy", ".", "blog").err
    assert server.controller.options[-1].env == {}
    mini("deploy", ".", "blog", "--env-file", ".env")
    assert server.controller.options[-1].env == {"A": "1", "B": "2", "C": "3"}


def test_values_that_are_not_ascii_travel_in_the_header(mini: Mini, server: FakeServer, folder: Path):
    (folder / ".env").write_text("GREETING='grüße ☃\n zwei'\n")
    mini("deploy", ".", "blog", "--env-file", ".env")
    assert server.controller.options[-1].env == {"GREETING": "grüße ☃\n zwei"}


def test_a_first_deploy_without_a_name_gets_one_and_the_folder_remembers_it(
    mini: Mini, controller: FakeController, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    local = _local(controller, monkeypatch)
    result = mini("deploy")
    assert 'Named blue-sky. To share it: app = "blue-sky" in mini.toml' in result.err.splitlines()
    assert config.linked_app("local", folder) == "blue-sky"
    again = mini("deploy", ".")
    assert "Named" not in again.err and list(controller.known) == ["blue-sky"]
    mini("logs")
    assert controller.calls[-1][:2] == ("logs", "blue-sky")
    local.close()


def _local(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """The fake as the local platform, behind its admin socket."""
    from mini_core.paths import private_folder
    from mini_core.server import local

    private_folder(controller.paths.run)
    running = FakeServer(controller, socket=controller.paths.admin_socket)

    class Started:
        message = ""

    monkeypatch.setattr(local, "ensure_running", lambda *_, **__: Started())
    return running


def test_a_remote_server_without_a_name_and_a_terminal_is_wrong_usage(mini: Mini, server: FakeServer, folder: Path):
    result = mini("deploy", code=2)
    assert result.err.splitlines()[0] == "Error: No app named: pass -a NAME or set MINI_APP"
    assert server.controller.sources == []


def test_mini_toml_names_the_app(mini: Mini, server: FakeServer, folder: Path):
    (folder / "mini.toml").write_text('app = "from-toml"\n')
    mini("deploy")
    assert list(server.controller.known) == ["from-toml"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_mini_toml_is_read_in_the_encodings_that_editors_write(
    mini: Mini, server: FakeServer, folder: Path, encoding: str
):
    text = '# für den Laden\n[apps.shop]\npath = "."\n[apps.blog]\npath = "."\n'
    (folder / "mini.toml").write_text(text, encoding=encoding)
    assert "mini.toml lists several apps: shop, blog" in mini("deploy", code=2).err
    mini("deploy", ".", "shop")
    assert list(server.controller.known) == ["shop"]


def test_all_apps_of_a_monorepo_are_deployed(mini: Mini, server: FakeServer, folder: Path):
    for name in ("web", "api"):
        (folder / name).mkdir()
        (folder / name / "app.py").write_text("x")
    (folder / "mini.toml").write_text('[apps.shop]\npath = "web"\n[apps.shop-api]\npath = "api"\n')
    result = mini("deploy", "--all")
    assert sorted(server.controller.known) == ["shop", "shop-api"]
    assert result.out.count("🚀") == 2
    mini("deploy", ".", "shop")
    assert "No app named" in mini("logs", code=2).err  # not the last one that was deployed


def test_which_of_several_apps_is_meant_has_to_be_said(mini: Mini, server: FakeServer, folder: Path):
    (folder / "mini.toml").write_text('[apps.shop]\npath = "web"\n[apps.shop-api]\npath = "api"\n')
    result = mini("deploy", code=2)
    assert result.err.splitlines() == [
        "Error: mini.toml lists several apps: shop, shop-api",
        "mini deploy --all, or one of them: mini deploy . shop",
    ]
    assert server.controller.known == {}


def test_an_unchanged_source_is_said_to_be_unchanged(mini: Mini, server: FakeServer, folder: Path):
    server.controller.script = lambda _, after: iter([said(1, "", "done")])
    server.controller.outcome = {"state": "done", "release": 7, "unchanged": True}
    result = mini("deploy", ".", "blog")
    assert f"Unchanged: blog on {server.url} runs this source with this configuration already." in result.err
    assert "🚀 Your app is live at" in result.out


def test_where_localhost_names_do_not_resolve_another_url_is_given_too(
    mini: Mini, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **named: object) -> object:
        if host.endswith(".localhost"):
            raise socket.gaierror
        return real(host, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert "http://blog.127.0.0.1.nip.io:8080" in mini("deploy", ".", "blog").out


def test_a_machine_that_is_slow_to_resolve_names_does_not_hold_up_the_end(
    mini: Mini, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    real, answer = socket.getaddrinfo, threading.Event()

    def resolve(host: str, *arguments: object, **named: object) -> object:
        if host.endswith(".localhost"):
            answer.wait(30)
        return real(host, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(view, "LOOKUP_PATIENCE", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        assert mini("deploy", ".", "blog").out.strip().endswith("http://blog.localhost:8080")
    finally:
        answer.set()


FAILURE = api.Failure(
    code="exited",
    message="web.1 exited with 1 before it listened",
    hint="Look at the traceback above.",
    step="healthy",
    exit_code=1,
    tail=("Traceback (most recent call last):", "ModuleNotFoundError: No module named 'flask'"),
)


def test_a_failure_names_the_step_shows_the_last_lines_and_what_to_do(mini: Mini, server: FakeServer, folder: Path):
    server.controller.script = lambda _, after: iter([*STORY[:10], said(11, "", "failed")])
    server.controller.outcome = {"state": "failed", "failure": FAILURE, "step": "starting"}
    result = mini("deploy", ".", "blog", code=1)
    assert result.out == ""
    assert result.err.splitlines()[-6:] == [
        "[3/3] Starting container...",
        "Error: Deploy 41 failed (waiting until healthy): web.1 exited with 1 before it listened",
        "      Traceback (most recent call last):",
        "      ModuleNotFoundError: No module named 'flask'",
        "Look at the traceback above.",
        "Look at it again: mini deploys show 41",
    ]
    shown = mini("deploys", "show", "41")
    assert "failed (waiting until healthy)" in shown.out and "No module named 'flask'" in shown.out
    assert shown.err == "Everything that it wrote: mini deploys show 41 --log\n"


def test_last_lines_that_were_just_shown_are_not_shown_twice(mini: Mini, server: FakeServer, folder: Path):
    server.controller.script = lambda _, after: iter(
        [step(1, "built", "begin"), said(2, "pip: no such package"), said(3, "", "failed")]
    )
    failure = api.Failure(code="build", message="pip ended with 1", tail=("pip: no such package",), step="install")
    server.controller.outcome = {"state": "failed", "failure": failure}
    result = mini("deploy", ".", "blog", code=1)
    assert result.err.count("pip: no such package") == 1
    assert "Error: Deploy 41 failed (install): pip ended with 1" in result.err


def test_a_failed_deploy_says_what_goes_on_running(mini: Mini, server: FakeServer, folder: Path):
    server.controller.known["blog"] = api.AppInfo(name="blog", state="running", created_at=1.0, release=3)
    server.controller.script = lambda _, after: iter([said(1, "", "failed")])
    server.controller.outcome = {"state": "failed", "failure": FAILURE}
    assert "blog goes on with v3." in mini("deploy", ".", "blog", code=1).err


def test_a_cancelled_deploy_ends_with_1(mini: Mini, server: FakeServer, folder: Path):
    server.controller.script = lambda _, after: iter([said(1, "", "cancelled")])
    server.controller.outcome = {"state": "cancelled"}
    assert "Error: Deploy 41 was cancelled" in mini("deploy", ".", "blog", code=1).err


def test_waiting_for_another_deploy_names_it(mini: Mini, server: FakeServer, folder: Path):
    waiting = said(1, "Waiting for deploy 41 (key ci, 40 s)", "info")
    server.controller.script = lambda _, after: iter([waiting, *STORY])
    lines = mini("deploy", ".", "blog").err.splitlines()
    assert lines[2:4] == [waiting.text, '[2/3] Building image "app-blog"...']


def test_detached_behind_another_deploy_says_so(
    mini: Mini, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    real = server.controller.job
    monkeypatch.setattr(server.controller, "job", lambda *given: replace(real(*given), state="waiting", waiting_for=7))
    assert (
        "Deploy 41 waits for deploy 7. Follow: mini deploys attach 41" in mini("deploy", "-a", "blog", "--detach").err
    )


def test_on_a_terminal_packing_shows_progress_and_colour(server: FakeServer, folder: Path):
    """The output of a real pseudo-terminal."""
    command = f"{sys.executable} -m mini_core.cli.main deploy . blog"
    environment = {name: item for name, item in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, env=environment)
    assert "[1/3] Packing source code... Done." in done.stdout and "\x1b[K" in done.stdout
    quiet = subprocess.run(
        ["script", "-qec", command, "/dev/null"], capture_output=True, text=True, env={**environment, "NO_COLOR": "1"}
    )
    assert "\x1b" not in quiet.stdout and "Your app is live at" in quiet.stdout


def test_what_is_said_while_a_line_is_half_written_has_one_of_its_own(
    mini: Mini, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    watch = view._watch

    def watched(context: Context, *rest: Any) -> api.DeployInfo:
        def events(client: Client, deploy: int, **_: Any) -> Iterator[api.DeployEvent]:
            for event in follow_deploy(client, deploy, say=context.info):
                yield event
                if (event.text, event.data.get("phase")) == ("starting", "begin"):
                    context.info("Local platform started")

        monkeypatch.setattr(view, "follow_deploy", events)
        return watch(context, *rest)

    monkeypatch.setattr(view, "_watch", watched)
    lines = mini("deploy", ".", "blog").err.splitlines()
    number = lines.index("[3/3] Starting container...")
    assert lines[number + 1 : number + 3] == ["Local platform started", "      Done.  (healthy after 0.8 s)"]


def test_a_connection_that_breaks_is_taken_up_again_without_losing_a_line(mini: Mini, server: FakeServer, folder: Path):
    breaks = [3, 6, 6, 12]

    def script(_: FakeController, after: int) -> Iterator[api.DeployEvent]:
        for event in STORY:
            if event.seq > after:
                yield event
                if breaks and event.seq >= breaks[0]:
                    breaks.pop(0)
                    raise RuntimeError("the controller went away")

    server.controller.script = script
    result = mini("deploy", ".", "blog")
    assert breaks == []
    assert result.err.count("Collecting flask") == result.err.count("Successfully installed") == 1
    assert "healthy after 0.8 s" in result.err and "🚀" in result.out


def test_a_platform_that_is_put_down_under_a_deploy_stays_down(
    mini: Mini, controller: FakeController, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from mini_core.server import local

    running = _local(controller, monkeypatch)
    asked = []

    def ensure_running(_: Path, *, first: bool) -> Any:
        asked.append(first)
        if controller.jobs and not first:
            raise Unavailable("The local platform is stopped.", hint="Start it: mini up", code="stopped")
        return SimpleNamespace(message="")

    monkeypatch.setattr(local, "ensure_running", ensure_running)
    result = mini("deploy", ".", "blog", code=1)
    assert asked[0] and not any(asked[1:])
    assert result.err.splitlines()[-2:] == [
        "Error: The local platform is stopped",
        "Start it: mini up, then: mini deploys show 41",
    ]
    running.close()


def test_detach_returns_at_once(mini: Mini, server: FakeServer, folder: Path):
    result = mini("deploy", ".", "blog", "--detach")
    assert "Deploy 41 started. Follow: mini deploys attach 41" in result.err
    attached = mini("deploys", "attach", "41")
    assert "[3/3] Starting container... Done.  (healthy after 0.8 s)" in attached.err
    assert attached.out == "🚀 Your app is live at: http://blog.localhost:8080\n"


def test_json_is_one_document_on_stdout(mini: Mini, server: FakeServer, folder: Path):
    info = json.loads(mini("deploy", ".", "blog", "--json").out)
    assert (info["app"], info["state"], info["url"]) == ("blog", "done", "http://blog.localhost:8080")
    assert json.loads(mini("deploy", ".", "blog", "--detach", "--json").out)["id"] == 42


def test_warnings_and_lines_between_steps_keep_whole_lines(mini: Mini, server: FakeServer, folder: Path):
    server.controller.script = lambda _, after: iter(
        [
            step(1, "starting", "begin"),
            said(2, "Listens on 3000, ignoring PORT (server.js:14)", "warning"),
            said(3, "healthy after 12 s", "info"),
            step(4, "healthy", "end", 12.4),
            said(5, "", "done"),
        ]
    )
    assert mini("deploy", ".", "blog").err.splitlines()[-3:] == [
        "[3/3] Starting container...",
        "      Warning: Listens on 3000, ignoring PORT (server.js:14)",
        "      Done.  (healthy after 12 s)",
    ]


def test_required_variables_are_demanded_before_anything_is_sent(mini: Mini, server: FakeServer, folder: Path):
    (folder / "app.json").write_text('{"env": {"API_KEY": {"required": true, "description": "of the shop"}}}')
    result = mini("deploy", ".", "blog", code=1)
    first, then = result.err.splitlines()[-2:]
    assert first == "Error: Not set, though the app requires it: API_KEY"
    assert then == "mini deploy --env-file FILE, or mini apps create blog, then mini env set API_KEY=… -a blog"
    assert server.controller.sources == []
    (folder / "values").write_text("API_KEY=1\n")
    mini("deploy", ".", "blog", "--env-file", "values")
    assert server.controller.options[-1].env == {"API_KEY": "1"}


@pytest.mark.parametrize("content", [{}, {".env": "A=1"}])
def test_nothing_to_deploy_is_said_before_any_server_is_asked(
    mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, str]
):
    monkeypatch.setenv("MINI_HOST", "http://127.0.0.1:1")
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    result = mini("deploy", str(tmp_path), "blog", code=1)
    assert "Error: Nothing to deploy: " in result.err and "Cannot reach" not in result.err


def test_a_home_folder_is_not_deployed_by_mistake(mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "is not the folder of an app" in mini("deploy", str(tmp_path), "blog", code=1).err


def test_ctrl_c_leaves_the_deploy_going_on_and_says_so(server: FakeServer, folder: Path):
    def script(controller: FakeController, after: int) -> Iterator[api.DeployEvent]:
        yield from (event for event in STORY[:6] if event.seq > after)
        controller.go_on.wait(30)

    server.controller.script = script
    command = [sys.executable, "-m", "mini_core.cli.main", "deploy", ".", "blog"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr
    seen = ""
    while "Successfully installed" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=20)
    server.controller.go_on.set()
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "Deploy 41 goes on. Follow: mini deploys attach 41"
    assert "Traceback" not in rest


def test_ctrl_c_while_packing_says_that_nothing_was_sent(
    mini: Mini, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mini_core.cli.deploy.pack", interrupted)
    assert mini("deploy", ".", "blog", code=130).err.splitlines()[-1] == "Stopped before it was sent."
    assert server.controller.sources == []


def test_no_colour_and_no_progress_where_there_is_no_terminal(mini: Mini, server: FakeServer, folder: Path):
    server.controller.script = lambda _, after: iter([said(0, "50 %", "progress"), *STORY])
    result = mini("deploy", ".", "blog")
    assert "50 %" not in result.err and not re.search(r"\x1b|\r", result.err + result.out)


def test_the_key_is_nowhere_in_the_output(mini: Mini, server: FakeServer, folder: Path):
    result = mini("deploy", ".", "blog")
    assert KEY not in result.out + result.err
