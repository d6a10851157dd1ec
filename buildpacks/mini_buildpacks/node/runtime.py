"""Which version of Node the app asks for, and which file says so.

Strongest first: `[build.env] NODE_VERSION`; a pin made for developers' machines (volta, mise, .tool-versions,
.node-version, .nvmrc) as long as it fits `engines.node`; `engines.node`; `devEngines.runtime`; the default.
`engines` says what works, a pin says what is used: `>=18` with `.nvmrc` 20 is Node 20, and where the two
contradict each other `engines` wins and a warning names both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mini_buildpacks.node.package import Package
from mini_buildpacks.pins import MISE, Wish, build_setting, mise_tool, tool_version
from mini_core.errors import PlanError
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Toolchain, Value
from mini_core.versions import satisfies

DEFAULT = "24"
"""The release line that an app without a wish gets: long-term support."""

MAJORS = tuple(str(major) for major in range(4, 31))


class NodeVersion(Value):
    """What was decided. version: a range, "" for no preference of major other than `DEFAULT`."""

    version: str
    source: str
    warnings: tuple[str, ...] = ()

    def toolchain(self) -> Toolchain:
        return Toolchain(name="node", version=self.version, source=self.source)

    def major(self) -> int:
        """The major that will most likely be used: the default where it fits, else the newest that does."""
        fitting = [major for major in MAJORS if _fits(major, self.version)]
        return int(DEFAULT if DEFAULT in fitting or not fitting else fitting[-1])


def node_version(source: Source, package: Package | None, settings: BuildSettings) -> NodeVersion:
    """Decides among all that name a version. Never raises: what is not understood is left out with a warning."""
    asked = build_setting(settings, "NODE_VERSION")
    if asked:
        return NodeVersion(version=_clean(asked.version), source=asked.source)
    found = [item for item in (*_pins(source, package), *_engines(package)) if item.version]
    usable = [item for item in found if understood(item.version)]
    warnings = tuple(
        f'{item.source}: "{item.version}" is no version of Node, ignored' for item in found if item not in usable
    )
    if not usable:
        return NodeVersion(version=DEFAULT, source="default", warnings=warnings)
    engines = next((item for item in usable if item.source.endswith("engines.node")), None)
    pin = usable[0]
    if engines and pin is not engines and not compatible(pin.version, engines.version):
        warnings += (f'{pin.source} says Node "{pin.version}", which {engines.source} "{engines.version}" excludes',)
        pin = engines
    return NodeVersion(version=pin.version, source=pin.source, warnings=warnings)


def _pins(source: Source, package: Package | None) -> Iterator[Wish]:
    if package:
        yield Wish(version=_clean(package.string("volta", "node")), source=f"{package.file} volta.node")
    for file in MISE:
        yield Wish(version=_clean(mise_tool(source, file, "node") or mise_tool(source, file, "nodejs")), source=file)
    yield Wish(version=_clean(tool_version(source, "nodejs") or tool_version(source, "node")), source=".tool-versions")
    for file in (".node-version", ".nvmrc"):
        yield Wish(version=_clean(_first_line(source.text(file))), source=file)


def _engines(package: Package | None) -> Iterator[Wish]:
    if not package:
        return
    yield Wish(version=_clean(package.engine("node")), source=f"{package.file} engines.node")
    runtime = package.get("devEngines", "runtime")
    if isinstance(runtime, Mapping) and runtime.get("name") == "node":
        version = str(runtime.get("version") or "")
        yield Wish(version=_clean(version), source=f"{package.file} devEngines.runtime")


def understood(version: str) -> bool:
    try:
        satisfies("24.1.0", version, tool="node")
    except PlanError:
        return False
    return True


def compatible(first: str, second: str) -> bool:
    """Whether some release line is in both ranges; an exact version counts with its own number."""
    if re.fullmatch(r"v?\d+\.\d+\.\d+", first):
        return _fits(first, second)
    return any(_fits(major, first) and _fits(major, second) for major in MAJORS)


def _fits(version: str, wanted: str) -> bool:
    try:
        return satisfies(version, wanted, tool="node") or satisfies(f"{version}.0.0", wanted, tool="node")
    except PlanError:
        return False


def _first_line(text: str | None) -> str:
    lines = (line.split("#")[0].strip() for line in (text or "").splitlines())
    return next((line for line in lines if line), "")


def _clean(version: str) -> str:
    return version.strip().strip("\"'")
