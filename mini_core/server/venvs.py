"""Environments of the versions that were installed, and the link to the one in force."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from mini_core import __version__
from mini_core.errors import MiniError
from mini_core.plugins import COMMAND_GROUP, DISTRIBUTION, GROUP
from mini_core.server.layout import Layout


class InstallError(MiniError):
    code = "install"


def create_command(venv: Path, uv: str | None) -> list[str]:
    """Makes an environment with the Python that runs now."""
    base = getattr(sys, "_base_executable", sys.executable)
    if uv:
        return [uv, "venv", "--quiet", "--python", base, str(venv)]
    return [base, "-m", "venv", str(venv)]


def install_command(venv: Path, requirements: Iterable[str], uv: str | None) -> list[str]:
    python = str(venv / "bin" / "python")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", python, *requirements]
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]


def build(layout: Layout, requirement: str, plugins: Iterable[str] = ()) -> Path:
    """A new environment with mini and the plugins in it, not in force yet. Raises InstallError."""
    layout.venvs.mkdir(mode=0o755, parents=True, exist_ok=True)
    venv = layout.venvs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    uv = find_uv()
    try:
        run(create_command(venv, uv))
        run(install_command(venv, [requirement, *plugins], uv))
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    return venv


def find_uv() -> str | None:
    """uv, many times faster than pip, where it is: beside this Python, or on PATH."""
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


def run(command: list[str]) -> str:
    """What the command printed. Raises InstallError with its last lines."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, umask=0o022, check=False)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-10:]
        raise InstallError(f"{Path(command[0]).name} failed (exit code {done.returncode})", tail=tail)
    return done.stdout


def in_force(layout: Layout) -> Path | None:
    try:
        return layout.prefix / layout.current.readlink()
    except OSError:
        return None


def switch(layout: Layout, venv: Path) -> None:
    """Puts an environment in force, in one step."""
    new = layout.prefix / f".current.{os.getpid()}"
    new.unlink(missing_ok=True)
    new.symlink_to(venv.relative_to(layout.prefix))
    new.replace(layout.current)


def prune(layout: Layout, keep: Iterable[Path | None]) -> None:
    """Removes environments but those to keep: the one in force, and the one to go back to."""
    kept = {path.resolve() for path in keep if path is not None}
    for venv in layout.venvs.iterdir():
        if venv.resolve() not in kept:
            shutil.rmtree(venv, ignore_errors=True)


# --- what is installed here


def own_requirement() -> str:
    """What pip is to be given to install this very version again."""
    for dist in distributions():
        if canonicalize_name(dist.name) == DISTRIBUTION:
            return _requirement(dist)
    return f"{DISTRIBUTION}=={__version__}"


def plugin_requirements() -> tuple[str, ...]:
    """The third-party packages with plugins or commands in this environment."""
    found = {
        canonicalize_name(dist.name): _requirement(dist)
        for dist in distributions()
        if any(point.group in (GROUP, COMMAND_GROUP) for point in dist.entry_points)
    }
    return tuple(requirement for name, requirement in sorted(found.items()) if name != DISTRIBUTION)


def _requirement(dist: Distribution) -> str:
    """`name==version`, or the file it was installed from (direct_url.json, PEP 610)."""
    origin = json.loads(dist.read_text("direct_url.json") or "{}")
    url = urlsplit(origin.get("url", ""))
    path = Path(unquote(url.path))
    if url.scheme == "file" and path.exists():
        return str(path)
    return f"{dist.name}=={dist.version}"
