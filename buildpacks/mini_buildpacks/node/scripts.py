"""What the lines under `scripts` do, as far as it can be told by reading them.

A start script that runs a development server (`vite`, `ng serve`, `react-scripts start`) is no way to serve
users; a script that runs after the install may need the whole source, a folder of it, or nothing at all.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from mini_core.types import Value

_SEPARATORS = re.compile(r"&&|\|\||[;&|\n]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_RUNNERS = {"npx", "bunx", "cross-env", "cross-env-shell", "env", "exec", "dotenv", "dotenvx", "env-cmd", "time"}
_LIFECYCLE = ("preinstall", "install", "postinstall", "prepare")
"""What managers run by themselves for the root when they install, in that order."""

# Program → the first arguments with which it is a development server; "" stands for none.
_DEV_SERVERS: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split("|"))
    for name, words in {
        "vite": "|dev|serve|preview",
        "react-scripts": "start",
        "react-app-rewired": "start",
        "craco": "start",
        "preact": "watch|serve",
        "ng": "serve|s",
        "vue-cli-service": "serve",
        "webpack": "serve",
        "webpack-cli": "serve",
        "webpack-dev-server": "",
        "rspack": "serve|dev|preview",
        "rsbuild": "|dev|preview",
        "parcel": "|serve|watch",
        "gatsby": "develop|start|serve",
        "eleventy": "",
        "docusaurus": "start|serve",
        "docusaurus-start": "",
        "next": "|dev",
        "nuxt": "|dev",
        "nuxi": "dev",
        "astro": "|dev|preview|start",
        "remix": "dev",
        "react-router": "dev",
        "expo": "|start",
        "stencil": "build|dev",
        "brunch": "watch|w",
        "vitepress": "|dev|preview|serve",
        "vuepress": "dev",
        "hexo": "server|s",
        "svelte-kit": "dev|preview",
        "snowpack": "dev",
        "umi": "dev",
        "max": "dev",
        "ember": "serve|server|s",
        "ionic": "serve",
        "storybook": "dev",
        "start-storybook": "",
        "nitro": "dev",
        "vinxi": "dev",
        "rescript": "",
        "live-server": "",
        "browser-sync": "start",
        "polymer": "serve",
        "gridsome": "develop",
        "rspress": "dev|preview",
        "vocs": "dev|preview",
        "slidev": "",
        "quasar": "dev",
        "elm-app": "start",
        "sapper": "dev",
        "vercel": "|dev",
        "vc": "|dev",
        "wrangler": "|dev",
        "netlify": "dev",
    }.items()
}
_ANY_ARGUMENT = {"webpack-dev-server", "docusaurus-start", "start-storybook", "live-server", "slidev"}
_WATCHERS = {"nodemon", "ts-node-dev", "tsnd", "node-dev", "supervisor", "concurrently"}
_HARMLESS = {
    "echo", "printf", "true", "exit", ":", "husky", "is-ci", "simple-git-hooks", "lefthook", "only-allow", "pinst",
    "check-node-version", "check-engine", "opencollective-postinstall", "opencollective", "patch-package", "which",
    "ngcc", "electron-builder", "husky-init", "playwright", "puppeteer", "allow-scripts", "skip-ci", "test", "[",
}  # fmt: skip
_FILES_OF = {"patch-package": ("patches",), "prisma": ("prisma", "prisma.config.ts", "schema.prisma")}


class Lifecycle(Value):
    """What the root's own install scripts need.

    scripts: those that are set, in the order in which they run. files: what they read, where that is known.
    needs_source: at least one may read anything. before: one of those runs before the install.
    """

    scripts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    needs_source: bool = False
    before: bool = False


def lifecycle(scripts: Mapping[str, str]) -> Lifecycle:
    """The root's install scripts, sorted into those that need the source and those that do not."""
    present = tuple(name for name in _LIFECYCLE if name in scripts)
    files: list[str] = []
    needing = []
    for name in present:
        for argv in commands(scripts[name], scripts):
            known = _FILES_OF.get(argv[0])
            if known and (argv[0] != "prisma" or argv[1:2] == ["generate"]):
                files += [*known, *_schema(argv)]
            elif not _harmless(argv):
                needing.append(name)
    return Lifecycle(
        scripts=present,
        files=tuple(dict.fromkeys(files)),
        needs_source=bool(needing),
        before="preinstall" in needing,
    )


