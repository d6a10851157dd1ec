"""The command starts fast and loads only what was asked for."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

MINI = str(Path(sys.executable).with_name("mini"))
HEAVY = (
    "flask",
    "docker",
    "dataset",
    "sqlalchemy",
    "waitress",
    "pluggy",
    "pathspec",
    "urllib3",
    "requests",
    "yaml",
    "asyncio",
    "dataclasses",
    "sqlite3",
)


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def test_help_takes_at_most_1_3_times_as_long_as_importing_click():
    """In turns, so that whatever else the machine does slows both alike."""
    rounds = [(seconds([MINI, "--help"]), seconds([sys.executable, "-c", "import click"])) for _ in range(20)]
    ours, click = (statistics.median(times) for times in zip(*rounds, strict=True))
    least = min(first for first, _ in rounds) / min(second for _, second in rounds)
    ratio = min(ours / click, least)
    print(f"mini --help {ours * 1000:.0f} ms, import click {click * 1000:.0f} ms, ratio {ratio:.2f}")
    assert ratio <= 1.3


def loaded_by(home: Path, *arguments: str) -> set[str]:
    """Top-level and mini_core modules that a command loads."""
    code = f"""
import json, sys
from mini_core.cli import main
code = main.run({list(arguments)!r})
json.dump([code, sorted(sys.modules)], sys.stderr)
"""
    env = {**os.environ, "MINI_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    code_, modules = json.loads(done.stderr.splitlines()[-1])
    assert code_ == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["version"], ["config", "show"], ["deploy", "--help"], ["logs", "--help"]]
)
def test_a_command_loads_neither_server_nor_engine_nor_store(home: Path, arguments: list[str]):
    modules = loaded_by(home, *arguments)
    assert not {name.split(".")[0] for name in modules} & set(HEAVY)
    others = ("mini_core.server", "mini_core.store", "mini_core.unpacking", "mini_core.manifest", "mini_docker")
    assert not [name for name in modules if name.startswith(others)]


def test_help_loads_no_command(home: Path):
    loaded = {name for name in loaded_by(home, "--help") if name.startswith("mini_core")}
    assert loaded == {"mini_core", "mini_core.cli", "mini_core.cli.main", "mini_core.cli.external"}


def test_durations_are_read_without_what_reads_files_of_a_repository(home: Path):
    code = "import sys; from mini_core.cli import params; print(params.duration('15m'), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("900.0 ")
    assert not {"mini_core.manifest", "json5", "difflib"} & set(done.stdout.split())


def test_packing_loads_what_reads_patterns_only_where_there_are_some(home: Path, tmp_path: Path):
    code = "import sys, pathlib, mini_core.archive as a; a.pack(*map(pathlib.Path, sys.argv[1:])); print(*sys.modules)"
    (tmp_path / "app").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "app"), str(tmp_path / "out")]
    for name, text, loaded in (("app.py", "x", False), (".gitignore", "# none\n", False), (".miniignore", "x\n", True)):
        (tmp_path / "app" / name).write_text(text)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("pathspec" in done.stdout.split()) == loaded, name


POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog")


def test_the_client_half_imports_without_what_only_posix_has(home: Path):
    code = f"""
import os, pathlib, sys
for name in {POSIX_ONLY!r}:
    sys.modules[name] = None
import subprocess, tempfile
for name in ("getuid", "geteuid", "getpwuid", "fork", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
import importlib, pkgutil, mini_core.archive, mini_core.cli, mini_core.client
for package in (mini_core.cli, mini_core.client):
    for item in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(item.name)
from mini_core.cli import main
sys.platform = "win32"
sys.exit(main.run(["apps", "list"]))
"""
    env = {**os.environ, "MINI_HOME": str(home), "MINI_HOST": "local"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: The local platform needs Linux or macOS: use WSL or mini config set-host",
        "mini config set-host https://HOST",
    ]
