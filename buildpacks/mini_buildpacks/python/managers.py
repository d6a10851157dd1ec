"""How each package manager installs a project into `.venv`: build steps as data.

Dependencies come first, from manifests alone, so that a change of code installs nothing again; then, where the
project is a package itself, the project. Lock files are binding: each tool is called so that it fails when its lock
file is out of date. The tools come from PyPI, into a virtual environment of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from mini_buildpacks.python.project import PYLOCK, PYPROJECT, Project, listed, read_toml, table
from mini_core.interfaces import Source
from mini_core.types import Cache, Step

VENV = ".venv"
TOOLS = ".mini/python"
"""Where package managers other than pip are installed, relative to the app's folder."""

LOCKED = ".mini/requirements.txt"
POETRY_2 = "poetry>=2,<3"
PIP_CACHE = Cache(name="pip", variable="PIP_CACHE_DIR")
UV_CACHE = Cache(name="uv", variable="UV_CACHE_DIR")
UV_ENV = {"UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1"}
PIP_ENV = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_ROOT_USER_ACTION": "ignore"}


@dataclass(frozen=True)
class Install:
    """steps, and the folders that go on PATH. package: the project itself is installed. tool: what ran."""

    steps: tuple[Step, ...] = ()
    bin: tuple[str, ...] = ()
    package: bool = False
    warnings: tuple[str, ...] = ()


def install(source: Source, project: Project, extra: tuple[str, ...], *, keep_tool: bool, python: str) -> Install:
    """extra: requirements to add, such as a server that the project does not bring. keep_tool: leave the package
    manager in place for the running app. python: the version or range that was chosen."""
    if project.manager in ("", "pip"):
        return _pip(source, project, extra)
    if project.manager == "poetry" and not project.lock and project.portable:
        return _poetry_unlocked(source, project, extra, keep_tool=keep_tool)
    plans = {"uv": _uv, "pdm": _pdm, "pipenv": _pipenv}
    tool = _tool(source, project, python)
    main = _poetry(source, project, tool[0]) if project.manager == "poetry" else plans[project.manager](source, project)
    files = project.files or (project.manifest,)
    steps = [_venv(files), _tool_step(tool, files), *main.steps, *_extra(extra, files)]
    if not keep_tool:
        steps.append(Step(name="tidy", argv=("rm", "-rf", TOOLS), files=() if _whole(steps) else files))
    return Install(tuple(steps), _folders(keep_tool), main.package, main.warnings)


def _folders(keep_tool: bool) -> tuple[str, ...]:
    return (f"{VENV}/bin", f"{TOOLS}/bin") if keep_tool else (f"{VENV}/bin",)


def _whole(steps: list[Step]) -> bool:
    return any(not step.files for step in steps)


def _venv(files: tuple[str, ...]) -> Step:
    return Step(name="venv", argv=("python", "-m", "venv", VENV), files=files)


def _tool_step(requirements: tuple[str, ...], files: tuple[str, ...]) -> Step:
    """Into a virtual environment of its own, so that nothing of the tool's mixes with what the app needs; `.venv`'s
    pip does it, which saves the time to set up another."""
    line = f"python -m venv --without-pip {TOOLS} && pip --python {TOOLS}/bin/python install {shlex.join(requirements)}"
    return Step(name="tools", argv=("sh", "-c", line), files=files, caches=(PIP_CACHE,), env=PIP_ENV, secrets=False)


def _pip_step(name: str, arguments: tuple[str, ...], files: tuple[str, ...]) -> Step:
    return Step(name=name, argv=("pip", "install", *arguments), files=files, caches=(PIP_CACHE,), env=PIP_ENV)


def _extra(extra: tuple[str, ...], files: tuple[str, ...]) -> Iterator[Step]:
    """The server that the app lacks. `.venv` has pip whatever the manager, for `python -m venv` made it."""
    if extra:
        argv = ("python", "-m", "pip", "install", *extra)
        yield Step(name="server", argv=argv, files=files, caches=(PIP_CACHE,), env=PIP_ENV)


# --- pip -------------------------------------------------------------------------------------------------------