def commands(line: str, scripts: Mapping[str, str] | None = None, depth: int = 0) -> Iterator[list[str]]:
    """The simple commands of a script line, without assignments and runners; `npm run X` becomes what X runs."""
    for part in _SEPARATORS.split(line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            words = part.split()
        argv = _unwrapped(words)
        if not argv:
            continue
        inner = _script_name(argv, scripts or {})
        if inner and scripts and depth < 8:
            yield from commands(scripts[inner], scripts, depth + 1)
        else:
            yield argv


def programs(line: str, scripts: Mapping[str, str] | None = None) -> Iterator[str]:
    """The programs that a line calls, the managers that run its scripts included."""
    for part in _SEPARATORS.split(line):
        words = [word for word in part.split() if not _ASSIGNMENT.fullmatch(word)]
        yield from words[:1]
    yield from (argv[0] for argv in commands(line, scripts))


def is_dev_server(line: str, scripts: Mapping[str, str] | None = None) -> bool:
    """Whether the line starts a server that is made for development."""
    return any(_dev_server(argv) for argv in commands(line, scripts))


def is_watcher(line: str, scripts: Mapping[str, str] | None = None) -> bool:
    """Whether the line starts the app under a tool that restarts it when files change."""
    return any(argv[0] in _WATCHERS or _watches(argv) for argv in commands(line, scripts))


def runs(line: str, program: str, *arguments: str, scripts: Mapping[str, str] | None = None) -> bool:
    """Whether one of the line's commands is the program with these first arguments."""
    return any(
        argv[0] == program and tuple(argv[1 : 1 + len(arguments)]) == arguments for argv in commands(line, scripts)
    )


def option(line: str, *names: str, scripts: Mapping[str, str] | None = None) -> str:
    """The value of an option (`--out-dir x`, `--out-dir=x`, `-o x`) in a script line, "" without it."""
    for argv in commands(line, scripts):
        for index, word in enumerate(argv):
            name, equals, given = word.partition("=")
            if name in names:
                return given if equals else next(iter(argv[index + 1 :]), "")
    return ""


def _unwrapped(words: list[str]) -> list[str]:
    while words:
        first = words[0].rpartition("/")[2] if "node_modules/.bin/" in words[0] else words[0]
        if _ASSIGNMENT.fullmatch(first) or first in ("--", "-y", "--yes", "(", "!", "--bun"):
            words = words[1:]
        elif first in _RUNNERS or (
            first in ("pnpm", "yarn", "npm", "bun") and words[1:2] in (["exec"], ["dlx"], ["x"])
        ):
            words = words[1:] if first in _RUNNERS else words[2:]
            while words and words[0].startswith("-"):
                words = words[2:] if words[0] in ("-e", "-f", "-c") else words[1:]
        else:
            return [first, *words[1:]]
    return []


def _script_name(argv: list[str], scripts: Mapping[str, str]) -> str:
    """The script that a command runs through a manager, "" where it runs none."""
    if argv[0] not in ("npm", "pnpm", "yarn", "bun", "run-s", "npm-run-all", "run-p"):
        return ""
    words = [word for word in argv[1:] if not word.startswith("-")]
    if words[:1] in (["run"], ["run-script"]):
        words = words[1:]
    elif argv[0] == "npm" and words[:1] not in (["start"], ["test"]):
        return ""
    return words[0] if words and words[0] in scripts else ""


def _dev_server(argv: list[str]) -> bool:
    known = _DEV_SERVERS.get(argv[0])
    if known is None:
        return False
    if argv[0] == "eleventy":
        return "--serve" in argv or "--watch" in argv
    if argv[0] == "stencil":
        return any(flag in argv for flag in ("--dev", "--watch", "--serve"))
    if argv[0] in _ANY_ARGUMENT:
        return True
    first = next((word for word in argv[1:] if not word.startswith("-")), "")
    if argv[0] in ("parcel", "vite", "vitepress") and first and first not in known:
        return first not in ("build", "optimize", "init", "help", "version")
    return first in known


def _watches(argv: list[str]) -> bool:
    return argv[0] in ("node", "tsx", "bun", "ts-node") and any(word in ("watch", "--watch", "--hot") for word in argv)


def _harmless(argv: list[str]) -> bool:
    """Whether a command reads nothing of the source."""
    if argv[0] in _HARMLESS:
        return True
    return argv[0] == "node" and argv[1:2] in (["-v"], ["--version"], ["-e"], ["-p"])


def _schema(argv: list[str]) -> list[str]:
    found = [word.partition("=")[2] or following for word, following in zip(argv, [*argv[1:], ""], strict=True)
             if word.partition("=")[0] == "--schema"]  # fmt: skip
    return [item.removeprefix("./") for item in found if item]
