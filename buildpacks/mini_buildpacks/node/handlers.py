"""Apps that only export a handler of requests (`export default app`), as edge platforms and Bun serve them: on Node,
srvx does (https://srvx.h3.dev)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mini_buildpacks.node.app import App, Outcome
from mini_buildpacks.node.rules import shell
from mini_buildpacks.node.start import compiled

SRVX = "srvx@1"

_LIBRARIES = {"hono": "Hono", "h3": "h3", "elysia": "Elysia"}
"""Their applications have a `fetch` method, which is all that is asked of a default export."""

_STEMS = ("src/index", "index", "src/server", "server", "src/app", "app", "src/main", "main")
_EXTENSIONS = ("ts", "mts", "js", "mjs")
_EXPORTS = re.compile(r"(?m)^export\s+(?:default\b|\{[^}]*\bas\s+default\b)")
_LISTENS = re.compile(r"\bserve\s*\(|\.listen\s*\(|\bcreateServer\b")
_STRIPS_TYPES = 22
"""The first Node that runs TypeScript as it is."""


def handler(app: App) -> Outcome | None:
    """None for an app that listens by itself, and with Bun, which serves what is exported."""
    name = next((title for package, title in _LIBRARIES.items() if app.dep(package)), "")
    old = app.dep("h3") and (app.major("h3") or 2) < 2  # without `fetch`
    if not name or old or app.manager.name == "bun":
        return None
    entry = next(_entries(app), "")
    if not entry:
        return None
    file = compiled(app, entry) or entry
    if file.endswith(("ts", "mts")) and app.node_major < _STRIPS_TYPES:
        return None
    line = f'exec srvx serve --prod --host "${{HOST:-0.0.0.0}}" --port "$PORT" --entry {file}'
    return Outcome(framework=name.lower(), title=name, start=shell(app, line), tools=(SRVX,))


def _entries(app: App) -> Iterator[str]:
    for stem in _STEMS:
        for extension in _EXTENSIONS:
            text = app.text(f"{stem}.{extension}")
            if text:
                if _EXPORTS.search(text) and not _LISTENS.search(text):
                    yield f"{stem}.{extension}"
                return  # the first that is there is the one that is meant
