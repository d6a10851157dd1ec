"""What a plan's toolchains become on this machine: interpreters and compilers that are installed already."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mini_core.errors import Unavailable
from mini_core.types import Toolchain, Value
from mini_core.versions import best, order, relax, satisfies

BARE = frozenset({"debian", "static"})
"""Toolchains that need nothing: the system itself, and mini's own file server."""
PROBE_SECONDS = 15
_NUMBER = re.compile(rb"\d+\.\d+(?:\.\d+)?(?:(?:a|b|rc)\d+|-rc\.\d+)?")
_PYTHON_NAME = re.compile(r"python3?(?:\.\d+)?")
# A Python that cannot make virtual environments (Debian's without python3-venv) is of no use.
_PYTHON_PROBE = "import ensurepip, venv, platform; print(platform.python_version())"

_PLACES: Mapping[str, tuple[str, ...]] = {
    "python": (
        "$PYENV_ROOT/versions/*/bin",
        "~/.pyenv/versions/*/bin",
        "~/.local/share/uv/python/*/bin",
        "~/.local/share/mise/installs/python/*/bin",
        "~/.asdf/installs/python/*/bin",
        "/opt/homebrew/opt/python@*/bin",
        "/usr/local/opt/python@*/bin",
    ),
    "node": (
        "~/.nvm/versions/node/*/bin",
        "~/.local/share/fnm/node-versions/*/installation/bin",
        "~/.local/share/mise/installs/node/*/bin",
        "~/.asdf/installs/nodejs/*/bin",
        "~/.volta/tools/image/node/*/bin",
        "/opt/homebrew/opt/node@*/bin",
        "/usr/local/opt/node@*/bin",
    ),
    "go": (
        "/usr/local/go/bin",
        "~/sdk/go*/bin",
        "~/.local/share/mise/installs/go/*/bin",
        "~/.asdf/installs/golang/*/go/bin",
        "/opt/homebrew/opt/go@*/bin",
        "/usr/lib/go-*/bin",
    ),
}
"""Where version managers and packages put them, besides PATH."""

_INSTALL: Mapping[str, str] = {
    "python": "install it (uv python install {version}, pyenv install {version}, or your system's packages)",
    "node": "install it (nvm install {version}, or https://nodejs.org)",
    "go": "install it (https://go.dev/dl)",
}


class Tool(Value):
    """An installed toolchain: its main executable and its version."""

    name: str
    version: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})"


class Choice(Value):
    """tool: what was chosen; None for a toolchain that needs nothing. warning: why it is not exactly what was asked."""

    tool: Tool | None
    warning: str = ""


def installed(name: str, extra: Sequence[str] = ()) -> tuple[Tool, ...]:
    """What this machine has of a toolchain, newest first. extra: more folders to look in."""
    paths = _candidates(name, extra)
    if not paths:
        return ()
    with ThreadPoolExecutor(max_workers=8) as pool:
        tools = [tool for tool in pool.map(functools.partial(_probe, name), paths) if tool]
    return tuple(sorted(tools, key=lambda tool: order(tool.version), reverse=True))


def resolve(wanted: Toolchain, extra: Sequence[str] = ()) -> Choice:
    """The newest installed version in the wanted range; for an exact pin that is not there, another patch release
    of it, with a warning; where nobody asked for a version, the newest there is. Raises Unavailable, saying what is
    missing, what is there and what would do."""
    if wanted.name in BARE:
        return Choice(tool=None)
    tools = installed(wanted.name, extra)
    if chosen := _fitting(wanted, wanted.version, tools):
        return Choice(tool=chosen)
    if wanted.source == "default" and tools:
        return Choice(
            tool=tools[0], warning=f"{wanted.name} {wanted.version} is not installed: using {tools[0].version}"
        )
    relaxed = relax(wanted.version, tool=wanted.name)
    if relaxed != wanted.version and (chosen := _fitting(wanted, relaxed, tools)):
        warning = f"{wanted.name} {wanted.version} ({wanted.source}) is not installed: using {chosen.version}"
        return Choice(tool=chosen, warning=warning)
    raise _missing(wanted, tools)


def _fitting(wanted: Toolchain, version: str, tools: Sequence[Tool]) -> Tool | None:
    chosen = best(version, [tool.version for tool in tools], tool=wanted.name)
    return next((tool for tool in tools if tool.version == chosen), None)


def _missing(wanted: Toolchain, tools: Sequence[Tool]) -> Unavailable:
    asked = f"{wanted.name} {wanted.version}".strip()
    source = f" (from {wanted.source})" if wanted.source and wanted.source != "default" else ""
    versions = sorted({tool.version for tool in tools}, key=order)
    there = f"installed: {', '.join(versions)}" if versions else f"no {wanted.name} is installed"
    install = _INSTALL.get(wanted.name, "install it").format(version=wanted.version or "")
    change = f", or change the version in {wanted.source}" if source and versions else ""
    return Unavailable(
        f"{asked}{source} is not on this machine; {there}",
        hint=f"To do: {install}{change}, or use Docker, which brings its own: mini up --runtime docker",
        code="toolchain-missing",
    )


