"""The app as the framework rules see it: its own package and folder, its scripts, its configuration's text."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mini_buildpacks.node.managers import Manager
from mini_buildpacks.node.package import Package
from mini_buildpacks.node.scripts import commands, option, runs
from mini_core.interfaces import Source
from mini_core.types import Cache, EnvEntry, StaticSite, Step, Value

EXTENSIONS = ("js", "mjs", "cjs", "ts", "mts", "cts")
_COMMENTS = re.compile(r"/\*.*?\*/|(?<![:\"'`\\])//[^\n]*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class App:
    """root: the package that is installed; package: the app's own (the same, unless it is a workspace's member)."""

    source: Source
    root: Package
    package: Package
    manager: Manager
    node_major: int

    @property
    def folder(self) -> str:
        return self.package.folder

    def path(self, relative: str) -> str:
        """A path of the app's folder, relative to the root."""
        return posixpath.normpath(posixpath.join(self.folder, relative))

    def has(self, relative: str) -> bool:
        return self.source.has(self.path(relative))

    def text(self, relative: str) -> str:
        return self.source.text(self.path(relative)) or ""

    def dep(self, *names: str) -> bool:
        """Whether the app itself depends on one of the packages."""
        return any(name in self.package.dependencies for name in names)

    def major(self, name: str) -> int | None:
        return self.package.major(name)

    def config(self, *stems: str) -> str:
        """The text of a configuration file (`vite.config` and any extension), comments removed; "" without one."""
        for stem in stems:
            for extension in EXTENSIONS:
                found = self.text(f"{stem}.{extension}")
                if found:
                    return _COMMENTS.sub("", found)
        return ""

    def json(self, relative: str) -> Mapping[str, Any]:
        """A JSON file (comments allowed, as in angular.json), {} where it is missing or broken."""
        text = self.text(relative)
        try:
            data = json.loads(text) if text else {}
        except ValueError:
            try:
                import json5

                data = json5.loads(text)
            except ValueError:
                return {}
        return data if isinstance(data, Mapping) else {}

    @property
    def build_script(self) -> str:
        """The name of the script that builds the app, "" without one."""
        return next((name for name in BUILD_SCRIPTS if name in self.package.scripts), "")

    @property
    def build_line(self) -> str:
        return self.package.scripts.get(self.build_script, "")

    def builds_with(self, program: str, *arguments: str) -> bool:
        """Whether the build script, followed into other scripts, runs the program."""
        return runs(self.build_line, program, *arguments, scripts=self.package.scripts)

    def build_option(self, *names: str) -> str:
        return option(self.build_line, *names, scripts=self.package.scripts)

    def build_commands(self) -> list[list[str]]:
        return list(commands(self.build_line, self.package.scripts))


BUILD_SCRIPTS = ("heroku-postbuild", "heroku-build", "build", "gcp-build")
"""The first that is there is run. Heroku's two take the place of `build` there too."""


class Outcome(Value):
    """What a framework makes of the app: a site to serve, or a server to start.

    start: argv to start the server when no start script does; static: the built site, its root relative to the
    source's root. own_start: the framework's start is better than a start script that says the same (`says`).
    build: argv that builds when there is no build script. after: steps that follow the build. tools: programs to
    install from the registry because the app brings none.
    """

    framework: str
    title: str
    static: StaticSite | None = None
    start: tuple[str, ...] = ()
    own_start: bool = False
    build: tuple[str, ...] = ()
    after: tuple[Step, ...] = ()
    tools: tuple[str, ...] = ()
    caches: tuple[Cache, ...] = ()
    env: tuple[EnvEntry, ...] = ()
    warnings: tuple[str, ...] = ()


_HERE = r"(?:__dirname|process\.cwd\(\)|import\.meta\.dirname)"
"""What stands for the configuration's own folder in it."""


def _after(key: str) -> str:
    return rf"[\s{{,(\"']{re.escape(key)}[\"']?\s*[:=]\s*"


def quoted(text: str, key: str) -> str:
    """The string that a configuration gives a key (`outDir: "build"`), "" where it is none or computed."""
    found = re.search(_after(key) + r"[\"'`]([^\"'`$]*)[\"'`]", " " + text)
    return found[1] if found else ""


def folder_of(text: str, key: str, base: str = "") -> str:
    """The folder that a configuration gives a key, relative to its own: a literal is relative to `base`,
    `path.resolve(__dirname, "build")` is not. "" where it says nothing, or computes it otherwise."""
    literal = quoted(text, key)
    if literal:
        return posixpath.normpath(posixpath.join(base, literal)).lstrip("/")
    joined = re.search(_after(key) + rf"(?:path\.)?(?:resolve|join)\(\s*{_HERE}([^()]*)\)", " " + text)
    parts = re.findall(r"[\"']([^\"']*)[\"']", joined[1]) if joined else []
    return posixpath.normpath(posixpath.join(*parts)).lstrip("/") if parts else ""


def flag(text: str, key: str, wanted: str) -> bool:
    """Whether a configuration sets a key to a bare word such as `false`."""
    return bool(re.search(rf"[\s{{,(\"']{re.escape(key)}[\"']?\s*[:=]\s*{wanted}\b", " " + text))
