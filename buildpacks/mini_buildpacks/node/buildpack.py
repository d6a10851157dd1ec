"""The Node buildpack: from package.json (or a lone server.js) to a plan."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mini_buildpacks.node.app import App, Outcome
from mini_buildpacks.node.building import build_steps, legacy_openssl
from mini_buildpacks.node.frameworks import library, recognise
from mini_buildpacks.node.install import install_steps
from mini_buildpacks.node.managers import TOOLS, Manager, choose_manager, tool_step
from mini_buildpacks.node.natives import natives
from mini_buildpacks.node.package import Package, read_package
from mini_buildpacks.node.runtime import NodeVersion, node_version
from mini_buildpacks.node.scripts import commands
from mini_buildpacks.node.start import Start, choose_start
from mini_buildpacks.node.tools import missing_tools
from mini_buildpacks.node.workspaces import Workspace, order_of_preference, read_workspace
from mini_buildpacks.pins import build_setting
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, EnvEntry, Evidence, Offer, Plan, ProcessType, Step, Strength, Value, replace

_LOOSE = ("server", "index", "app", "main")
_LOOSE_EXTENSIONS = (".js", ".mjs", ".cjs", ".ts")
_FOR_NODE = re.compile(
    r"\brequire\s*\(|\bfrom\s+['\"](?:node:|https?['\"]|fs['\"]|express['\"])|\bprocess\.|\bcreateServer\b|\.listen\s*\("
)
_OTHER_LANGUAGES = ("Gemfile", "composer.json", "mix.exs", "pom.xml", "build.gradle", "build.gradle.kts", "project.clj")
_FOR_ALL = re.compile(r"\b(?:turbo|lerna|nx)\b|(?:pnpm|yarn|npm)\s.*(?:\s-r\b|--recursive|workspaces\b|foreach)")


class NodeBuildpack:
    """Node and Bun apps, servers and sites."""

    name = "node"
    description = "package.json (or package.json5, package.yaml), server.js, index.js"

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        """An offer for anything with a package.json. Raises ConfigError where that can't be read."""
        package = read_package(source)
        if package is None:
            return _loose(source, settings)
        if settings.buildpack != self.name and _only_assets(source, package):
            return None
        return self._offer(source, read_workspace(source, package), settings)

    def detect_member(self, source: Source, path: str, settings: BuildSettings) -> Offer | None:
        """The package in a folder of a workspace; None where the root has no workspace with that folder."""
        root = read_package(source)
        if root is None:
            return None
        workspace = read_workspace(source, root)
        if not any(member.folder == path for member in workspace.members):
            return None
        return self._offer(source, workspace, replace(settings, env={**settings.env, "APP": path}))

    def _offer(self, source: Source, workspace: Workspace, settings: BuildSettings) -> Offer:
        version = node_version(source, workspace.root, settings)
        manager = choose_manager(source, workspace.root, settings, version.major())
        manager = replace(manager, any_node=version.source == "default")
        chosen = _choose(source, workspace, manager, version.major(), settings)
        plan = _plan(source, workspace, manager, version, chosen, settings)
        strength, reason = _strength(chosen, manager), _reason(chosen, manager)
        return Offer(buildpack=self.name, strength=strength, reason=reason, plan=plan)


class Chosen(Value):
    """The app of a repository, how it starts, and the others that could have been taken."""

    app: App
    outcome: Outcome | None
    start: Start
    others: tuple[str, ...] = ()


def _choose(source: Source, workspace: Workspace, manager: Manager, node_major: int, settings: BuildSettings) -> Chosen:
    """The package that is the app: the one asked for, the root if it starts, else the likeliest member."""

    def look(package: Package) -> Chosen:
        app = App(source=source, root=workspace.root, package=package, manager=manager, node_major=node_major)
        outcome = recognise(app)
        return Chosen(app=app, outcome=outcome, start=choose_start(app, outcome))

    wishes = [build_setting(settings, name) for name in ("APP", "TURBO_APP_NAME", "NX_APP_NAME")]
    asked = next((wish for wish in wishes if wish), None)
    named = workspace.named(asked.version) if asked else None
    if named:
        return look(named)
    root = look(workspace.root)
    if not workspace.members or (root.start and not _starts_all(workspace.root)):
        return root
    startable = [item for member in order_of_preference(workspace.members) if (item := look(member)).start]
    apps = [item for item in startable if item.outcome or item.start.source.endswith("scripts.start")]
    startable = apps or startable  # a file that could be run is most often a library's
    if not startable:
        return root
    return replace(startable[0], others=tuple(item.app.folder for item in startable[1:]))


