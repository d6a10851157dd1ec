"""Which of the repository's programs are built, and which process types they become."""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from collections.abc import Iterable, Iterator

from mini_buildpacks.go.module import Module
from mini_buildpacks.go.packages import Sources
from mini_buildpacks.pins import build_setting
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, ProcessType, Value

FAVOURITES = ("web", "server", "app", "api", "main", "http", "www", "serve", "backend")
"""Names that the program which serves usually has, most usual first."""

_SETTINGS = ("GO_BIN", "GO_INSTALL_PACKAGE_SPEC", "BUILDABLE", "GO_WORKSPACE_MODULE")
_HELPERS = re.compile(
    r"(?:^|/)(?:tools?|scripts?|hack|internal/tools?|gen|generate|test|tests|e2e|bench|benchmarks?)(?:/|$)"
)


class Programs(Value):
    """folders: those that are built, the one for `web` first; names: of their executables in bin/."""

    folders: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    processes: tuple[ProcessType, ...] = ()
    warnings: tuple[str, ...] = ()
    import_path: str = "app"


def choose_programs(source: Source, sources: Sources, modules: tuple[Module, ...], settings: BuildSettings) -> Programs:
    """What is asked for ([build.env] GO_BIN, `// +heroku install`, app.yaml's `main`) > the root > the only one > all
    of them, of which the likeliest is `web`. Programs that the Procfile starts are built as well."""
    import_path = _import_path(source)
    mains = [folder for folder in sources.mains if not _HELPERS.search(folder)] or list(sources.mains)
    chosen = _asked(source, mains, modules, settings) or ([""] if "" in mains else [])
    warnings: tuple[str, ...] = ()
    if not chosen:
        chosen = _ranked(mains, modules)
        warnings = tuple(_several(chosen, modules, import_path))
    procfile = source.text("Procfile") or ""
    others = [folder for folder in mains if folder not in chosen]
    started = [folder for folder in others if _mentioned(folder, modules, import_path, procfile)]
    named = _distinct([*chosen, *started], modules, import_path)
    return Programs(
        folders=tuple(named.values()),
        names=tuple(named),
        processes=tuple(_processes(list(named)[: len(chosen)])),
        warnings=warnings,
        import_path=import_path,
    )


def _asked(source: Source, mains: list[str], modules: tuple[Module, ...], settings: BuildSettings) -> list[str]:
    wish = next((found for name in _SETTINGS if (found := build_setting(settings, name))), None)
    install = next((module.heroku["install"] for module in modules if module.heroku.get("install")), "")
    patterns = (wish.version if wish else install or _app_engine(source)).split()
    return _matching(mains, [_relative(pattern, modules) for pattern in patterns])


def program_name(folder: str, modules: tuple[Module, ...], import_path: str = "app") -> str:
    """What `go build` calls the executable: the import path's last part, major versions left out."""
    path = folder
    for module in sorted(modules, key=lambda item: -len(item.folder)):
        if folder == module.folder or folder.startswith(f"{module.folder}/" if module.folder else ""):
            path = posixpath.join(module.path, posixpath.relpath(folder or ".", module.folder or "."))
            break
    parts = [part for part in posixpath.normpath(path or import_path).split("/") if not re.fullmatch(r"v\d+", part)]
    return parts[-1] if parts and parts[-1] != "." else "app"


def _processes(names: list[str]) -> Iterator[ProcessType]:
    for index, name in enumerate(names):
        kind = "web" if index == 0 else re.sub(r"[^a-z0-9-]", "-", name.lower())
        yield ProcessType(name=kind, command=(f"bin/{name}",), source="detected")


def _ranked(mains: Iterable[str], modules: tuple[Module, ...]) -> list[str]:
    """The likeliest to serve first: by name, then the one named as the module, then by alphabet."""

    def rank(folder: str) -> tuple[int, bool, str]:
        name = posixpath.basename(folder)
        words = [FAVOURITES.index(word) for word in re.split(r"[-_]", name) if word in FAVOURITES]
        known = FAVOURITES.index(name) if name in FAVOURITES else len(FAVOURITES) + min(words, default=len(FAVOURITES))
        return known, not any(posixpath.basename(module.path) == name for module in modules), folder

    return sorted(mains, key=rank)


def _several(folders: list[str], modules: tuple[Module, ...], import_path: str) -> Iterator[str]:
    if len(folders) < 2 or program_name(folders[0], modules, import_path) == "web":
        return
    first, *others = folders
    yield (
        f"several programs: {first} taken for web. The others: {', '.join(others)}"
        f' (GO_BIN = "{others[0]}" under [build.env] in mini.toml chooses)'
    )


def _matching(mains: Iterable[str], patterns: list[str]) -> list[str]:
    """Main folders that `./cmd/...`, `cmd/web`, `cmd/web/main.go` or a bare name stand for, in the given order."""
    found: dict[str, None] = {}
    for pattern in patterns:
        path = re.sub(r"/?[^/]+\.go$", "", pattern) if pattern.endswith(".go") else pattern
        path = posixpath.normpath(path.removeprefix("./") or ".")
        wanted = "" if path == "." else path
        for folder in mains:
            inside = wanted == "..." or (wanted.endswith("/...") and f"{folder}/".startswith(wanted[:-3]))
            if (
                folder == wanted
                or inside
                or posixpath.basename(folder) == wanted
                or fnmatch.fnmatch(folder, wanted or "-")
            ):
                found[folder] = None
    return list(found)


def _app_engine(source: Source) -> str:
    """`main` of App Engine's app.yaml: the folder, or import path, of the program."""
    found = re.search(r"(?m)^main:\s*['\"]?([^\s'\"#]+)", source.text("app.yaml") or "")
    return found[1] if found else ""


def _relative(pattern: str, modules: tuple[Module, ...]) -> str:
    """An import path of one of the modules as a folder; anything else as it is."""
    module = next((item for item in modules if f"{pattern}/".startswith(f"{item.path}/")), None)
    return posixpath.join(module.folder, pattern[len(module.path) + 1 :] or ".") if module else pattern


def _mentioned(folder: str, modules: tuple[Module, ...], import_path: str, procfile: str) -> bool:
    name = re.escape(program_name(folder, modules, import_path))
    return bool(re.search(rf"(?m)^[\w-]+:(?:.*[\s/])?\s*{name}(?:\s|$)", procfile))


def _distinct(folders: list[str], modules: tuple[Module, ...], import_path: str) -> dict[str, str]:
    """Executable name → folder; of two with one name the first stays."""
    named: dict[str, str] = {}
    for folder in folders:
        named.setdefault(program_name(folder, modules, import_path), folder)
    return named


def _import_path(source: Source) -> str:
    """What a tree without modules calls itself, as the tools before them wrote it down."""
    godir = (source.text(".godir") or "").strip()
    found = (
        godir or _json(source, "Godeps/Godeps.json", "ImportPath") or _json(source, "vendor/vendor.json", "rootPath")
    )
    glide = re.search(r"(?m)^package:\s*['\"]?([^\s'\"]+)", source.text("glide.yaml") or "")
    path = found or (glide[1] if glide else "")
    clean = posixpath.normpath(path) if re.fullmatch(r"[\w./~-]+", path) else ""
    return clean if clean and not clean.startswith(("/", "..", ".")) else "app"


def _json(source: Source, file: str, key: str) -> str:
    try:
        data = json.loads(source.text(file) or "{}")
    except ValueError:
        return ""
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, str) else ""