def _pip(source: Source, project: Project, extra: tuple[str, ...]) -> Install:
    if not project.manager:
        return Install((_venv(()), *_extra(extra, ())) if extra else (), (f"{VENV}/bin",) if extra else ())
    files = project.files
    if project.local or not files:  # folders of the repository are installed: all of it is needed
        files = ()
    folders = (f"{VENV}/bin",)
    if project.manifest == PYLOCK:
        return _pip_pylock(files, extra)
    if project.manifest in ("setup.py", "setup.cfg"):
        steps = (_venv(()), _pip_step("install", ("--editable", "."), ()), *_extra(extra, ()))
        return Install(steps, folders, package=True)
    if project.manifest == PYPROJECT:
        return _pip_pyproject(source, project, extra)
    steps = (_venv(files), _pip_step("install", ("-r", project.manifest), files), *_extra(extra, files))
    return Install(steps, folders)


def _pip_pylock(files: tuple[str, ...], extra: tuple[str, ...]) -> Install:
    """By uv, as pip's own support is new and experimental (26.1)."""
    argv = (f"{TOOLS}/bin/uv", "pip", "install", "--python", f"{VENV}/bin/python", "--requirement", PYLOCK)
    steps = (
        _venv(files),
        _tool_step(("uv",), files),
        Step(
            name="install", argv=argv, files=files, caches=(UV_CACHE,), env={**UV_ENV, "UV_PREVIEW_FEATURES": "pylock"}
        ),
        *_extra(extra, files),
        Step(name="tidy", argv=("rm", "-rf", TOOLS), files=files),
    )
    return Install(steps, (f"{VENV}/bin",))


def _pip_pyproject(source: Source, project: Project, extra: tuple[str, ...]) -> Install:
    """A pyproject.toml without a lock. Its dependencies are installed by themselves: building the project too would
    fail for one that is no package but only lists them (setuptools refuses several top-level folders)."""
    settings = project.table("project")
    dependencies = tuple(listed(settings.get("dependencies")))
    package = bool(settings) and _is_package(source, project)
    if "dependencies" in listed(settings.get("dynamic")):
        whole = (_venv(()), _pip_step("install", ("--editable", "."), ()), *_extra(extra, ()))
        return Install(whole, (f"{VENV}/bin",), package=True)
    files = (PYPROJECT,)
    steps = [_venv(files)]
    if dependencies:
        steps.append(_pip_step("install", dependencies, files))
    steps += _extra(extra, files)
    if package:
        steps.append(_pip_step("package", ("--no-deps", "--editable", "."), ()))
    warning = "pyproject.toml has no lock file: the newest versions that fit are installed"
    if not dependencies:
        warning = "pyproject.toml lists no dependencies: none are installed"
    return Install(tuple(steps), (f"{VENV}/bin",), package, (warning,))


def _is_package(source: Source, project: Project) -> bool:
    """Whether a project is to be installed itself: it says how it is built, and what it would install is there."""
    if "build-system" not in project.pyproject:
        return False
    name = str(project.table("project").get("name") or project.table("tool", "poetry").get("name") or "")
    explicit = any(
        project.table("tool", *path)
        for path in (("setuptools",), ("hatch", "build"), ("poetry", "packages"), ("pdm", "build"), ("flit",))
    )
    return explicit or bool(project.table("tool", "poetry").get("packages")) or _has_package(source, name)


def _has_package(source: Source, name: str) -> bool:
    stem = canonicalize_name(name).replace("-", "_") if name else ""
    names = {stem, name, name.replace("-", "_")} - {""}
    return any(
        source.has(path)
        for item in names
        for path in (
            f"{item}/__init__.py",
            f"src/{item}/__init__.py",
            f"{item}.py",
            f"src/{item}.py",
            f"{item}",
            f"src/{item}",
        )
    )


# --- uv --------------------------------------------------------------------------------------------------------


def _uv(source: Source, project: Project) -> Install:  # noqa: ARG001
    """`uv sync --locked` fails on a lock file that does not match. `.venv` is there already and is used."""
    env, cache = UV_ENV, (UV_CACHE,)
    locked = ("--locked",) if project.lock else ()
    # --inexact: uv would remove the pip that `python -m venv` brought
    base = (f"{TOOLS}/bin/uv", "sync", *locked, "--no-dev", "--inexact")
    warnings = () if project.lock else ("there is no uv.lock: the newest versions that fit are installed",)
    package = _uv_package(project)
    if project.local:
        return Install((Step(name="install", argv=base, caches=cache, env=env),), package=package, warnings=warnings)
    early = Step(name="install", argv=(*base, "--no-install-workspace"), files=project.files, caches=cache, env=env)
    if not package and not project.table("tool", "uv", "workspace"):
        return Install((early,), warnings=warnings)
    return Install((early, Step(name="package", argv=base, caches=cache, env=env)), package=package, warnings=warnings)


