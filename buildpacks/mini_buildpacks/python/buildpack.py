"""The Python buildpack: puts together what the other modules find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mini_buildpacks import elsewhere
from mini_buildpacks.python import assets, hooks, system
from mini_buildpacks.python.code import Code
from mini_buildpacks.python.django import Django, collectstatic, environment, find_django, migrations
from mini_buildpacks.python.envreads import SECRETS, reads
from mini_buildpacks.python.managers import Install, install
from mini_buildpacks.python.project import LOCKS, PYLOCK, Project, read_project
from mini_buildpacks.python.pyversion import python_toolchain
from mini_buildpacks.python.start import Start, choose_server, mentions, missing_servers, start
from mini_core.errors import MiniError, PlanError
from mini_core.interfaces import Source
from mini_core.types import (
    BuildSettings,
    EnvEntry,
    Evidence,
    Offer,
    Plan,
    ProcessType,
    Strength,
    Toolchain,
    replace,
)

_PYTHON_COMMAND = re.compile(
    r"(?:^|[\s;&|(/])(?:python[0-9.]*|gunicorn|uvicorn|hypercorn|daphne|waitress-serve|granian|uwsgi|flask|fastapi|"
    r"streamlit|celery|poetry|pipenv|pdm|uv|django-admin|sanic|chainlit)(?:\s|$)"
)
_INNER = ("requirements.txt", "pyproject.toml", "Pipfile", "setup.py", "package.json", "go.mod")
_MANIFESTS = ("requirements.txt", "pyproject.toml", "Pipfile", "setup.py", "setup.cfg", PYLOCK, *LOCKS)

_CONDA = ("environment.yml", "environment.yaml", "conda-lock.yml")


class PythonBuildpack:
    """Installs with the project's own package manager and starts what the code or the Procfile says."""

    name = "python"
    description = (
        "requirements.txt, pyproject.toml, uv.lock, poetry.lock, pdm.lock, pylock.toml, Pipfile, setup.py, "
        "or a *.py file"
    )

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        if not _relevant(source):
            return None
        try:
            return _detect(source, settings)
        except MiniError as error:
            error.strength = _strength_of_files(source)  # type: ignore[attr-defined]
            raise


def _relevant(source: Source) -> bool:
    names = (*_MANIFESTS, *_CONDA)
    return any(source.has(name) for name in names) or any(path.endswith(".py") for path in source.files())


def _strength_of_files(source: Source) -> Strength:
    """How surely a source that could not be read to the end is Python's."""
    if any(source.read(name) is not None for name in LOCKS):
        return Strength.PROJECT
    return Strength.MANIFEST if any(source.has(name) for name in (*_MANIFESTS, *_CONDA)) else Strength.LOOSE


@dataclass(frozen=True)
class Commands:
    """Processes that files in the repository give, as shell lines too. replaces: what is detected is not started."""

    processes: tuple[ProcessType, ...] = ()
    lines: tuple[str, ...] = ()
    replaces: bool = False


def _detect(source: Source, settings: BuildSettings) -> Offer | None:
    project = read_project(source)
    if not project.manager:
        _refuse_conda(source)
    code = Code(source, () if project.manager else _inner_projects(source))
    commands = _commands(source, settings)
    django = find_django(source, code, project)
    found = _start(source, code, project, settings, django)
    found = found if found is not None else _from_elsewhere(source)
    strength = _strength(source, project, commands, found)
    if strength is None:
        return None
    toolchain, version_notes = python_toolchain(source, settings, project)
    extra = (*_unlisted(project, found), *_extra(project, commands, found))
    keep = _keeps_tool(source, project, commands, found)
    installed = install(source, project, extra, keep_tool=keep, python=toolchain.version)
    plan = _plan(source, settings, project, django, found, commands, toolchain, installed)
    plan = replace(
        plan,
        warnings=(
            *_unlisted_note(project, found),
            *project.warnings,
            *version_notes,
            *installed.warnings,
            *plan.warnings,
        ),
    )
    if found is not None and found.framework:
        plan = assets.combine(source, settings, plan)
    if keep:
        plan = replace(plan, env=(*plan.env, *_tool_env(project.manager)))
    return Offer(buildpack="python", strength=strength, reason=_reason(project, found), plan=plan)


def _refuse_conda(source: Source) -> None:
    """Raises PlanError where the dependencies are written for conda only: they are not all on PyPI."""
    file = next((name for name in _CONDA if re.search(r"(?m)^(?:dependencies|package):", source.text(name) or "")), "")
    if file:
        raise PlanError(
            f"{file} is conda's, which is not supported: no requirements.txt or pyproject.toml says what to install",
            hint="List the packages in a requirements.txt for pip, or add a Dockerfile that installs with conda.",
            code="not-supported",
        )


