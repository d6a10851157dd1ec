"""What a user reads where the engine cannot be used."""

from __future__ import annotations

import gc
import os
import re
import socketserver
import threading
import warnings
from pathlib import Path

import pytest

from mini_core.errors import Cancelled, Unavailable
from mini_core.testing import RecordingJob, until
from mini_docker import engine as module
from mini_docker.checks import Checks
from mini_docker.engine import Engine
from mini_docker.runtime import DockerRuntime


@pytest.fixture(autouse=True)
def forgotten_sockets():
    """docker-py does not close the socket of a connection that failed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An engine at a socket of the test's own."""

    def make(name: str = "docker.sock") -> Engine:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / name}")
        return Engine()

    return make


def refused(engine: Engine) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        DockerRuntime(engine, "p").check()
    return caught.value


def test_an_engine_that_does_not_run_says_start_it(at, monkeypatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/docker")
    error = refused(at())
    assert error.message == "Docker is installed but not running"
    assert error.hint == module.START_IT
    assert re.fullmatch(r"start it( \(sudo systemctl start docker\))?, or mini up --runtime process", error.hint)


def test_a_socket_that_may_not_be_opened_says_which_group(at) -> None:
    error = module._unavailable(PermissionError(13, "Permission denied"))
    assert (error.message, error.hint) == ("docker.sock: permission denied", "sudo usermod -aG docker $USER")


def test_a_machine_without_docker_is_told_what_does_without(at, monkeypatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.Path, "exists", lambda self: False)
    error = refused(at())
    assert error.message == "Docker is not installed" and "mini up --runtime process" in error.hint
    [check] = Checks(at(), {})()
    assert check.state == "warning" and check.hint == error.hint


@pytest.mark.docker
def test_an_engine_that_was_away_is_found_again(at, engine: Engine, monkeypatch, tmp_path: Path) -> None:
    own = at("later.sock")
    refused(own)
    (tmp_path / "later.sock").symlink_to("/var/run/docker.sock")
    DockerRuntime(own, "p").check()


class SilentEngine(socketserver.StreamRequestHandler):
    """Says its version, and answers a POST when it is told to."""

    asked, answer = threading.Event(), threading.Event()

    def handle(self) -> None:
        while (line := self.rfile.readline()).strip():
            while self.rfile.readline().strip():
                pass
            if line.startswith(b"POST"):
                self.asked.set()
                self.answer.wait(20)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                return
            body = b'{"ApiVersion": "1.41"}'
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def test_waiting_for_an_answer_ends_with_the_job(at, tmp_path: Path) -> None:
    """A registry that does not answer keeps the engine from answering."""
    own, job = at("silent.sock"), RecordingJob()
    with socketserver.ThreadingUnixStreamServer(os.fspath(tmp_path / "silent.sock"), SilentEngine) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=lambda: (SilentEngine.asked.wait(20), job.cancelled.set()), daemon=True).start()
        with pytest.raises(Cancelled):
            list(own.stream("/images/create", {"fromImage": "x"}, job))
        SilentEngine.answer.set()
        until(lambda: "docker-post" not in [thread.name for thread in threading.enumerate()], what="the late answer")
        server.shutdown()
