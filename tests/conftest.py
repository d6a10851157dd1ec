"""What all tests share: tests that need an engine or a browser are skipped where there is none, saying so.

`MINI_REQUIRE=docker,browser,load` makes their absence an error instead: nothing must be skipped where they are there.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import MiniPlatform


def docker_socket() -> Path:
    host = os.environ.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://") if host.startswith("unix://") else "/var/run/docker.sock")


def no_docker() -> str:
    """Why no engine can be used, or ""."""
    path = docker_socket()
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(path))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return "" if b" 200 " in probe.recv(64) else f"the engine at {path} does not answer"
    except OSError as error:
        return f"no Docker Engine at {path} ({error.strerror})"


def no_browser() -> str:
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"{' and '.join(missing)} not installed" if missing else ""


def no_load() -> str:
    return "" if shutil.which("vegeta") else "vegeta, a load generator, is not installed"


NEEDS = {"docker": no_docker, "browser": no_browser, "load": no_load}


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    required = set(filter(None, os.environ.get("MINI_REQUIRE", "").split(",")))
    for name, check in NEEDS.items():
        concerned = [item for item in items if item.get_closest_marker(name)]
        reason = check() if concerned or name in required else ""
        if reason and name in required:
            raise pytest.UsageError(f"MINI_REQUIRE has {name}: {reason}")
        if reason:
            for item in concerned:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def make_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], MiniPlatform]]:
    """Makes platforms of the module's own, by runtime; they are taken down and purged afterwards."""
    made: list[MiniPlatform] = []

    def make(runtime: str) -> MiniPlatform:
        made.append(MiniPlatform(tmp_path_factory.mktemp("home"), runtime))
        made[-1].up()
        made[-1].remember_id()
        return made[-1]

    yield make
    for platform in made:
        platform.mini("down", "--purge", "--yes", check=False, timeout=120)
        shutil.rmtree(platform.home, ignore_errors=True)