def _inner_projects(source: Source) -> tuple[str, ...]:
    """Folders with a manifest of their own: without one in the root, what is in them is not the root's."""
    inner = [path for name in _INNER for path in source.glob(f"*/{name}") + source.glob(f"*/*/{name}")]
    return tuple(sorted({path.rpartition("/")[0] for path in inner}))


def _commands(source: Source, settings: BuildSettings) -> Commands:
    processes = list(settings.processes)
    from_procfile = any(item.name != "release" and item.source == "Procfile" for item in processes)
    if not from_procfile and not any(item.name == "web" for item in processes):
        entrypoint = elsewhere.app_engine(source, "python")
        if entrypoint is not None:
            command = ("sh", "-c", f"exec {entrypoint.line}")
            processes.append(ProcessType(name="web", command=command, source=entrypoint.file))
    return Commands(
        processes=tuple(processes),
        lines=tuple(item.command[-1] for item in processes),
        replaces=from_procfile or any(item.name == "web" for item in processes),
    )


def _from_elsewhere(source: Source) -> Start | None:
    """Another platform's start command, where nothing was detected."""
    command = elsewhere.other_platforms(source)
    if command is None or not _PYTHON_COMMAND.search(command.line):
        return None
    return Start(
        processes=(ProcessType(name="web", command=("sh", "-c", command.line), source=command.file),),
        label=f"start command from {command.file}",
        evidence=(Evidence(file=command.file, detail=command.line),),
    )


def _strength(source: Source, project: Project, commands: Commands, found: Start | None) -> Strength | None:
    python_command = any(_PYTHON_COMMAND.search(line) for line in commands.lines)
    scripts = any(path.endswith(".py") for path in source.files())
    if project.manager:
        entry = (found is not None and found.certain) or python_command
        if not project.dependencies and not entry and not project.lock and not _installs(project):
            return Strength.MANIFEST if project.manifest != "pyproject.toml" or found else Strength.LOOSE
        return Strength.PROJECT if project.lock or entry else Strength.MANIFEST
    if python_command and scripts:
        return Strength.PROJECT
    if found is not None:
        return Strength.LOOSE
    return Strength.LOOSE if any(path.endswith(".py") and "/" not in path for path in source.files()) else None


def _installs(project: Project) -> bool:
    return bool(project.table("project") or project.table("tool", "poetry"))


def _reason(project: Project, found: Start | None) -> str:
    files = project.lock or project.manifest
    if not files:
        return f"has {found.evidence[0].file}" if found and found.evidence else "has Python files"
    return f"has {files}" + (f" and {found.evidence[0].file}" if found and found.evidence else "")


# --- starting --------------------------------------------------------------------------------------------------


def _start(
    source: Source, code: Code, project: Project, settings: BuildSettings, django: Django | None
) -> Start | None:
    if django is not None:
        return _django_start(project, django)
    return start(source, code, project, settings)


def _django_start(project: Project, django: Django) -> Start:
    target, factory = (django.target, False) if django.target else ("django.core.wsgi:get_wsgi_application", True)
    server = choose_server(project, "asgi" if django.asgi else "wsgi", target, factory=factory, folder=django.folder)
    database = migrations(django)
    line = f"{database.before_start}; exec {server.command}" if database.before_start else f"exec {server.command}"
    if database.before_start and not database.before_start.startswith("["):
        line = f"{database.before_start} && exec {server.command}"
    processes = [ProcessType(name="web", command=("sh", "-c", line))]
    processes += [database.release] if database.release else []
    env = [*server.env, *environment(django)]
    if not django.target:
        env.append(EnvEntry(name="DJANGO_SETTINGS_MODULE", value=django.settings))
    if django.folder and server.name in ("waitress", "hypercorn", "daphne", "granian"):
        env.append(EnvEntry(name="PYTHONPATH", value=django.folder))
    return Start(
        processes=tuple(processes),
        framework="django",
        label=f"Django → {server.name}",
        extra=server.extra,
        env=tuple(env),
        evidence=django.evidence,
        warnings=tuple(_django_warnings(project, django)),
    )


def _django_warnings(project: Project, django: Django) -> Iterator[str]:
    text = django.text()
    serves = re.search(r"whitenoise|dj_static|storages\.backends|nginx", text)
    debug = re.search(r"(?m)^DEBUG\s*=\s*True", text)
    if "django.contrib.staticfiles" in text and not serves and not debug:
        yield "Django's static files are served by nobody: add whitenoise to the middleware"
    elif "whitenoise" in text and not project.has("whitenoise"):
        yield f"the settings use whitenoise, which {project.manifest or 'no requirements.txt'} does not list"


def _extra(project: Project, commands: Commands, found: Start | None) -> tuple[str, ...]:
    """What to install besides: for what is started, which the repository's own commands decide where it has any."""
    needed = missing_servers(project, commands.lines)
    if commands.replaces or found is None:
        return needed
    return tuple(dict.fromkeys((*found.extra, *needed)))


_DISTRIBUTIONS = {"fasthtml": "python-fasthtml", "socket.io": "python-socketio"}


