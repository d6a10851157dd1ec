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


SYSTEM_PYTHON = Path("/usr/bin/python3")
_USABLE = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"


def base_python() -> Path:
    """The Python that environments are made from: the one that this one was made from."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def shared_python(candidates: Iterable[Path]) -> Path:
    """The first that every user of this machine can execute, of version 3.11 or newer. Raises InstallError.

    One below /root, where uv and pyenv put theirs for root, is out of reach for the user that services run as.
    """
    candidates = tuple(candidates)
    for python in candidates:
        if open_to_others(python) and not subprocess.run([python, "-c", _USABLE], capture_output=True).returncode:
            return python
    raise InstallError(
        f"No Python 3.11 that services can use: {', '.join(map(str, candidates))}",
        hint="apt install python3 python3-venv, then try again.",
    )


def open_to_others(path: Path) -> bool:
    """Whether users that have no part in the file can pass to it and execute it."""
    if not path.exists():
        return False
    given, real = path.absolute(), path.resolve()
    return all(item.stat().st_mode & 0o001 for item in (*given.parents, real, *real.parents))


def create_command(venv: Path, uv: str | None, base: Path) -> list[str]:
    """Makes an environment."""
    if uv:
        return [uv, "venv", "--quiet", "--python", str(base), str(venv)]
    return [str(base), "-m", "venv", str(venv)]


def install_command(venv: Path, requirements: Iterable[str], uv: str | None) -> list[str]:
    python = str(venv / "bin" / "python")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", python, *requirements]
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]


def build(layout: Layout, requirement: str, plugins: Iterable[str] = (), base: Path | None = None) -> Path:
    """A new environment with mini and the plugins in it, not in force yet. Raises InstallError."""
    layout.venvs.mkdir(mode=0o755, parents=True, exist_ok=True)
    venv = layout.venvs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    uv = find_uv()
    try:
        run(create_command(venv, uv, base or base_python()))
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
