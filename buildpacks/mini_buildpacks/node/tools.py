"""Programs that the scripts call and that no dependency brings: people have them on their machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mini_buildpacks.node.app import App
from mini_buildpacks.node.scripts import programs
from mini_core.interfaces import Source

_SPECS: Mapping[str, str] = {
    "bun": "bun@1",
    "bunx": "bun@1",
    "pnpm": "pnpm@10",
    "yarn": "yarn@1.22.22",
    "serve": "serve@14",
    "http-server": "http-server@14",
    "pm2": "pm2@6",
    "pm2-runtime": "pm2@6",
    "nodemon": "nodemon@3",
    "ts-node": "ts-node@10",
    "tsx": "tsx@4",
}
"""Program → what installs it. Only those that are commonly installed for a whole machine."""

_BROUGHT_BY = {"bunx": "bun", "pm2-runtime": "pm2"}


def missing_tools(source: Source, app: App) -> tuple[str, ...]:
    """What to install for the scripts that build and start the app, and for the Procfile."""
    known = {app.manager.name, "bunx" if app.manager.name == "bun" else ""}
    known.update(app.root.dependencies, app.package.dependencies)
    wanted = (name for line in _lines(source, app) for name in programs(line, app.package.scripts))
    return tuple(dict.fromkeys(
        _SPECS[name] for name in wanted if name in _SPECS and name not in known and _BROUGHT_BY.get(name) not in known
    ))  # fmt: skip


def _lines(source: Source, app: App) -> Iterator[str]:
    scripts = app.package.scripts
    yield from (scripts.get(name, "") for name in ("start", app.build_script, "postinstall", "prepare"))
    for line in (source.text("Procfile") or "").splitlines():
        name, colon, command = line.partition(":")
        yield command if colon and not name.strip().startswith("#") else ""
