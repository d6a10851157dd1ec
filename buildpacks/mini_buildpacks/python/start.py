"""How a Python app is started: the server for the application object that was found, or the script.

A server that the project brings is used; one is added only where an application needs it and none is there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mini_buildpacks.python.code import SCRIPT_STEMS, STEMS, App, Code, Interface
from mini_buildpacks.python.project import Project, table
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, EnvEntry, Evidence, Health, ProcessType

ADDRESS = "${HOST:-0.0.0.0}"
PORT = "$PORT"

NO_HEALTH = Health()

BRINGS_UVICORN = ("python-fasthtml", "nicegui", "chainlit", "gradio", "fastapi-cli", "mcp", "fastmcp", "modal")
"""Packages that depend on uvicorn, for projects whose requirements list only direct dependencies."""


@dataclass(frozen=True)
class Start:
    """processes, and what they need: requirements to add, variables, a health path. label: "Flask → gunicorn"."""

    processes: tuple[ProcessType, ...] = ()
    framework: str = ""
    label: str = ""
    extra: tuple[str, ...] = ()
    env: tuple[EnvEntry, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    health: Health = NO_HEALTH
    port: int | None = None
    warnings: tuple[str, ...] = ()
    certain: bool = True


# --- servers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """command: a shell line that starts `target` ("module:variable"). extra: what has to be installed for it."""

    name: str
    command: str
    extra: tuple[str, ...] = ()
    env: tuple[EnvEntry, ...] = ()


def choose_server(project: Project, interface: Interface, target: str, *, factory: bool, folder: str) -> Server:
    """The server for an application. folder: where its imports start, "" for the app's folder."""
    if interface == "asgi":
        return _asgi(project, target, factory=factory, folder=folder)
    return _wsgi(project, target, factory=factory, folder=folder)


FORWARDED = EnvEntry(name="FORWARDED_ALLOW_IPS", value="*", description="only the router reaches the app")
"""gunicorn and uvicorn believe X-Forwarded-* from these addresses only."""


def _wsgi(project: Project, target: str, *, factory: bool, folder: str) -> Server:
    called = f"{target}()" if factory else target
    chdir = f" --chdir {folder}" if folder else ""
    if not project.has("gunicorn"):
        if project.has("uwsgi"):
            path = f" --chdir {folder}" if folder else ""
            options = "--master --need-app --die-on-term --processes ${WEB_CONCURRENCY:-2} --threads 4"
            return Server("uWSGI", f"uwsgi --http-socket {ADDRESS}:{PORT}{path} --module '{called}' {options}")
        if project.has("waitress"):
            call = " --call" if factory else ""
            return Server("waitress", f"waitress-serve --listen={ADDRESS}:{PORT}{call} {target}")
        if project.has("granian"):
            flag = " --factory" if factory else ""
            line = f"granian --interface wsgi --host {ADDRESS} --port {PORT}{flag} {target}"
            return Server("granian", line)
    workers = "1" if project.has("flask-socketio", "python-socketio") else "2"
    threads = "100" if workers == "1" else "4"
    line = (
        f"gunicorn --bind {ADDRESS}:{PORT} --workers ${{WEB_CONCURRENCY:-{workers}}} --threads {threads} "
        f"--access-logfile -{_stops(project)}{chdir} {_quoted(called)}"
    )
    return Server("gunicorn", line, _gunicorn_extra(project), (FORWARDED,))


def _stops(project: Project) -> str:
    """gunicorn 25 and 26 wait for idle keep-alive connections as for requests when they stop, for 30 s: longer than
    anyone waits before SIGKILL."""
    gunicorn = project.get("gunicorn")
    return " --graceful-timeout 8" if gunicorn and re.match(r"2[56]\b", gunicorn.pinned()) else ""


