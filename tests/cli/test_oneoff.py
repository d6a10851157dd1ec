"""`mini run` and `mini exec`: a command on the server with the streams of this terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core import api
from mini_core.errors import StartError
from mini_core.interfaces import OneOff
from mini_core.paths import private_folder
from mini_core.server.daemon import Server
from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeController
from tests.server.fake_controller import LocalCommand

MINI = [sys.executable, "-m", "mini_core.cli.main"]


class Running(FakeController):
    """Runs commands on this machine."""

    asked: api.OneOffRequest

    def run(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        self.app(app, "")
        self.asked = request
        return LocalCommand(request)

    def start_run(self, app: str, request: api.OneOffRequest, actor: str) -> api.Started:
        self.asked = request
        return api.Started(name="run.1", id=f"{app}-v1-run-1-0")

    def stop_run(self, app: str, name: str, actor: str) -> None:
        assert (app, name) == ("blog", "run.1")

    def exec(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        return self.run(app, request, actor)


@pytest.fixture
def controller(home: Path) -> Iterator[Running]:
    """The local platform, with the app blog."""
    from mini_core.paths import find_paths
    from mini_core.server import state

    paths = find_paths()
    private_folder(paths.data)
    private_folder(paths.run)
    found = Running(paths)
    found.create_app(api.NewApp(name="blog"), "local", "")
    server = Server(found)
    server.start()
    running = state.Running(pid=os.getpid(), version="0.1.0", port=80, url="http://localhost")
    state.save_running(paths, running)
    state.save_local(paths, state.Local())
    yield found
    server.close()


def typed(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*MINI, *arguments], input=stdin, capture_output=True, timeout=30)


def test_output_and_exit_code_are_the_commands(controller: Running):
    done = typed("run", "-a", "blog", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert controller.asked.command == ("sh", "-c", "echo out; echo err >&2; exit 7")
    assert not controller.asked.tty


def test_options_after_the_command_are_the_commands(controller: Running):
    assert typed("run", "-a", "blog", "echo", "-a", "--json", "x").stdout == b"-a --json x\n"


def test_what_is_piped_in_goes_there_whole(controller: Running):
    data = os.urandom(3_000_000)
    assert typed("run", "-a", "blog", "cat", stdin=data).stdout == data


def test_variables_travel_in_clear_and_exec_names_a_process(controller: Running):
    assert (
        typed("exec", "-a", "blog", "-e", "TOKEN=s3cret", "--process", "web.2", "printenv", "TOKEN").stdout
        == b"s3cret\n"
    )
    assert controller.asked.instance == "web.2"


def test_detached_returns_at_once(controller: Running):
    done = typed("run", "-a", "blog", "--detach", "sleep", "100")
    said = "Started run.1 of blog.\nIts output and its end: mini logs blog --process run.1 -f\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", said)
    assert json.loads(typed("run", "-a", "blog", "--detach", "--json", "true").stdout)["name"] == "run.1"
    stopped = typed("stop", "blog", "--process", "run.1")
    assert (stopped.returncode, stopped.stderr) == (0, b"Stopped run.1 of blog.\n")


def test_a_single_argument_with_spaces_is_a_line_for_the_shell(controller: Running):
    assert typed("run", "-a", "blog", "echo one two | wc -w").stdout.strip() == b"2"
    assert controller.asked.command == ("sh", "-c", "echo one two | wc -w")


def test_ctrl_c_goes_to_the_command(controller: Running):
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    command = [*MINI, "run", "-a", "blog", "--", "sh", "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (5, b"caught\n", b"")


def test_an_app_that_is_not_there_is_two_lines(controller: Running):
    done = typed("run", "-a", "nope", "true")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["Error: No app nope", "See which there are: mini apps"]


def test_a_terminal_is_passed_through_with_its_size_and_what_was_typed_ahead(controller: Running):
    import pty

    def in_terminal() -> bytes:
        parent, child = pty.openpty()
        environment = {**os.environ, "LINES": "33", "COLUMNS": "111"}
        command = [*MINI, "run", "-a", "blog", "--", "sh", "-c", "read x; echo got $x"]
        process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
        os.close(child)
        os.write(parent, b"typed\n")
        seen = b""
        while b"got typed" not in seen:
            seen += os.read(parent, 1000)
        process.wait(20)
        os.close(parent)
        return seen

    assert b"got typed" in in_terminal()
    assert (controller.asked.tty, controller.asked.rows, controller.asked.columns) == (True, 33, 111)


def test_a_wrong_variable_is_wrong_usage(mini: Mini):
    assert "Expected KEY=VALUE" in mini("run", "-a", "blog", "-e", "X", "--", "true", code=2).err


def test_a_command_that_is_not_there_ends_with_127_as_in_a_shell(controller: Running, monkeypatch: pytest.MonkeyPatch):
    def run(*_: object) -> OneOff:
        raise StartError("nosuch: command not found", code="command-not-found")

    monkeypatch.setattr(controller, "run", run)
    done = typed("run", "-a", "blog", "--", "nosuch")
    assert (done.returncode, done.stderr) == (127, b"Error: nosuch: command not found\n")
