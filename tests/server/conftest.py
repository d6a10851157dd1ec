from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_controller import FakeController
from server_kit import Platform

from mini_core.paths import Paths, find_paths, private_folder
from mini_core.server.daemon import Server
from mini_core.settings import Settings


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a path short enough for sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="mini-test-"))
    monkeypatch.setenv("MINI_HOME", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def paths(home: Path) -> Paths:
    return find_paths()


@pytest.fixture
def platform(paths: Paths) -> Iterator[Platform]:
    private_folder(paths.data)
    private_folder(paths.run)
    controller = FakeController(Settings(upload=2_000_000), paths)
    server = Server(controller)
    server.start()
    yield Platform(controller, server, paths)
    server.close()
