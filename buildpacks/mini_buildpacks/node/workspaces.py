"""Repositories of several packages: npm's, yarn's and bun's `workspaces`, pnpm-workspace.yaml, lerna.json.

The packages share one lock file and are installed together in the root; one of them is the app.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from mini_buildpacks.node.package import Package, load_yaml, parse, read_package, strings, table
from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.types import Value

FAVOURITES = ("web", "www", "site", "website", "app", "frontend", "client", "server", "api", "backend")
"""Names that the main app of several usually has, most usual first."""


class Workspace(Value):
    """The root's package and its members, by path."""

    root: Package
    members: tuple[Package, ...] = ()

    def named(self, name: str) -> Package | None:
        """A member by its package name, its folder or the folder's last part."""
        return next(
            (item for item in self.members if name in (item.name, item.folder, posixpath.basename(item.folder))), None
        )

    def needs(self, member: Package) -> tuple[Package, ...]:
        """The members that it depends on, each after those it depends on itself."""
        by_name = {item.name: item for item in self.members if item.name}
        ordered: dict[str, Package] = {}

        def visit(item: Package, path: tuple[str, ...]) -> None:
            for name in item.dependencies:
                other = by_name.get(name)
                if other and name not in ordered and name not in path:
                    visit(other, (*path, name))
                    ordered[name] = other

        visit(member, (member.name,))
        return tuple(ordered.values())


def read_workspace(source: Source, root: Package) -> Workspace:
    """The root and its members; no members where it is a package of its own. Raises ConfigError."""
    patterns = _patterns(source, root)
    keep = [_folder(item) for item in patterns if not item.startswith("!")]
    drop = [_folder(item[1:]) for item in patterns if item.startswith("!")]
    folders = _expand(source, keep) - _expand(source, drop) - {""}
    members = (read_package(source, folder) for folder in sorted(folders) if "node_modules" not in folder.split("/"))
    return Workspace(root=root, members=tuple(item for item in members if item))


def order_of_preference(members: Iterable[Package]) -> tuple[Package, ...]:
    """Members, the likeliest main app first."""

    def rank(item: Package) -> tuple[int, str]:
        names = (posixpath.basename(item.folder), item.name.rpartition("/")[2])
        known = [FAVOURITES.index(name) for name in names if name in FAVOURITES]
        return (min(known, default=len(FAVOURITES)), item.folder)

    return tuple(sorted(members, key=rank))


def local_dependencies(package: Package) -> tuple[str, ...]:
    """Folders and archives in the repository that dependencies point to (`file:`, `link:`, `portal:`)."""
    found = []
    for spec in package.dependencies.values():
        match = re.match(r"(?:file:|link:|portal:)(?://)?(.+)", spec) or re.match(r"(\.{1,2}/.+)", spec)
        if match:
            path = posixpath.normpath(posixpath.join(package.folder, match[1]))
            if not path.startswith(("..", "/")) and path != ".":
                found.append(path)
    return tuple(found)


def _patterns(source: Source, root: Package) -> tuple[str, ...]:
    text = source.text("pnpm-workspace.yaml")
    if text is not None:
        try:
            found = strings(table(load_yaml(text)).get("packages"))
        except ValueError as error:
            raise ConfigError(f"pnpm-workspace.yaml: {str(error).splitlines()[0]}", hint="Correct the file.") from error
        if found:
            return tuple(found)
    if root.workspaces:
        return root.workspaces
    text = source.text("lerna.json")
    lerna: Mapping[str, object] = parse("lerna.json", text) if text is not None else {}
    return tuple(strings(lerna.get("packages"))) or (("packages/*",) if lerna else ())


def _folder(pattern: str) -> str:
    return posixpath.normpath(pattern.strip("/ ")).removeprefix("./")


def _expand(source: Source, patterns: Iterable[str]) -> set[str]:
    """The folders that globs name and that hold a package."""
    return {
        path.rpartition("/")[0]
        for pattern in patterns
        for name in ("package.json", "package.json5", "package.yaml")
        for path in source.glob(f"{pattern}/{name}")
    }
