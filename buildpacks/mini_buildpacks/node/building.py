"""The steps that build the app: its build script, those of the workspace's packages it needs, or the framework's
own command where there is no script."""

from __future__ import annotations

from collections.abc import Iterator

from mini_buildpacks.node.app import BUILD_SCRIPTS, App, Outcome
from mini_buildpacks.node.install import build_env
from mini_buildpacks.node.package import Package
from mini_buildpacks.node.scripts import runs
from mini_buildpacks.node.workspaces import Workspace
from mini_core.types import Step

_WEBPACK_4 = {"webpack": 5, "react-scripts": 5, "@vue/cli-service": 5, "nuxt": 3, "gatsby": 4, "@angular/core": 13,
              "vuepress": 2, "next": 11, "@storybook/react": 7, "sapper": 1, "preact-cli": 4, "umi": 4,
              "gridsome": 99}  # fmt: skip
"""Package → the first major that no longer hashes with MD4, which OpenSSL 3 (Node 17 and later) does not offer."""


def build_steps(workspace: Workspace, app: App, outcome: Outcome | None) -> tuple[Step, ...]:
    """Nothing where there is nothing to build."""
    return tuple(_steps(workspace, app, outcome))


def _steps(workspace: Workspace, app: App, outcome: Outcome | None) -> Iterator[Step]:
    caches = outcome.caches if outcome else ()
    if app.folder and _turbo(workspace.root, app):
        yield Step(
            name="build",
            argv=app.manager.exec("turbo", "run", "build", f"--filter={app.package.name}"),
            caches=caches,
            env={**build_env(workspace.root), "TURBO_TELEMETRY_DISABLED": "1"},
        )
        return
    script = next((name for name in BUILD_SCRIPTS if name in workspace.root.scripts), "")
    if app.folder and script and not _turbo_missing(workspace.root, app):
        yield Step(name="build", argv=app.manager.run(script), caches=caches, env=build_env(workspace.root))
        return
    for package in workspace.needs(app.package):
        if "build" in package.scripts:
            yield Step(
                name=f"build {package.name}", argv=app.manager.run("build", package.folder), env=build_env(package)
            )
    yield from _own(app, outcome)


def _own(app: App, outcome: Outcome | None) -> Iterator[Step]:
    caches = outcome.caches if outcome else ()
    if app.build_script:
        argv = app.manager.run(app.build_script, app.folder)
        yield Step(name=app.build_script, argv=argv, caches=caches, env=build_env(app.package))
    elif outcome and outcome.build:
        argv = ("sh", "-c", f"cd {app.folder} && {' '.join(outcome.build)}") if app.folder else outcome.build
        yield Step(name="build", argv=argv, caches=caches, env=build_env(app.package))


def _turbo(root: Package, app: App) -> bool:
    """Whether the root's build is Turborepo's: then only the app and what it needs is built."""
    line = root.scripts.get("build", "")
    return bool(app.package.name) and app.source.has("turbo.json") and runs(line, "turbo", scripts=root.scripts)


def _turbo_missing(root: Package, app: App) -> bool:
    """Whether the root's build script needs a turbo.json that is not there."""
    line = root.scripts.get("build", "")
    return runs(line, "turbo", scripts=root.scripts) and not app.source.has("turbo.json")


def legacy_openssl(app: App) -> dict[str, str]:
    """The switch that lets tools on webpack 4 build with a Node that has OpenSSL 3."""
    if app.node_major < 17:
        return {}
    old = any((found := app.major(name)) is not None and found < fixed for name, fixed in _WEBPACK_4.items())
    asks = any("openssl-legacy-provider" in line for line in app.package.scripts.values())
    return {"NODE_OPTIONS": "--openssl-legacy-provider"} if old and not asks else {}
