"""The Go buildpack: from modules, a workspace, a vendored tree or loose files to a plan."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from mini_buildpacks.go.artifacts import artifacts
from mini_buildpacks.go.module import Module, read_module, read_work, vendored
from mini_buildpacks.go.natives import natives
from mini_buildpacks.go.packages import Sources, read_sources
from mini_buildpacks.go.programs import Programs, choose_programs
from mini_buildpacks.go.version import go_version
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Cache, EnvEntry, Evidence, Offer, Plan, Step, Strength, Value, replace

_CACHES = (Cache(name="go-build", variable="GOCACHE"), Cache(name="go-mod", variable="GOMODCACHE"))
_MODULE_CACHE = (Cache(name="go-mod", variable="GOMODCACHE"),)
_FRAMEWORKS = {
    "github.com/gin-gonic/gin": "gin",
    "github.com/labstack/echo": "echo",
    "github.com/gofiber/fiber": "fiber",
    "github.com/go-chi/chi": "chi",
    "github.com/gorilla/mux": "mux",
    "github.com/valyala/fasthttp": "fasthttp",
    "github.com/beego/beego": "beego",
    "github.com/gobuffalo/buffalo": "buffalo",
    "github.com/revel/revel": "revel",
    "github.com/kataras/iris": "iris",
}
_OLD_MANIFESTS = ("Godeps/Godeps.json", "Gopkg.toml", "glide.yaml", "vendor/vendor.json", ".godir", "vendor.conf")
_GOPATH = ".mini/gopath"


class GoBuildpack:
    """Go modules, workspaces, vendored trees and GOPATH-style sources."""

    name = "go"
    description = "go.mod, go.work, main.go, a vendored tree"

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        """An offer for anything that holds Go. Raises ConfigError for a go.mod without a module line."""
        layout = _layout(source)
        if layout is None:
            return None
        return self._offer(source, layout, settings)

    def detect_member(self, source: Source, path: str, settings: BuildSettings) -> Offer | None:
        """The module in a folder that go.work uses."""
        layout = _layout(source)
        if layout is None or not layout.workspace or all(module.folder != path for module in layout.modules):
            return None
        mains = tuple(folder for folder in layout.sources.mains if f"{folder}/".startswith(f"{path}/"))
        return self._offer(source, replace(layout, sources=replace(layout.sources, mains=mains)), settings)

    def _offer(self, source: Source, layout: Layout, settings: BuildSettings) -> Offer:
        programs = choose_programs(source, layout.sources, layout.modules, settings)
        plan = _plan(source, settings, layout, programs)
        return Offer(buildpack=self.name, strength=_strength(layout, programs), reason=_reason(layout), plan=plan)


class Layout(Value):
    """modules: the root's, or those that go.work uses; none for a tree without modules. vendor: it is complete."""

    manifest: str
    modules: tuple[Module, ...]
    sources: Sources
    workspace: bool = False
    vendor: bool = False

    @property
    def needed(self) -> Mapping[str, str]:
        own = {module.path for module in self.modules}
        return {path: text for module in self.modules for path, text in module.needed.items() if path not in own}

    @property
    def undeclared(self) -> bool:
        """Whether the source imports what no go.mod knows of."""
        known = [
            *(module.path for module in self.modules),
            *(path for module in self.modules for path in module.requires),
        ]
        return any(
            not any(path == item or path.startswith(f"{item}/") for item in known) for path in self.sources.external
        )


def _layout(source: Source) -> Layout | None:
    used = read_work(source)
    folders = used if used is not None else ("",)
    modules = tuple(module for folder in folders if (module := read_module(source, folder)))
    sources = read_sources(source)
    if modules:
        vendor = source.has("vendor/modules.txt") if used is not None else vendored(source, modules[0])
        manifest = "go.work" if used is not None else "go.mod"
        return Layout(manifest=manifest, modules=modules, sources=sources, workspace=used is not None, vendor=vendor)
    old = next((file for file in _OLD_MANIFESTS if source.has(file)), "")
    if "" in sources.mains or (old and sources.mains) or any(file.startswith("cmd/") for file in sources.mains):
        return Layout(manifest=old, modules=(), sources=sources, vendor=bool(source.glob("vendor/**/*.go")))
    return None


def _plan(source: Source, settings: BuildSettings, layout: Layout, programs: Programs) -> Plan:
    bindings = natives(layout.needed)
    framework = _framework((*layout.needed, *layout.sources.external))
    toolchain = go_version(source, layout.modules, settings)
    return Plan(
        buildpack="go",
        toolchains=(toolchain,),
        package_manager="gomod" if layout.modules else "none",
        framework=framework,
        summary=tuple(_summary(layout, programs, framework)),
        evidence=tuple(_evidence(layout, programs)),
        steps=tuple(_steps(source, layout, programs, cgo=layout.sources.cgo or bool(bindings))),
        artifacts=artifacts(source),
        packages=tuple(sorted({item for native in bindings for item in native.build})),
        runtime_packages=("ca-certificates", "tzdata", *sorted({item for native in bindings for item in native.run})),
        bin=("bin",),
        env=(EnvEntry(name="GIN_MODE", value="release"),) if framework == "gin" else (),
        processes=programs.processes,
        warnings=(*_warnings(source, layout), *programs.warnings),
    )


def _framework(paths: tuple[str, ...]) -> str:
    known = _FRAMEWORKS.items()
    return next((name for path, name in known if any(f"{item}/".startswith(f"{path}/") for item in paths)), "")


