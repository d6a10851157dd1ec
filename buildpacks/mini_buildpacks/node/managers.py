"""The package managers: which one an app uses, in which version, and the commands it takes.

Chosen by: `packageManager` > a lock file > `engines` > other marks (pnpm-workspace.yaml, .yarnrc.yml …) > npm.
Installed from the npm registry into the app's own folder, which works with every version of Node (Corepack is
gone from Node 25 on) and in every builder. A yarn that the repository carries (`yarnPath`) wins over all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mini_buildpacks.node.package import Package, load_yaml, table
from mini_buildpacks.node.runtime import understood
from mini_buildpacks.pins import Wish, build_setting, mise_version
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Cache, Step, Value
from mini_core.versions import satisfies

TOOLS = ".mini/tools"
"""Where package managers are installed, relative to the app's folder; `TOOLS/bin` is on PATH."""

LOCKS = {
    "pnpm-lock.yaml": "pnpm",
    "bun.lock": "bun",
    "bun.lockb": "bun",
    "yarn.lock": "yarn",
    "npm-shrinkwrap.json": "npm",
    "package-lock.json": "npm",
}
"""In order of preference, where there are several: npm's is the one most often left over from an earlier time."""

_MARKS = {
    "pnpm-workspace.yaml": "pnpm",
    "package.json5": "pnpm",
    "package.yaml": "pnpm",
    ".yarnrc.yml": "yarn",
    ".yarnrc": "yarn",
    "bunfig.toml": "bun",
}
_PNPM_OF_LOCK = {"5.3": "7", "5.4": "7", "6.0": "8", "6.1": "8"}
_YARN_OF_LOCK = {4: "2.4.x", 5: "3.x", 6: "3.x", 7: "3.x"}
_BUNDLED_NPM = {16: "8.19", 18: "10.8", 20: "10.8", 22: "10.9", 24: "11.6", 26: "11.12"}
"""The npm that each release line of Node carries."""

_LAUNCHER = "yarn@1.22.22"
"""Hands over to the yarn at `yarnPath`, whatever its version, on any Node."""


class Manager(Value):
    """A package manager as this app uses it.

    pin: the version that the app asks for, as written ("" where it names none). source: the file that made the
    choice. spec: what `npm install` gets ("" where Node brings it). lock: the lock file's path, "" without one.
    berry: yarn 2 or later. pnp: packages stay zipped, and node is started through yarn. major: 0 where unknown.
    any_node: no file says which Node; what dependencies say of it is a reason for a warning then, as for npm and pnpm,
    and none to stop.
    """

    name: str
    pin: str = ""
    source: str = "default"
    spec: str = ""
    lock: str = ""
    berry: bool = False
    pnp: bool = False
    major: int = 0
    vendored: str = ""
    manifest: str = "package.json"
    any_node: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """`pnpm@9.9.0` where the app names a version, else the name."""
        return f"{self.name}@{self.pin}" if self.pin else self.name

    def tool_step(self) -> Step | None:
        """Installs the manager itself; None where Node brings it."""
        if not self.spec:
            return None
        return tool_step(f"install {self.spec}", self.spec, manifest=self.manifest)

    def install(self) -> tuple[str, ...]:
        """Installs what the lock file says, and fails where that no longer fits; without one, what fits now."""
        match self.name:
            case "pnpm":
                frozen = "--frozen-lockfile" if self.lock else "--no-frozen-lockfile"
                return ("pnpm", "install", frozen, "--prod=false")
            case "bun":
                return ("bun", "install", *(["--frozen-lockfile"] if self.lock else []))
            case "yarn" if self.berry:
                return ("yarn", "install", "--immutable" if self.lock else "--no-immutable")
            case "yarn":
                flags = (["--frozen-lockfile"] if self.lock else []) + (["--ignore-engines"] if self.any_node else [])
                return ("yarn", "install", *flags, "--production=false")
        return ("npm", "ci" if self.lock else "install", "--include=dev", "--no-audit", "--no-fund")

    def run(self, script: str, folder: str = "") -> tuple[str, ...]:
        """Runs a script of package.json, in a member of the workspace if `folder` is given."""
        match self.name:
            case "npm":
                return ("npm", "run", script, *(["--workspace", folder] if folder else []))
            case "pnpm":
                return ("pnpm", *(["--dir", folder] if folder else []), "run", script)
            case "bun":
                return ("bun", "run", *(["--cwd", folder] if folder else []), script)
        return ("yarn", *(["--cwd", folder] if folder else []), "run", script)

    def exec(self, *argv: str) -> tuple[str, ...]:
        """Runs a program of a dependency. node_modules/.bin is on PATH; with PnP only yarn knows where it is."""
        return ("yarn", "run", *argv) if self.pnp else argv

    def node(self, *argv: str) -> tuple[str, ...]:
        """Runs a file with Node (or Bun, in an app of Bun's)."""
        if self.name == "bun":
            return ("bun", *argv)
        return ("yarn", "node", *argv) if self.pnp else ("node", *argv)

    def caches(self) -> tuple[Cache, ...]:
        match self.name:
            case "pnpm":
                variable = "pnpm_config_store_dir" if self.major >= 11 else "npm_config_store_dir"
                return (Cache(name="pnpm", variable=variable),)
            case "bun":
                return (Cache(name="bun", variable="BUN_INSTALL_CACHE_DIR"),)
            case "yarn" if self.berry:
                return (Cache(name="yarn-berry", variable="YARN_GLOBAL_FOLDER"),)
            case "yarn":
                return (Cache(name="yarn", variable="YARN_CACHE_FOLDER"),)
        return (Cache(name="npm", variable="npm_config_cache"),)

    def env(self) -> dict[str, str]:
        """For the install: packages that stay zipped are kept in the app's folder, where the running app finds
        them, and taken from the cache."""
        if self.name == "npm" and self.major < 7:  # it knows no --include
            return {"NPM_CONFIG_PRODUCTION": "false"}
        if not self.berry:
            return {}
        kept = {"YARN_ENABLE_GLOBAL_CACHE": "false"} if self.pnp else {}
        if self.vendored and not re.search(r"yarn-[3-9]", self.vendored):  # may be one that stops for unknown settings
            return kept
        return {"YARN_ENABLE_TELEMETRY": "0", **kept}