def _only_assets(source: Source, package: Package) -> bool:
    """Whether the package belongs to an app in a language that is not known here (Laravel's or Rails' scripts and
    styles): to serve it as a site would be wrong."""
    return any(source.has(file) for file in _OTHER_LANGUAGES) and "start" not in package.scripts


def _starts_all(root: Package) -> bool:
    """Whether the root starts its members all at once, which can't share one port, or by a stray file only."""
    line = root.scripts.get("start", "")
    return bool(_FOR_ALL.search(line)) if line else not (root.string("main") or root.string("module"))


def _plan(
    source: Source,
    workspace: Workspace,
    manager: Manager,
    version: NodeVersion,
    chosen: Chosen,
    settings: BuildSettings,
) -> Plan:
    outcome, start = chosen.outcome, chosen.start
    packages = natives(source, (workspace.root, *workspace.members), manager.lock)
    processes = (ProcessType(name="web", command=start.command, source=start.source),) if start.command else ()
    alone = _bun_alone(source, workspace, manager, start)
    return Plan(
        buildpack="node",
        toolchains=(version.toolchain(),),
        runtime="" if alone or start.static else "node",
        package_manager=manager.label,
        framework=outcome.framework if outcome else library(chosen.app),
        summary=_summary(manager, chosen, settings),
        evidence=tuple(_evidence(workspace, manager, version, chosen)),
        steps=tuple(_steps(source, workspace, manager, chosen)),
        artifacts=(start.static.root,) if start.static else (".",),
        static=start.static,
        packages=packages.build,
        runtime_packages=() if start.static else packages.run,
        bin=tuple(_bin(source, manager, chosen)),
        env=(EnvEntry(name="NODE_ENV", value="production"), *(outcome.env if outcome else ())),
        processes=processes,
        warnings=tuple(_warnings(source, manager, version, chosen)),
    )


def _steps(source: Source, workspace: Workspace, manager: Manager, chosen: Chosen) -> Iterator[Step]:
    steps = install_steps(source, workspace, manager)
    outcome = chosen.outcome
    tools = _tools(source, chosen)
    if tools:
        yield tool_step(f"install {' '.join(tools)}", *tools, manifest=workspace.root.file)
    yield from steps
    built = build_steps(workspace, chosen.app, outcome)
    extra = legacy_openssl(chosen.app)
    yield from (replace(step, env={**step.env, **extra}) for step in built) if extra else built
    if outcome and (chosen.start.static or outcome.start == chosen.start.command):
        yield from outcome.after


def _tools(source: Source, chosen: Chosen) -> tuple[str, ...]:
    """Programs to install from the registry, beside what the app depends on."""
    outcome = chosen.outcome
    used = outcome.tools if outcome and outcome.start == chosen.start.command else ()
    return tuple(dict.fromkeys((*used, *missing_tools(source, chosen.app))))


def _bin(source: Source, manager: Manager, chosen: Chosen) -> Iterator[str]:
    if manager.spec or _tools(source, chosen):
        yield f"{TOOLS}/bin"
    yield "node_modules/.bin"
    if chosen.app.folder:
        yield f"{chosen.app.folder}/node_modules/.bin"


def _bun_alone(source: Source, workspace: Workspace, manager: Manager, start: Start) -> bool:
    """Whether the running app needs no Node: all that it starts is Bun's."""
    if manager.name != "bun" or source.has("Procfile") or not start.command:
        return False
    if start.command[:2] != ("bun", "run"):
        return start.command[0] == "bun"
    scripts = workspace.root.scripts
    return all(argv[0] == "bun" for argv in commands(scripts.get("start", "node"), scripts))