def _uv_package(project: Project) -> bool:
    """uv installs a project that has a build system, unless `tool.uv.package` says otherwise."""
    given = project.table("tool", "uv").get("package")
    return given if isinstance(given, bool) else "build-system" in project.pyproject


# --- Poetry ----------------------------------------------------------------------------------------------------


def _poetry(source: Source, project: Project, version: str) -> Install:
    """Poetry says what its lock file holds, and fails where pyproject.toml has moved away from it; pip installs
    that, from its cache and with the locked hashes. Poetry itself installs the project, for its scripts."""
    tool = f"{TOOLS}/bin/poetry"
    package = _poetry_package(source, project)
    files = () if project.local else project.files
    if not project.lock:
        return _poetry_resolves(tool, files, package=package)
    legacy = re.search(r"<2$|==1", version)  # which exports from a stale lock file, with a warning
    check = f"{tool} lock --check && " if legacy else ""
    line = (
        f"{check}{tool} export --no-ansi --only main --output {LOCKED} && pip install --no-deps -r {LOCKED}"
        f" && rm {LOCKED}"
    )
    env = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_NO_INTERACTION": "1", "POETRY_WARNINGS_EXPORT": "false"}
    steps = [Step(name="install", argv=("sh", "-c", line), files=files, caches=(PIP_CACHE,), env={**env, **PIP_ENV})]
    if package:
        steps.append(Step(name="package", argv=(tool, "install", "--no-ansi", "--only-root"), env=env))
    return Install(tuple(steps), package=package)


def _poetry_resolves(tool: str, files: tuple[str, ...], *, package: bool) -> Install:
    """Without a lock file, and with dependencies that are written as only Poetry understands them."""
    env = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_NO_INTERACTION": "1"}
    cache = (Cache(name="poetry", variable="POETRY_CACHE_DIR"),)
    argv = (tool, "install", "--no-ansi", "--only", "main")
    steps = [Step(name="install", argv=(*argv, "--no-root"), files=files, caches=cache, env=env)]
    if package:
        steps.append(Step(name="package", argv=argv, caches=cache, env=env))
    warning = "there is no poetry.lock: the newest versions that fit are installed"
    return Install(tuple(steps), package=package, warnings=(warning,))


def _poetry_unlocked(source: Source, project: Project, extra: tuple[str, ...], *, keep_tool: bool) -> Install:
    """Without a lock file there is nothing that only Poetry knows: pip installs what pyproject.toml asks for."""
    files = (PYPROJECT,)
    steps = [_venv(files)]
    wanted = tuple(item.requirement() for item in project.dependencies.values() if item.file == PYPROJECT)
    if wanted:
        steps.append(_pip_step("install", wanted, files))
    steps += _extra(extra, files)
    package = "build-system" in project.pyproject and _poetry_package(source, project)
    if package:
        steps.append(_pip_step("package", ("--no-deps", "--editable", "."), ()))
    if keep_tool:
        steps.append(_tool_step((POETRY_2,), files))
    warning = "there is no poetry.lock: the newest versions that fit are installed"
    return Install(tuple(steps), _folders(keep_tool), package, (warning,) if wanted else ())


def _poetry_package(source: Source, project: Project) -> bool:
    poetry = project.table("tool", "poetry")
    if poetry.get("package-mode") is False:
        return False
    if poetry.get("packages"):
        return True
    name = str(project.table("project").get("name") or poetry.get("name") or "")
    return bool(name) and _has_package(source, name)


# --- PDM and Pipenv --------------------------------------------------------------------------------------------


def _pdm(source: Source, project: Project) -> Install:
    env = {"PDM_CHECK_UPDATE": "false", "PDM_NON_INTERACTIVE": "1", "PDM_IGNORE_SAVED_PYTHON": "1"}
    cache = (Cache(name="pdm", variable="PDM_CACHE_DIR"),)
    check = ("--check",) if project.lock else ()
    base = (f"{TOOLS}/bin/pdm", "install", "--prod", *check)
    warnings = () if project.lock else ("there is no pdm.lock: the newest versions that fit are installed",)
    package = _pdm_package(source, project)
    steps = [Step(name="install", argv=(*base, "--no-self"), files=project.files, caches=cache, env=env)]
    if package:
        steps.append(Step(name="package", argv=base, caches=cache, env=env))
    return Install(tuple(steps), package=package, warnings=warnings)