def tool_step(name: str, *specs: str, manifest: str = "package.json") -> Step:
    """Installs programs from the npm registry into the app's folder, next to its own dependencies. manifest: the
    file that says which, so that they are installed anew when it changes."""
    return Step(
        name=name,
        argv=("npm", "install", "--global", "--prefix", TOOLS, "--no-audit", "--no-fund", *specs),
        files=(manifest,),
        caches=(Cache(name="npm", variable="npm_config_cache"),),
    )


def choose_manager(source: Source, package: Package, settings: BuildSettings, node_major: int) -> Manager:
    """The app's manager. Pure; what contradicts itself is settled by the order above and named in a warning."""
    locks = [lock for lock in LOCKS if source.has(lock)]
    name, origin, pin = _name_and_pin(source, package, locks)
    asked = build_setting(settings, f"{name.upper()}_VERSION")
    if asked:
        pin, origin = asked.version, asked.source
    lock = next((lock for lock in locks if LOCKS[lock] == name), "")
    warnings = (*_about_locks(name, origin, locks), *_about_engines(name, package))
    match name:
        case "pnpm":
            made = _pnpm(source, package, pin, lock, node_major)
        case "yarn":
            made = _yarn(source, pin, lock)
        case "bun":
            made = Manager(name="bun", spec=f"bun@{pin or '1'}")
        case _:
            made = Manager(name="npm", spec=_npm_spec(pin, node_major), major=_npm_major(pin, node_major))
    return Manager(
        name=made.name, pin=pin, source=origin, spec=made.spec, lock=lock, berry=made.berry, pnp=made.pnp,
        major=made.major, vendored=made.vendored, manifest=package.file, warnings=(*warnings, *made.warnings),
    )  # fmt: skip


def _name_and_pin(source: Source, package: Package, locks: list[str]) -> tuple[str, str, str]:
    """The manager's name, the file that chose it and the version it is to have ("" where none is named)."""
    field = _package_manager(package)
    if field:
        return field[0], f"{package.file} packageManager", field[1]
    by_engines = [name for name in ("pnpm", "yarn", "bun") if package.engine(name)]
    candidates = [(LOCKS[lock], lock) for lock in locks]
    candidates.sort(key=lambda item: item[0] not in by_engines)  # stable: engines settle which of several locks
    candidates += [(name, f"{package.file} engines.{name}") for name in by_engines]
    candidates += [(name, mark) for mark, name in _MARKS.items() if source.has(mark)]
    candidates += [
        (name, found.source) for name in ("pnpm", "yarn", "bun") if (found := _elsewhere(source, package, name))
    ]
    name, origin = candidates[0] if candidates else ("npm", "default")
    wish = Wish(version=package.engine(name), source="") if package.engine(name) else _elsewhere(source, package, name)
    pin = wish.version if wish and understood(wish.version) and wish.version not in ("latest", "*") else ""
    return name, origin, pin


def _package_manager(package: Package) -> tuple[str, str] | None:
    """`packageManager` ("pnpm@9.9.0+sha512…"), else `devEngines.packageManager`."""
    found = re.fullmatch(r"(npm|pnpm|yarn|bun)@([^+\s]+)(?:\+\S*)?", package.string("packageManager"))
    if found:
        return found[1], found[2]
    wanted = package.get("devEngines", "packageManager")
    if isinstance(wanted, Mapping) and wanted.get("name") in ("npm", "pnpm", "yarn", "bun"):
        return str(wanted["name"]), str(wanted.get("version") or "")
    return None


def _elsewhere(source: Source, package: Package, name: str) -> Wish | None:
    volta = package.string("volta", name)
    return Wish(version=volta, source=f"{package.file} volta.{name}") if volta else mise_version(source, name)