def _strength(chosen: Chosen, manager: Manager) -> Strength:
    """Something to start makes it a project; a lock file alone may be that of another language's tooling."""
    if chosen.start and (manager.lock or chosen.outcome or chosen.app.package.scripts.get("start")):
        return Strength.PROJECT
    return Strength.MANIFEST


def _reason(chosen: Chosen, manager: Manager) -> str:
    parts = [chosen.app.root.file, *([manager.lock] if manager.lock else [])]
    if chosen.outcome:
        parts.append(chosen.outcome.title)
    return "has " + ", ".join(parts)


def _summary(manager: Manager, chosen: Chosen, settings: BuildSettings) -> tuple[str, ...]:
    start, outcome = chosen.start, chosen.outcome
    title = outcome.title if outcome else ""
    where = (chosen.app.folder,) if chosen.app.folder else ()
    given = next((item.source for item in settings.processes if item.name == "web"), "")
    if given:
        how = " · ".join(item for item in (title, f"started by {given}") if item)
    else:
        how = " → ".join(item for item in (title, _started(start)) if item) if start else ""
    return (manager.label, *where, *([how] if how else []))


def _started(start: Start) -> str:
    if start.static:
        return f"static site in {start.static.root}"
    if start.command[:2] == ("sh", "-c"):
        return start.command[2].split("exec ", 1)[-1]
    return " ".join(start.command[:6])


def _evidence(workspace: Workspace, manager: Manager, version: NodeVersion, chosen: Chosen) -> Iterator[Evidence]:
    yield Evidence(file=workspace.root.file, detail="package manifest")
    if manager.lock:
        yield Evidence(file=manager.lock, detail=f"{manager.name} lock file")
    elif manager.source != "default":
        yield Evidence(file=manager.source.split(" ")[0], detail=f"package manager: {manager.label}")
    if version.source != "default":
        yield Evidence(file=version.source.split(" ")[0], detail=f"Node {version.version}")
    if chosen.app.folder:
        yield Evidence(file=chosen.app.package.file, detail="the workspace's app")
    if chosen.start:
        yield Evidence(file=chosen.app.package.file, detail=f"start: {chosen.start.source}")


def _warnings(source: Source, manager: Manager, version: NodeVersion, chosen: Chosen) -> Iterator[str]:
    yield from version.warnings
    yield from manager.warnings
    yield from chosen.outcome.warnings if chosen.outcome else ()
    yield from chosen.start.warnings
    if not manager.lock and chosen.app.root.dependencies:
        yield f"no lock file: {manager.name} installs what is newest today; commit one to get the same again"
    if manager.lock and not (source.read(manager.lock) or b"").strip():
        yield f"{manager.lock} is empty: {manager.name} install makes it anew"
    if chosen.others:
        yield (
            f"several apps in this workspace: {chosen.app.folder} taken. The others: {', '.join(chosen.others)}"
            f' (path = "FOLDER" in mini.toml chooses)'
        )


def _loose(source: Source, settings: BuildSettings) -> Offer | None:
    """A file that Node can run, without a package.json. Beside an index.html it has to look like a server's."""
    names = [f"{stem}{extension}" for stem in _LOOSE for extension in _LOOSE_EXTENSIONS]
    browser = source.has("index.html")
    for name in names:
        text = source.text(name)
        if text is None or (browser and not _FOR_NODE.search(text)):
            continue
        version = node_version(source, None, settings)
        plan = Plan(
            buildpack="node",
            toolchains=(version.toolchain(),),
            runtime="node",
            package_manager="none",
            summary=(f"node {name}",),
            evidence=(Evidence(file=name, detail="no package.json"),),
            env=(EnvEntry(name="NODE_ENV", value="production"),),
            processes=(ProcessType(name="web", command=("node", name), source="detected"),),
            warnings=version.warnings,
        )
        return Offer(buildpack="node", strength=Strength.LOOSE, reason=f"has {name}, no package.json", plan=plan)
    return None