def _steps(source: Source, layout: Layout, programs: Programs, *, cgo: bool) -> Iterator[Step]:
    if source.has("bin/go-pre-compile"):
        yield Step(name="go-pre-compile", argv=("bash", "bin/go-pre-compile"), caches=_CACHES)
    if not layout.modules:
        yield from _without_modules(layout, programs, cgo)
    else:
        yield from _dependencies(source, layout)
        if programs.folders:
            mode = ("-mod=vendor",) if layout.vendor else ()
            yield Step(name="build", argv=_build(layout, programs, *mode), caches=_CACHES, env=_env(cgo))
    if source.has("bin/go-post-compile"):
        yield Step(name="go-post-compile", argv=("bash", "bin/go-post-compile"), caches=_CACHES)


def _dependencies(source: Source, layout: Layout) -> Iterator[Step]:
    """Downloads what go.mod names, before the source is there, so that a code change downloads nothing."""
    if layout.vendor:
        return
    if _untidy(source, layout):
        yield Step(name="tidy modules", argv=("go", "mod", "tidy"), caches=_MODULE_CACHE)
    elif layout.needed:
        files = [module.file(name) for module in layout.modules for name in ("go.mod", "go.sum")]
        files += [posixpath.join(folder, name) for module in layout.modules for folder in module.local.values()
                  for name in ("go.mod", "go.sum")]  # fmt: skip
        wanted = (*(("go.work", "go.work.sum") if layout.workspace else ()), *files)
        present = tuple(dict.fromkeys(file for file in wanted if source.has(file)))
        yield Step(name="download modules", argv=("go", "mod", "download"), files=present, caches=_MODULE_CACHE)


def _untidy(source: Source, layout: Layout) -> bool:
    """Whether go.sum is missing though something has to be downloaded."""
    module = layout.modules[0]
    if layout.workspace or layout.vendor or source.has(module.file("go.sum")):
        return False
    return bool(layout.needed) or layout.undeclared


def _build(layout: Layout, programs: Programs, *mode: str) -> tuple[str, ...]:
    tags = ("-tags", ",".join(layout.sources.tags)) if layout.sources.tags else ()
    target = f"bin/{programs.names[0]}" if len(programs.folders) == 1 else "bin/"
    packages = tuple(f"./{folder}" if folder else "." for folder in programs.folders)
    return ("go", "build", *mode, "-trimpath", "-ldflags=-s -w", *tags, "-o", target, *packages)


def _env(cgo: bool, **more: str) -> dict[str, str]:
    return {"CGO_ENABLED": "1" if cgo else "0", **more}


def _without_modules(layout: Layout, programs: Programs, cgo: bool) -> Iterator[Step]:
    """No go.mod: in GOPATH mode where that can work, else as a module made for the build."""
    if not programs.folders:
        return
    if layout.undeclared and not layout.vendor:
        yield Step(name="make a module", argv=("sh", "-c", "go mod init app && go mod tidy"), caches=_MODULE_CACHE)
        yield Step(name="build", argv=_build(layout, programs), caches=_CACHES, env=_env(cgo))
        return
    home = f"{_GOPATH}/src/{programs.import_path}"
    build = " ".join(f"'{word}'" if " " in word else word for word in _build(layout, programs))
    line = (
        f"mkdir -p {home} bin && tar --exclude=./.mini -cf - . | tar -xf - -C {home} && "
        f'top="$PWD" && export GOPATH="$top/{_GOPATH}:$top/Godeps/_workspace" && cd {home} && {build} && '
        'cp -r bin/. "$top/bin/"'
    )
    yield Step(name="build", argv=("sh", "-c", line), caches=_CACHES[:1], env=_env(cgo, GO111MODULE="off"))


def _strength(layout: Layout, programs: Programs) -> Strength:
    if layout.modules:
        return Strength.PROJECT if programs.folders else Strength.MANIFEST
    return Strength.MANIFEST if layout.manifest or layout.vendor else Strength.LOOSE


def _reason(layout: Layout) -> str:
    if layout.manifest:
        return f"has {layout.manifest}"
    return "has Go files with a main function, no go.mod"


def _summary(layout: Layout, programs: Programs, framework: str) -> Iterator[str]:
    yield "vendored modules" if layout.vendor else ("Go modules" if layout.modules else "no modules")
    names = ", ".join(folder or "." for folder in programs.folders)
    if names:
        yield f"{framework} → {names}" if framework else names


def _evidence(layout: Layout, programs: Programs) -> Iterator[Evidence]:
    if layout.manifest:
        yield Evidence(file=layout.manifest, detail=layout.modules[0].path if layout.modules else "before modules")
    if layout.vendor:
        yield Evidence(file="vendor", detail="dependencies are in the repository")
    for folder in programs.folders:
        yield Evidence(file=folder or ".", detail="package main")


def _warnings(source: Source, layout: Layout) -> Iterator[str]:
    if not layout.modules:
        if layout.undeclared and not layout.vendor:
            yield "no go.mod: one is made for the build, with the newest of every dependency; commit one (go mod init)"
        return
    if _untidy(source, layout):
        yield "go.sum is missing: `go mod tidy` makes one for this build; commit it to get the same versions again"
    if source.has("vendor/modules.txt") and not layout.vendor:
        yield "vendor/ does not fit go.mod and is left out: run `go mod vendor`"
