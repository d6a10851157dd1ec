"""The steps that install the dependencies, arranged so that a change of code installs nothing anew.

The install reads manifests, lock files and settings only. Where the root's own scripts want the source
(`"postinstall": "tsc"`), the packages are installed without these, and the scripts run once the source is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from mini_buildpacks.node.managers import Manager
from mini_buildpacks.node.natives import install_env
from mini_buildpacks.node.package import Package
from mini_buildpacks.node.scripts import Lifecycle, commands, lifecycle
from mini_buildpacks.node.workspaces import Workspace, local_dependencies
from mini_core.interfaces import Source
from mini_core.types import Step

SETTINGS = (
    ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpm-workspace.yaml", "lerna.json",
    "bunfig.toml", ".bunfig.toml", ".yarn/releases", ".yarn/plugins", ".yarn/patches", ".yarn/cache", ".yarn/offline",
    "patches", "npm-packages-offline-cache",
)  # fmt: skip
"""What managers read beside manifests and locks."""

_ASIDE = ".mini-package.json"


def install_steps(source: Source, workspace: Workspace, manager: Manager) -> tuple[Step, ...]:
    """Installing the manager where Node does not bring it, the packages, and the root's own install scripts."""
    root = workspace.root
    scripts = _lifecycle(source, root, manager)
    members = [lifecycle(member.scripts) for member in workspace.members]
    prebuild = _prebuild(root)
    tool = manager.tool_step()
    whole = scripts.before or bool(prebuild and prebuild[1]) or any(item.needs_source for item in members)
    split = scripts.needs_source and not whole and root.file == "package.json"
    files = () if whole or (scripts.needs_source and not split) else _files(source, workspace, manager, scripts)
    step = Step(
        name="install dependencies",
        argv=_without_scripts(scripts, manager.install()) if split else manager.install(),
        files=files,
        caches=manager.caches(),
        env={**install_env((root, *workspace.members)), **manager.env()},
    )
    before = [Step(name="heroku-prebuild", argv=manager.run("heroku-prebuild"), files=files)] if prebuild else []
    after = [Step(name=name, argv=manager.run(name), env=build_env(root)) for name in scripts.scripts] if split else []
    return (*([tool] if tool else []), *before, step, *after)


def build_env(package: Package) -> dict[str, str]:
    """NODE_ENV is "production" while building; an install inside of a build script (`cd client && npm install`) needs
    its build tools all the same. Yarn 2 and later refuse variables they don't know, hence only where they matter."""
    lines = "\n".join(package.scripts.values())
    env = {"NPM_CONFIG_INCLUDE": "dev"} if re.search(r"\bnpm\s+(?:[^\n&|;]*\s)?(?:i|ci|install)\b", lines) else {}
    return {**env, **({"YARN_PRODUCTION": "false"} if re.search(r"\byarn(?:\s+install)?\s*(?:&|;|$)", lines) else {})}


def _lifecycle(source: Source, root: Package, manager: Manager) -> Lifecycle:
    """The root's install scripts; Yarn 2 and later run no `prepare`. A file they read that is not at its usual
    place may be anywhere."""
    scripts = {name: line for name, line in root.scripts.items() if not (manager.berry and name == "prepare")}
    found = lifecycle(scripts)
    missing = bool(found.files) and not any(source.has(file) for file in found.files)
    if not missing:
        return found
    return Lifecycle(scripts=found.scripts, files=found.files, needs_source=True, before=found.before)


def _prebuild(root: Package) -> tuple[str, bool] | None:
    """Heroku's `heroku-prebuild` (before the install), and whether it may read the source."""
    line = root.scripts.get("heroku-prebuild", "")
    if not line:
        return None
    return line, any(argv[0] not in ("echo", "true", "exit") for argv in commands(line, root.scripts))


def _files(source: Source, workspace: Workspace, manager: Manager, scripts: Lifecycle) -> tuple[str, ...]:
    """What the install reads, as far as it is there."""
    return tuple(dict.fromkeys(file for file in _read(workspace, manager, scripts) if source.has(file)))


def _read(workspace: Workspace, manager: Manager, scripts: Lifecycle) -> Iterator[str]:
    packages = (workspace.root, *workspace.members)
    yield from (package.file for package in packages)
    if manager.lock:
        yield manager.lock
    yield from SETTINGS
    if manager.vendored:
        yield manager.vendored
    yield from scripts.files
    for package in packages:
        yield from local_dependencies(package)
        yield from (f"{package.folder}/.npmrc",) if package.folder else ()
        if any(name in package.dependencies for name in ("prisma", "@prisma/client")):
            prefix = f"{package.folder}/" if package.folder else ""
            yield from (f"{prefix}prisma", f"{prefix}prisma.config.ts")


def _without_scripts(scripts: Lifecycle, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The install with the root's own scripts out of the way, and package.json as it was afterwards."""
    names = json.dumps(list(scripts.scripts))
    edit = (
        'const f=require("fs"),p=JSON.parse(f.readFileSync("package.json","utf8"));'
        f"for(const s of {names})delete p.scripts[s];"
        'f.writeFileSync("package.json",JSON.stringify(p,null,2))'
    )
    command = " ".join(argv)
    return ("sh", "-c", f"cp package.json {_ASIDE} && node -e '{edit}' && {command} && mv {_ASIDE} package.json")