def _gunicorn_extra(project: Project) -> tuple[str, ...]:
    """gunicorn where it is missing. Before version 21 it imports pkg_resources, which setuptools 81 dropped."""
    gunicorn = project.get("gunicorn")
    if gunicorn is None:
        return ("gunicorn",)
    pinned = gunicorn.pinned()
    old = re.match(r"(\d+)", pinned) if pinned else re.search(r"<\s*=?\s*(\d+)", gunicorn.spec)
    is_old = bool(old) and int(old[1]) <= (20 if pinned else 21)  # type: ignore[index]
    return ("setuptools<81",) if is_old and not project.has("setuptools") else ()


def _asgi(project: Project, target: str, *, factory: bool, folder: str) -> Server:
    if not _has_uvicorn(project):
        called = f"{target}()" if factory else target
        if project.has("hypercorn") or (project.has("quart") and not project.has("gunicorn")):
            return Server("hypercorn", f"hypercorn --bind {ADDRESS}:{PORT} --access-logfile - {_quoted(called)}")
        if project.has("daphne") and not factory:
            return Server("daphne", f"daphne -b {ADDRESS} -p {PORT} {target}")
        if project.has("granian"):
            flag = " --factory" if factory else ""
            return Server("granian", f"granian --interface asgi --host {ADDRESS} --port {PORT}{flag} {target}")
    extra = () if _has_uvicorn(project) else ("uvicorn[standard]",)
    flags = " --factory" if factory else ""
    flags += f" --app-dir {folder}" if folder else ""
    return Server("uvicorn", f"uvicorn --host {ADDRESS} --port {PORT}{flags} {target}", extra, (FORWARDED,))


def _has_uvicorn(project: Project) -> bool:
    fastapi = project.get("fastapi")
    if fastapi is not None and fastapi.extras & {"standard", "all"}:
        return True
    litestar = project.get("litestar")
    if litestar is not None and "standard" in litestar.extras:
        return True
    return project.has("uvicorn", "uvicorn-worker", *BRINGS_UVICORN)


def _quoted(target: str) -> str:
    return f"'{target}'" if "(" in target else target


# --- applications ----------------------------------------------------------------------------------------------


