"""How the app is started: a start script, what its framework says, or a file that is there to be run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mini_buildpacks.elsewhere import app_engine, other_platforms
from mini_buildpacks.node.app import App, Outcome, quoted
from mini_buildpacks.node.package import table
from mini_buildpacks.node.scripts import is_dev_server, is_watcher, runs
from mini_core.types import StaticSite, Value

_OWN_SERVERS = {
    "next": ("next", "start"),
    "nuxt": ("nuxt", "start"),
    "nest": ("nest", "start"),
    "react-router": ("react-router-serve",),
    "remix": ("remix-serve",),
}
"""Frameworks' own servers, which can't serve what was built as a site."""
_PRODUCTION = ("start:prod", "start:production", "start-prod", "start:server", "serve:prod", "production", "prod")
_STEMS = ("server", "index", "app", "main", "src/server", "src/index", "src/app", "src/main", "bin/www", "www")
_TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
_BUILT = re.compile(r"(?:^|/)(?:dist|build|lib|out|output|\.output|bin|compiled|public|server)/")


class Start(Value):
    """command: argv, or static: a site. source: where that is from. Both empty: there is nothing to start."""

    command: tuple[str, ...] = ()
    static: StaticSite | None = None
    source: str = ""
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.command) or self.static is not None


def choose_start(app: App, outcome: Outcome | None) -> Start:
    """In this order: App Engine's entrypoint; a start script that serves; the framework's site or server; a file;
    what another platform is told; a start script that is a development server, with a warning."""
    entrypoint = app_engine(app.source, "nodejs") if not app.folder else None
    if entrypoint:
        return Start(command=("sh", "-c", entrypoint.line), source=entrypoint.file)
    scripts = app.package.scripts
    line = scripts.get("start", "")
    script = Start(command=app.manager.run("start", app.folder), source=f"{app.package.file} scripts.start")
    if line and not is_dev_server(line, scripts) and not _worse(line, app, outcome):
        if not is_watcher(line, scripts):
            return script
        return _production(app) or _with(
            script, f"the start script runs a file watcher ({line}): slower, for development"
        )
    if outcome and outcome.static:
        return Start(static=outcome.static, source=outcome.title)
    found = _production(app)
    if found:
        return found
    if outcome and outcome.start:
        return Start(command=outcome.start, source=outcome.title)
    found = _file(app) or _elsewhere(app)
    if found or not line:
        return found
    return _with(script, f"the start script is a development server ({line}): add one that serves what was built")


def _with(start: Start, warning: str) -> Start:
    return Start(command=start.command, source=start.source, warnings=(warning,))


def _worse(line: str, app: App, outcome: Outcome | None) -> bool:
    """Whether the framework knows a better start than this script, which says the same in other words."""
    words = _OWN_SERVERS.get(outcome.framework) if outcome else None
    if outcome is None or words is None or (outcome.static is None and not outcome.own_start):
        return False
    return runs(line, *words, scripts=app.package.scripts)


def _production(app: App) -> Start:
    name = next((name for name in _PRODUCTION if name in app.package.scripts), "")
    if not name:
        return Start()
    return Start(command=app.manager.run(name, app.folder), source=f"{app.package.file} scripts.{name}")


def _file(app: App) -> Start:
    """The `main` of package.json, or a file with a usual name."""
    for field in ("module", "main") if app.manager.name == "bun" else ("main",):
        entry = _main(app, app.package.string(field).removeprefix("./"))
        if entry:
            return Start(command=_run(app, entry), source=f"{app.package.file} {field}")
    for stem in _STEMS:
        for extension in (".js", ".mjs", ".cjs", "", *_TYPESCRIPT):
            if extension or stem.endswith("www"):
                file = f"{stem}{extension}"
                if app.path(file) in _files(app):
                    return Start(command=_run(app, compiled(app, file) or file), source="detected")
    return Start()


def _elsewhere(app: App) -> Start:
    """PM2's process file, or what Railway, nixpacks or Render are told."""
    pm2 = quoted(app.config("ecosystem.config", "pm2.config"), "script") or _script(app.json("process.json"))
    entry = _main(app, pm2.removeprefix("./"))
    if entry:
        return Start(command=_run(app, entry), source="PM2's process file")
    told = other_platforms(app.source) if not app.folder else None
    return Start(command=("sh", "-c", told.line), source=told.file) if told else Start()