def _unlisted(project: Project, found: Start | None) -> tuple[str, ...]:
    """The framework itself, where no file lists dependencies at all."""
    if project.manager or found is None or not found.framework:
        return ()
    return (_DISTRIBUTIONS.get(found.framework, found.framework),)


def _unlisted_note(project: Project, found: Start | None) -> tuple[str, ...]:
    names = _unlisted(project, found)
    file = found.evidence[0].file if found is not None and found.evidence else "the code"
    return tuple(
        f"no requirements.txt: {name} is installed, as {file} uses it; what else it imports is not" for name in names
    )


def _keeps_tool(source: Source, project: Project, commands: Commands, found: Start | None) -> bool:
    """Whether the running app calls its package manager: in a command (`poetry run`), or in the code it starts."""
    if project.manager in ("", "pip"):
        return False
    texts = [*commands.lines, source.text("app.json") or ""]
    texts += [source.text(item.file) or "" for item in (found.evidence if found else ()) if item.file.endswith(".py")]
    return mentions(texts, project.manager)


def _tool_env(manager: str) -> tuple[EnvEntry, ...]:
    """So that `uv run` and `pipenv run` use what was built instead of changing it."""
    given = {
        "uv": {"UV_NO_SYNC": "1", "UV_PYTHON_DOWNLOADS": "never"},
        "pipenv": {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_VERBOSITY": "-1"},
        "poetry": {"POETRY_VIRTUALENVS_IN_PROJECT": "true"},
    }.get(manager, {})
    return tuple(EnvEntry(name=name, value=text) for name, text in given.items())


# --- the plan --------------------------------------------------------------------------------------------------


def _plan(
    source: Source,
    settings: BuildSettings,
    project: Project,
    django: Django | None,
    found: Start | None,
    commands: Commands,
    toolchain: Toolchain,
    installed: Install,
) -> Plan:
    steps = list(installed.steps)
    static = collectstatic(source, django, settings) if django is not None else None
    if static is not None:
        steps = hooks.before_tidy(steps, static)
    steps = hooks.added(source, steps)
    build, run = system.packages(project, gis=django is not None and "django.contrib.gis" in django.text())
    started = found or Start()
    label = started.label
    if commands.replaces:
        label = started.label.partition(" → ")[0] if started.framework else ""
        given = next((item.source for item in commands.processes if item.name == "web"), "Procfile")
        label = f"{label} · started by {given}" if label else f"started by {given}"
    return Plan(
        buildpack="python",
        toolchains=(toolchain,),
        runtime="python",
        package_manager=project.manager,
        framework=started.framework,
        summary=tuple(part for part in (project.manager, label) if part),
        evidence=(*project.evidence, *_version_evidence(toolchain), *started.evidence, *system.evidence(project)),
        steps=tuple(steps),
        packages=build,
        runtime_packages=run,
        bin=installed.bin,
        env=tuple(_environment(source, started, django)),
        processes=_processes(started, commands),
        port=started.port,
        health=started.health,
        warnings=started.warnings,
    )


def _processes(started: Start, commands: Commands) -> tuple[ProcessType, ...]:
    """App Engine's entrypoint counts as detected; Procfile and mini.toml are put on top when the plan is made."""
    entrypoint = [item for item in commands.processes if item.source == "app.yaml"]
    if not entrypoint:
        return started.processes
    return (*entrypoint, *(item for item in started.processes if item.name != "web"))


def _version_evidence(toolchain: Toolchain) -> Iterator[Evidence]:
    file = toolchain.source.partition(" ")[0].rstrip(":")
    if "." in file or file == "Pipfile":
        yield Evidence(file=file, detail=f"Python {toolchain.version}")


def _environment(source: Source, started: Start, django: Django | None) -> Iterator[EnvEntry]:
    yield EnvEntry(name="PYTHONUNBUFFERED", value="1", description="log lines appear when they are written")
    names = set()
    for entry in started.env:
        if entry.name not in names:
            names.add(entry.name)
            yield entry
    if django is None:
        yield from _secrets(source, started, names)


def _secrets(source: Source, started: Start, known: set[str]) -> Iterator[EnvEntry]:
    """Secrets that the module with the application, or a config.py beside it, reads from the environment."""
    code = Code(source)
    main = [item.file for item in started.evidence if item.file.endswith(".py")]
    folders = {path.rpartition("/")[0] for path in main} | {""}
    paths = [
        *main,
        *(f"{folder}/{name}".lstrip("/") for folder in sorted(folders) for name in ("config.py", "settings.py")),
    ]
    for path in dict.fromkeys(paths):
        module = code.module(path)
        for read in reads(module) if module is not None else ():
            if read.name not in known and (read.target == "SECRET_KEY" or read.name in SECRETS):
                known.add(read.name)
                yield EnvEntry(name=read.name, kind="generated", description=f"read in {path}:{read.line}")