def _pdm_package(source: Source, project: Project) -> bool:
    given = project.table("tool", "pdm").get("distribution")
    return given is not False and "build-system" in project.pyproject and _is_package(source, project)


def _pipenv(source: Source, project: Project) -> Install:
    """`pipenv verify` fails on a lock file that the Pipfile has moved away from. It is left out where the hash says
    that they agree: releases since 2026 take what older ones locked for out of date, if the Pipfile has no source."""
    env = {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_NOSPIN": "1", "PIPENV_YES": "1", **PIP_ENV}
    caches = (Cache(name="pipenv", variable="PIPENV_CACHE_DIR"), PIP_CACHE)
    tool = f"{TOOLS}/bin/pipenv"
    files = () if project.local else project.files
    if project.lock:
        agrees = pipfile_hash(project.pipfile) == _locked_hash(source, project.lock)
        verify = ("sh", "-c", f"{tool} verify && {tool} sync")
        argv: tuple[str, ...] = (tool, "sync") if agrees else verify
        return Install((Step(name="install", argv=argv, files=files, caches=caches, env=env),))
    argv = (tool, "install", "--skip-lock")
    warning = "there is no Pipfile.lock: the newest versions that fit are installed"
    return Install((Step(name="install", argv=argv, files=files, caches=caches, env=env),), warnings=(warning,))


_PYPI = {"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": True}
_NO_CATEGORIES = ("source", "packages", "dev-packages", "requires", "scripts", "pipenv")


def pipfile_hash(pipfile: Mapping[str, object]) -> str:
    """The SHA-256 that Pipfile.lock keeps of its Pipfile (https://github.com/pypa/pipfile, `_meta.hash`)."""
    data = {
        "_meta": {"sources": pipfile.get("source", [_PYPI]), "requires": pipfile.get("requires", {})},
        "default": pipfile.get("packages", {}),
        "develop": pipfile.get("dev-packages", {}),
        **{name: item for name, item in pipfile.items() if name not in _NO_CATEGORIES},
    }
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _locked_hash(source: Source, lock: str) -> str:
    match = re.search(r'"sha256":\s*"([0-9a-f]{64})"', source.text(lock) or "")
    return match[1] if match else ""


# --- the tools -------------------------------------------------------------------------------------------------


def _tool(source: Source, project: Project, python: str) -> tuple[str, ...]:
    """The package manager as requirements for pip: the version that the project or its lock file asks for."""
    name = project.manager
    wanted = _pinned_tool(source, project, name)
    if name == "poetry":
        return wanted or _poetry_of_lock(source, project, python), "poetry-plugin-export"
    if name == "pdm":  # with the dependencies that its authors tested: newer ones of some have broken it
        return (f"pdm[locked]{wanted.removeprefix(name)}",)
    return (wanted or name,)


def _pinned_tool(source: Source, project: Project, name: str) -> str:
    required = {
        "uv": project.table("tool", "uv").get("required-version"),
        "poetry": project.table("tool", "poetry").get("requires-poetry"),
    }.get(name)
    if isinstance(required, str) and re.match(r"\s*[<>=~!]", required):
        return f"{name}{required.replace(' ', '')}"
    if isinstance(required, str) and re.match(r"\s*\d", required):
        return f"{name}=={required.strip()}"
    for line in (source.text(".tool-versions") or "").splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and words[0] == name and re.match(r"\d", words[1]):
            return f"{name}=={words[1]}"
    version = _mise_tool(source, name)
    return f"{name}=={version}" if version else ""


def _mise_tool(source: Source, name: str) -> str:
    for file in ("mise.toml", ".mise.toml"):
        given: object = table(_toml(source, file), "tools").get(name)
        if isinstance(given, Mapping):
            given = given.get("version")
        if isinstance(given, str) and re.match(r"\d", given):
            return given if given.count(".") >= 2 else f"{given}.*"
    return ""


def _toml(source: Source, file: str) -> Mapping[str, object]:
    try:
        return read_toml(source, file)
    except Exception:  # another tool's file: it does not concern the install if it is broken
        return {}


def _poetry_of_lock(source: Source, project: Project, python: str) -> str:
    """The major version that wrote the lock file: each may refuse or rewrite another's."""
    text = (source.text(project.lock) or "")[:400] if project.lock else ""
    match = re.search(r"generated by Poetry (\d+)\.", text)
    new = not project.lock or (match and int(match[1]) >= 2) or python.startswith(("3.14", "3.15"))
    return POETRY_2 if new else "poetry>=1.8.5,<2"