def _pnpm(source: Source, package: Package, pin: str, lock: str, node_major: int) -> Manager:
    spec = pin or _pnpm_of_lock(source, package, lock, node_major)
    number = re.search(r"\d+", spec)
    return Manager(name="pnpm", spec=f"pnpm@{spec}", major=int(number[0]) if number else 0)


def _pnpm_of_lock(source: Source, package: Package, lock: str, node_major: int) -> str:
    """The major that wrote the lock; pnpm 7 reads 6's too, which itself works up to Node 16 only.

    9.0 is written by 9 and all later ones; settings tell them apart: from 10 on they may be in
    pnpm-workspace.yaml, and dependencies' build scripts run only when allowed by name.
    """
    text = (source.text(lock) if lock else "") or ""
    found = re.search(r"(?m)^lockfileVersion:\s*['\"]?([\d.]+)", text)
    known = _PNPM_OF_LOCK.get(found[1]) if found else None
    if known:
        return "6" if found and found[1] == "5.3" and node_major < 18 else known
    if text.startswith("---") and re.search(r"(?m)^---\s*$", text[4:]):
        return "11"
    workspace = load_yaml(source.text("pnpm-workspace.yaml") or "{}") if source.has("pnpm-workspace.yaml") else None
    keys = set(table(workspace))
    if "allowBuilds" in keys:
        return "11"
    if not found or package.get("pnpm", "onlyBuiltDependencies") or keys - {"packages", "catalog", "catalogs"}:
        return "10"
    return "10" if workspace is not None and "packages" not in keys else "9"


def _yarn(source: Source, pin: str, lock: str) -> Manager:
    """yarn 1 or a later one: the lock's format counts, then what is asked for, then what else is there."""
    rc = source.text(".yarnrc.yml") or ""
    vendored = _vendored(source, rc)
    text = (source.text(lock) if lock else "") or ""
    metadata = re.search(r"(?m)^__metadata:\s*\n\s+version:\s*(\d+)", text)
    classic_pin = _within("1.22.22", pin) or bool(re.match(r"[v~^=]*[01](?:\.|$)", pin))
    if metadata or pin:
        berry = bool(metadata) or not classic_pin
    else:
        berry = "yarn lockfile v1" not in text and bool(rc) and "yarn-1." not in vendored
    if vendored:
        return Manager(name="yarn", spec=_LAUNCHER, berry=berry, pnp=berry and _pnp(rc), vendored=vendored)
    if not berry:
        return Manager(name="yarn", spec=f"yarn@{pin or '1.22.22'}")
    warnings: tuple[str, ...] = ()
    if classic_pin:
        warnings = (f'yarn.lock is in the format of Yarn 2 and later, while version "{pin}" is asked for',)
        pin = ""
    wanted = pin or (_YARN_OF_LOCK.get(int(metadata[1]), "4.x") if metadata else "4.x")
    return Manager(name="yarn", spec=_berry_spec(wanted), berry=True, pnp=_pnp(rc), warnings=warnings)


def _berry_spec(wanted: str) -> str:
    """Yarn 2.4.3 was published as `yarn`, all others as `@yarnpkg/cli-dist`."""
    return f"yarn@{wanted}" if wanted == "2.4.3" else f"@yarnpkg/cli-dist@{wanted}"


def _pnp(rc: str) -> bool:
    """Plug'n'Play is what Yarn 2 and later do unless `nodeLinker` says otherwise."""
    linker = re.search(r"(?m)^nodeLinker:\s*['\"]?([\w-]+)", rc)
    return not linker or linker[1] == "pnp"


def _vendored(source: Source, rc: str) -> str:
    """The yarn that the repository carries, "" where it carries none."""
    found = re.search(r"(?m)^yarnPath:\s*['\"]?([^\s'\"]+)", rc)
    found = found or re.search(r"(?m)^yarn-path\s+['\"]?([^\s'\"]+)", source.text(".yarnrc") or "")
    path = found[1].removeprefix("./") if found else ""
    return path if path and source.has(path) else ""


def _npm_spec(pin: str, node_major: int) -> str:
    """What to install so that npm is the one asked for; "" where Node's own will do."""
    bundled = _BUNDLED_NPM.get(node_major)
    if not pin or (bundled and _within(bundled, pin)):
        return ""
    return f"npm@{pin}"


def _npm_major(pin: str, node_major: int) -> int:
    found = re.search(r"\d+", pin)
    return int(found[0]) if found else (6 if node_major < 15 else 10)


def _within(version: str, wanted: str) -> bool:
    return bool(wanted) and understood(wanted) and satisfies(version, wanted, tool="node")


def _about_locks(name: str, origin: str, locks: list[str]) -> Iterator[str]:
    others = [lock for lock in locks if LOCKS[lock] != name]
    if others:
        yield f"{name} is used (by {origin}); {' and '.join(others)} of another package manager: delete what is old"


def _about_engines(name: str, package: Package) -> Iterator[str]:
    others = [other for other in ("npm", "pnpm", "yarn", "bun") if other != name and package.engine(other)]
    if name != "npm" and others:
        named = ", ".join(f"{other} {package.engine(other)}" for other in others)
        yield f"{name} is used; engines also asks for {named}, which is not there"