def _candidates(name: str, extra: Sequence[str]) -> list[Path]:
    """Executables that may be the toolchain, each real file once. The shims of version managers are left out: what
    they start depends on the folder they are started in."""
    fits = _PYTHON_NAME.fullmatch if name == "python" else re.compile(re.escape(name)).fullmatch
    found: dict[Path, Path] = {}
    for folder in _folders(name, extra):
        for path in _executables(folder, fits):
            found.setdefault(path.resolve(), path)
    if name == "python":
        own = Path(getattr(sys, "_base_executable", sys.executable))
        found.setdefault(own.resolve(), own)
    return list(found.values())


def _folders(name: str, extra: Sequence[str]) -> Iterator[Path]:
    yield from map(Path, extra)
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if entry and "shims" not in Path(entry).parts and not _in_virtual_environment(Path(entry)):
            yield Path(entry)
    for pattern in _PLACES.get(name, ()):
        expanded = Path(os.path.expandvars(pattern)).expanduser()
        if "$" not in str(expanded):
            yield from sorted(Path(expanded.anchor).glob(str(expanded.relative_to(expanded.anchor))))


def _in_virtual_environment(folder: Path) -> bool:
    return (folder.parent / "pyvenv.cfg").exists()


def _executables(folder: Path, fits: Callable[[str], object]) -> Iterator[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if fits(entry.name))
    except OSError:
        return
    yield from (folder / name for name in names if os.access(folder / name, os.X_OK))


def _probe(name: str, path: Path) -> Tool | None:
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None
    version = _version(name, path, changed)
    return Tool(name=name, version=version, path=path) if version and satisfies(version, "") else None


@functools.lru_cache(maxsize=256)
def _version(name: str, path: Path, _changed: int) -> str:
    """What the executable says of its version, "" where it does not work. The file's time is an argument so
    that an upgrade is seen."""
    commands: dict[str, tuple[str, ...]] = {
        "python": ("-I", "-c", _PYTHON_PROBE),
        "go": ("env", "GOVERSION"),
    }
    argv = (str(path), *commands.get(name, ("--version",)))
    environment = {"PATH": os.defpath, "HOME": "/", "GOTOOLCHAIN": "local", "GO111MODULE": "on", "LANG": "C.UTF-8"}
    try:
        answer = subprocess.run(
            argv, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=PROBE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    number = _NUMBER.search(answer.stdout + b"\n" + answer.stderr)
    return number.group().decode() if number else ""


# --- commands on PATH


def expose(tools: Iterable[Tool], folder: Path) -> None:
    """Makes `folder/bin` with the toolchains' commands, and nothing else that happens to lie beside them."""
    target = folder / "bin"
    target.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        if tool.name == "python":
            _expose_python(tool, folder)
        else:
            for name in _COMMANDS.get(tool.name, (tool.name,)):
                path = tool.path.parent / name
                if os.access(path, os.X_OK):
                    _script(target / name, f'exec {shlex.quote(str(path))} "$@"')


_COMMANDS: Mapping[str, tuple[str, ...]] = {"node": ("node", "npm", "npx", "corepack"), "go": ("go", "gofmt")}


def _expose_python(tool: Tool, folder: Path) -> None:
    """A virtual environment of the build's own, so that `pip install poetry` does not change the machine. pip comes
    into it when it is first asked for, which takes two seconds."""
    own = folder / "python"
    subprocess.run(
        [tool.path, "-I", "-m", "venv", "--without-pip", own], check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    python, installer = (shlex.quote(str(own / "bin" / name)) for name in ("python", "pip"))
    pip = f"[ -e {installer} ] || {python} -I -m ensurepip --default-pip >/dev/null"
    minor = "python" + ".".join(tool.version.split(".")[:2])
    for name in ("python", "python3", minor):
        _script(folder / "bin" / name, f'[ "$1 $2" != "-m pip" ] || {{ {pip}; }} || exit\nexec {python} "$@"')
    for name in ("pip", "pip3"):
        _script(folder / "bin" / name, f'{pip} || exit\nexec {python} -m pip "$@"')


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)


def missing_packages(packages: Sequence[str]) -> tuple[str, ...]:
    """Debian packages of these that are not installed here; all of them where there is no dpkg to ask."""
    query = shutil.which("dpkg-query")
    if not packages or not query:
        return tuple(packages)
    answer = subprocess.run(
        [query, "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    there = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return tuple(name for name in packages if name not in there)
