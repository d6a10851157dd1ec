from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mini_core.cli import main
from mini_core.paths import find_paths, private_folder
from tests.cli.fake_platform import KEY, FakeController, FakeServer


@dataclass
class Result:
    code: int
    out: str
    err: str


class Mini:
    """`mini(...)` runs a command in this process, with nobody at a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: str = "", code: int | None = 0) -> Result:
        out, err = io.StringIO(), io.StringIO()
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = main.run(list(arguments))
        if code is not None:
            assert ended == code, out.getvalue() + err.getvalue()
        return Result(ended, out.getvalue(), err.getvalue())


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh MINI_HOME, short enough for sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="mini-cli-"))
    monkeypatch.setenv("MINI_HOME", str(folder))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("MINI_HOST", "MINI_APP", "MINI_API_KEY", "MINI_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def mini(home: Path, monkeypatch: pytest.MonkeyPatch) -> Mini:
    return Mini(monkeypatch)


@pytest.fixture
def controller(home: Path) -> FakeController:
    paths = find_paths()
    private_folder(paths.data)
    return FakeController(paths)


@pytest.fixture
def server(controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that is chosen, with its key."""
    running = FakeServer(controller)
    monkeypatch.setenv("MINI_HOST", running.url)
    monkeypatch.setenv("MINI_API_KEY", KEY)
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app's folder, which is the current one."""
    place = tmp_path / "my-app"
    place.mkdir()
    (place / "app.py").write_text("print('hello')\n")
    monkeypatch.chdir(place)
    return place