def _script(process: Mapping[str, Any]) -> str:
    apps = process.get("apps")
    first = apps[0] if isinstance(apps, list) and apps else process
    return str(table(first).get("script") or "")


def _files(app: App) -> frozenset[str]:
    return frozenset(app.source.files())


def _main(app: App, main: str) -> str:
    """The file that `main` means, "" where it is neither there nor made by the build."""
    if not main:
        return ""
    files = _files(app)
    for candidate in (main, f"{main}.js", f"{main}.cjs", f"{main}.mjs", f"{main.rstrip('/')}/index.js"):
        if app.path(candidate) in files:
            return compiled(app, candidate) or candidate
    stem = re.sub(r"\.[cm]?js$", "", main)
    made = _BUILT.search(main) or any(app.path(stem + extension) in files for extension in _TYPESCRIPT)
    return main if made and builds(app) else ""


def builds(app: App) -> bool:
    """Whether a script makes files: one that builds, or one that runs after the install."""
    scripts = app.package.scripts
    return bool(app.build_script) or any(
        runs(scripts.get(name, ""), program, scripts=scripts)
        for name in ("install", "postinstall", "prepare")
        for program in ("tsc", "babel", "swc", "esbuild", "tsup")
    )


def _run(app: App, file: str) -> tuple[str, ...]:
    if app.manager.name != "bun" and file.endswith(_TYPESCRIPT):
        for tool in ("tsx", "ts-node"):
            if app.dep(tool):
                return app.manager.exec(tool, app.path(file))
    return app.manager.node(app.path(file))


def compiled(app: App, file: str) -> str:
    """What the TypeScript compiler makes of a file, "" where nothing is compiled."""
    if not file.endswith(_TYPESCRIPT) or not any(_compilers(app)):
        return ""
    options = table(app.json("tsconfig.json"), "compilerOptions")
    if options.get("noEmit"):
        return ""
    out = str(options.get("outDir") or "").removeprefix("./").strip("/")
    stem = re.sub(r"\.([cm]?)tsx?$", r".\1js", file)
    root = str(options.get("rootDir") or "").removeprefix("./").strip("/")
    if not root and out and "/" in stem and not _typescript_outside(app, stem.split("/", 1)[0]):
        root = stem.split("/", 1)[0]
    if out and root and stem.startswith(f"{root}/"):
        stem = stem[len(root) + 1 :]
    return f"{out}/{stem}" if out and out != "." else stem


def _compilers(app: App) -> Iterator[bool]:
    scripts = app.package.scripts
    for name in (app.build_script, "postinstall", "prepare", "install"):
        yield bool(name) and runs(scripts.get(name, ""), "tsc", scripts=scripts)


def _typescript_outside(app: App, folder: str) -> bool:
    """Whether sources lie elsewhere too: then the compiler keeps the folder's name in its output."""
    prefix = app.path("") if app.folder else ""
    inside = app.path(folder) + "/"
    return any(
        file.endswith(_TYPESCRIPT) and not file.endswith(".d.ts") and not file.startswith(inside)
        for file in app.source.files()
        if (not prefix or file.startswith(f"{prefix}/")) and "node_modules/" not in file and not _CONFIG.search(file)
    )


_CONFIG = re.compile(r"\.config\.[cm]?ts$|(?:^|/)(?:tests?|__tests__|e2e|scripts)/|\.(?:test|spec)\.tsx?$")
