"""Which version of Go the app asks for, and which file says so.

Strongest first: `[build.env] GO_VERSION`, Heroku's `// +heroku goVersion`, a pin made for developers' machines
(mise, .tool-versions, .go-version), go.mod's `toolchain`, its `go` line, the default. A `go` line is the least
version that will do, for Go builds older modules; the others name a release line, of which newer patches do as well.
"""

from __future__ import annotations

import re

from mini_buildpacks.go.module import Module, work_version
from mini_buildpacks.pins import build_setting, mise_version
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Toolchain

DEFAULT = "1.27"


def go_version(source: Source, modules: tuple[Module, ...], settings: BuildSettings) -> Toolchain:
    """The toolchain requirement."""
    asked = build_setting(settings, "GO_VERSION") or build_setting(settings, "GOVERSION")
    if asked:
        return _pin(asked.version, asked.source)
    for module in modules:
        if module.heroku.get("goVersion"):
            return _pin(module.heroku["goVersion"], f"{module.file('go.mod')} +heroku goVersion")
    found = mise_version(source, "go") or mise_version(source, "golang")
    if found:
        return _pin(found.version, found.source)
    plain = (source.text(".go-version") or "").strip()
    if plain:
        return _pin(plain, ".go-version")
    lines = [(module.toolchain, f"{module.file('go.mod')} toolchain") for module in modules]
    lines += [(module.go, f"{module.file('go.mod')} go") for module in modules]
    lines += [(work_version(source), "go.work go")]
    lines = [(version, origin) for version, origin in lines if re.match(r"\d+\.\d+", version)]
    if not lines:
        return Toolchain(name="go", version=DEFAULT, source="default")
    version, origin = max(lines, key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])[:3]])
    return Toolchain(name="go", version=version, source=origin)


def _pin(version: str, origin: str) -> Toolchain:
    """`go1.25.3` is the newest patch of 1.25 from 1.25.3 on; a range stays what it is."""
    bare = version.strip().removeprefix("go")
    plain = re.fullmatch(r"\d+(?:\.\d+)+(?:rc\d+|beta\d+)?", bare)
    if not plain:
        return Toolchain(name="go", version="" if bare in ("latest", "stable") else bare, source=origin)
    return Toolchain(name="go", version=f"~{bare}", source=origin)