def start(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:
    """The start that the source suggests, Django apart. None where nothing is found to be started."""
    for attempt in (_flask_app, _streamlit, _chainlit, _agents, _application, _scripts, _script, _module_main):
        found = attempt(source, code, project, settings)
        if found is not None:
            return found
    return None


def served(code: Code, project: Project, app: App) -> Start:
    """The start of an application object by the right server."""
    folder, module = code.import_root(app.path)
    target = f"{module}:{app.name}"
    server = choose_server(project, app.interface, target, factory=app.factory, folder=folder)
    env = server.env
    if folder and server.name in ("waitress", "hypercorn", "daphne", "granian"):
        env = (*env, EnvEntry(name="PYTHONPATH", value=folder))
    detail = f"{app.framework} application {app.name}" + ("()" if app.factory else "")
    return Start(
        processes=(ProcessType(name="web", command=("sh", "-c", f"exec {server.command}")),),
        framework=app.framework.lower() if app.framework not in ("WSGI", "ASGI") else "",
        label=f"{app.framework} → {server.name}",
        extra=server.extra,
        env=env,
        evidence=(Evidence(file=app.path, line=app.line, detail=detail),),
        health=health_of(code, app.path),
    )


def _application(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    """The likeliest application object: an instance before a factory, in the likeliest module."""
    best: App | None = None
    for app in code.apps():
        if app.framework == "Django":
            continue
        if app.interface == "own":
            own = _own(code, project, app)
            if own is not None:
                return own
            continue
        if not app.factory:
            return _noted(served(code, project, app), app)
        best = best or app
    return _noted(served(code, project, best), best) if best is not None else None


def _noted(found: Start, app: App) -> Start:
    """With a remark where the module's name does not say that it is the one to start."""
    if app.path.rpartition("/")[2].removesuffix(".py") in STEMS:
        return found
    note = f"{app.path} is started, for it has a {app.framework} application; a Procfile chooses another"
    return replace(found, warnings=(*found.warnings, note))


def _flask_app(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:
    """FLASK_APP, in the environment or in `.flaskenv`: Flask's own way to say where the application is."""
    match = re.search(r"(?m)^\s*(?:export\s+)?FLASK_APP\s*=\s*[\"']?([\w./:()]+)", source.text(".flaskenv") or "")
    given = settings.env.get("FLASK_APP") or (match[1] if match else "")
    name, _, variable = given.partition(":")
    if not name:
        return None
    path = name if name.endswith(".py") else f"{name.replace('.', '/')}.py"
    if source.read(path) is None:
        path = f"{name.replace('.', '/')}/__init__.py"
    apps = [app for app in code.apps_in(path) if not variable or app.name == variable.removesuffix("()")]
    return served(code, project, apps[0]) if apps else None


def _own(code: Code, project: Project, app: App) -> Start | None:
    """Frameworks that serve themselves."""
    evidence = (Evidence(file=app.path, line=app.line, detail=f"{app.framework} application {app.name}"),)
    folder, module = code.import_root(app.path)
    line = ""
    if app.framework == "Dash":
        return None if app.factory else _dash(code, project, app)
    if app.framework == "Sanic" and not app.factory:
        line = f"sanic {module}:{app.name} --host {ADDRESS} --port {PORT}"
        env = (EnvEntry(name="PYTHONPATH", value=folder),) if folder else ()
        return _web(app.framework, line, evidence, env=env)
    if app.framework == "Gradio":
        line = f"GRADIO_SERVER_NAME={ADDRESS} GRADIO_SERVER_PORT={PORT} exec python {app.path}"
        return _web("Gradio", line, evidence, bare=True)
    if not app.factory or _main_guard(code, app.path):
        return _web(app.framework, f"python {app.path}", evidence, port=literal_port(code, app.path))
    return None


def _dash(code: Code, project: Project, app: App) -> Start | None:
    """Dash's server is a Flask application, by convention `server = app.server`; without it, the script."""
    module = code.module(app.path)
    for other in code.apps_in(app.path):
        if other.framework == "Dash" and other.interface == "wsgi":
            return served(code, project, other)
    if module is None:
        return None
    evidence = (Evidence(file=app.path, line=app.line, detail=f"Dash application {app.name}"),)
    line = f"HOST={ADDRESS} exec python {app.path}"
    return _web("Dash", line, evidence, bare=True, port=literal_port(code, app.path))


def _web(
    framework: str,
    line: str,
    evidence: tuple[Evidence, ...],
    *,
    env: tuple[EnvEntry, ...] = (),
    bare: bool = False,
    port: int | None = None,
    health: Health = NO_HEALTH,
) -> Start:
    command = ("sh", "-c", line if bare else f"exec {line}")
    return Start(
        processes=(ProcessType(name="web", command=command),),
        framework=framework.lower(),
        label=framework,
        env=env,
        evidence=evidence,
        port=port,
        health=health,
    )


def _streamlit(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    path = _importing(code, "streamlit", ("streamlit_app", "app", "main", "Home", "home", "dashboard"))
    if path is None:
        return None
    options = f"--server.port {PORT} --server.address {ADDRESS} --server.headless true --browser.gatherUsageStats false"
    evidence = (Evidence(file=path, detail="imports streamlit"),)
    return _web("Streamlit", f"streamlit run {path} {options}", evidence, health=Health(path="/_stcore/health"))


def _chainlit(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    path = _importing(code, "chainlit", ("app", "main", "chainlit_app"))
    if path is None:
        return None
    line = f"chainlit run {path} --host {ADDRESS} --port {PORT} --headless"
    return _web("Chainlit", line, (Evidence(file=path, detail="imports chainlit"),))


def _agents(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    """Google's Agent Development Kit: folders with an agent.py, served by its own command."""
    agents = source.glob("*/agent.py")
    if not project.has("google-adk") or not agents or any(code.apps()):
        return None
    line = f"adk api_server --host {ADDRESS} --port {PORT}"
    return _web("ADK", line, (Evidence(file=agents[0], detail="agent"),))


def _importing(code: Code, name: str, stems: tuple[str, ...]) -> str | None:
    """The likeliest module that imports a package: by its own name's order, then by depth."""
    found = [path for path in code.files if path.count("/") <= 1 and code.imports(path, name)]
    found = [path for path in found if "pages/" not in path]

    def rank(path: str) -> tuple[int, int, str]:
        stem = path.rpartition("/")[2].removesuffix(".py")
        return path.count("/"), stems.index(stem) if stem in stems else len(stems), path

    return min(found, key=rank, default=None)


# --- scripts ---------------------------------------------------------------------------------------------------

_WEB_SCRIPTS = ("start", "serve", "server", "web", "run", "app", "main")


def _scripts(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    """`[project.scripts]` or Poetry's: one named like a start, or the only one there is."""
    found = dict(table(project.pyproject, "project", "scripts")) or dict(
        table(project.pyproject, "tool", "poetry", "scripts")
    )
    names = [name for name in _WEB_SCRIPTS if name in found] or (list(found) if len(found) == 1 else [])
    for name in names:
        target = found[name]
        if isinstance(target, str) and re.fullmatch(r"[\w.]+:[\w.]+", target):
            return _entry_point(source, code, name, target)
    return None


def _entry_point(source: Source, code: Code, name: str, target: str) -> Start | None:
    """An entry point by its function, which works whether or not the project is installed."""
    module, _, function = target.partition(":")
    stem = module.replace(".", "/")
    paths = [f"{base}{stem}{end}" for base in ("", "src/") for end in (".py", "/__init__.py")]
    path = next((item for item in paths if source.read(item) is not None), None)
    if path is None:
        return None
    kind = "web" if code.serves(path) else "worker"
    call = f"import sys; from {module} import {function.partition('.')[0]}; sys.exit({function}())"
    env = (EnvEntry(name="PYTHONPATH", value="src"),) if path.startswith("src/") else ()
    return Start(
        processes=(ProcessType(name=kind, command=("python", "-c", call), source=f"pyproject.toml scripts.{name}"),),
        label=f"script {name}",
        env=env,
        evidence=(Evidence(file="pyproject.toml", detail=f"script {name} = {target}"),),
        port=literal_port(code, path) if kind == "web" else None,
    )


def _script(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    path = _script_path(source, code)
    if path is None:
        return None
    special = _self_serving(code, path)
    if special is not None:
        return special
    kind = "web" if code.serves(path) else "worker"
    return Start(
        processes=(ProcessType(name=kind, command=("python", "-u", path)),),
        label=f"python {path}",
        evidence=(Evidence(file=path, detail="answers requests" if kind == "web" else "script"),),
        port=literal_port(code, path) if kind == "web" else None,
        certain=path.rpartition("/")[2].removesuffix(".py") in SCRIPT_STEMS[:10],
    )


def _self_serving(code: Code, path: str) -> Start | None:
    """Scripts whose library takes its address from the environment, or has a command of its own."""
    module = code.module(path)
    text = module.text if module is not None else ""
    if code.imports(path, "gradio") and ".launch(" in text:
        line = f"GRADIO_SERVER_NAME={ADDRESS} GRADIO_SERVER_PORT={PORT} exec python {path}"
        return _web("Gradio", line, (Evidence(file=path, detail="imports gradio"),), bare=True)
    if code.imports(path, "panel") and ".servable(" in text:
        line = f"panel serve {path} --address {ADDRESS} --port {PORT} --allow-websocket-origin='*'"
        return _web("Panel", line, (Evidence(file=path, detail="imports panel"),))
    if code.imports(path, "nicegui"):
        evidence = (Evidence(file=path, detail="imports nicegui"),)
        return _web("NiceGUI", f"python {path}", evidence, port=literal_port(code, path) or 8080)
    return None


def _script_path(source: Source, code: Code) -> str | None:
    """A script by its name; else the only one in the root; else the only one with a main guard."""
    for folder in ("", "src/", "app/"):
        for stem in SCRIPT_STEMS:
            path = f"{folder}{stem}.py"
            if stem != "__main__" and source.read(path) is not None:
                return path
    root = [path for path in code.files if "/" not in path and path != "__init__.py"]
    if len(root) == 1:
        return root[0]
    guarded = [path for path in root if _main_guard(code, path)]
    return guarded[0] if len(guarded) == 1 else None


def _main_guard(code: Code, path: str) -> bool:
    module = code.module(path)
    return module is not None and bool(re.search(r"(?m)^if\s+__name__\s*==", module.text))


def _module_main(source: Source, code: Code, project: Project, settings: BuildSettings) -> Start | None:  # noqa: ARG001
    """A package with `__main__.py`, started as `python -m PACKAGE`."""
    name = str(project.table("project").get("name", ""))
    names = (f"{name}/", f"{name.replace('-', '_')}/")
    found = sorted(
        (path for path in source.files() if re.fullmatch(r"(?:src/)?[A-Za-z_][\w-]*/__main__\.py", path)),
        key=lambda path: (not path.removeprefix("src/").startswith(names), path),
    )
    found = [path for path in found if not re.match(r"(?:src/)?(?:tests?|docs?|examples?)/", path)]
    if not found:
        return None
    package = found[0].removeprefix("src/").partition("/")[0]
    kind = "web" if code.serves(found[0]) else "worker"
    env = (EnvEntry(name="PYTHONPATH", value="src"),) if found[0].startswith("src/") else ()
    return Start(
        processes=(ProcessType(name=kind, command=("python", "-m", package)),),
        label=f"python -m {package}",
        env=env,
        evidence=(Evidence(file=found[0], detail="package that can be run"),),
    )


# --- details ---------------------------------------------------------------------------------------------------

_HEALTH = re.compile(
    r"""@\w+(?:\.\w+)*\.(?:get|route|api_route)\(\s*["'](/(?:healthz|health|livez|up|_health|health/live))/?["']\s*([^)\n]*)\)"""
)
_PORT = re.compile(r"""(?x) \bport \s*=\s* (\d{2,5}) \b | (?:\(\s*["'][\w.:]*["']\s*,\s*(\d{2,5})\s*\)) """)


def health_of(code: Code, path: str) -> Health:
    """A route that is there to say that the app is well, where the module with the application has one."""
    module = code.module(path)
    match = _HEALTH.search(module.text) if module is not None else None
    if match and ("methods" not in match[2] or "GET" in match[2]):
        return Health(path=match[1])
    return Health()


def literal_port(code: Code, path: str) -> int | None:
    """The port that a script names itself, unless it reads PORT."""
    module = code.module(path)
    if module is None or re.search(r"[\"']PORT[\"']", module.text):
        return None
    match = _PORT.search(module.text)
    number = int(match[1] or match[2]) if match else 0
    return number if 0 < number < 65536 else None


def missing_servers(project: Project, lines: Sequence[str]) -> tuple[str, ...]:
    """Requirements for the servers that commands use and the project does not list."""
    needed: list[str] = []
    if mentions(lines, "gunicorn"):
        needed += _gunicorn_extra(project)
    if any(re.search(r"\buvicorn\b", line) for line in lines) and not _has_uvicorn(project):
        needed.append("uvicorn[standard]")
    for command, name in (("hypercorn", "hypercorn"), ("daphne", "daphne"), ("waitress-serve", "waitress")):
        if mentions(lines, command) and not project.has(name):
            needed.append(name)
    return tuple(needed)


def mentions(texts: Sequence[str], tool: str) -> bool:
    """Whether a command uses a tool, so that the running app must have it."""
    return any(re.search(rf"(?:^|[\s;&|\"'/\[(]){tool}(?:[\s\"'\])]|$)", text) for text in texts)
