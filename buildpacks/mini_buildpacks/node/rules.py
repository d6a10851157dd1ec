"""What the rules for frameworks are made of."""

from __future__ import annotations

from collections.abc import Callable

from mini_buildpacks.node.app import App, Outcome
from mini_core.errors import PlanError
from mini_core.types import StaticSite

Rule = Callable[[App], Outcome | None]
"""None where the app does without the framework."""


def site(app: App, root: str, *, fallback: str = "", immutable: tuple[str, ...] = ()) -> StaticSite:
    """A site in a folder of the app's. Raises PlanError for one outside of the source, which is not there to serve."""
    folder = app.path(root)
    if folder.startswith("/") or folder.split("/")[0] == "..":
        raise PlanError(
            f"the build writes to {folder}, outside of what is deployed",
            hint="Deploy the folder that holds both, or change the output folder in the build's configuration.",
        )
    return StaticSite(root=folder, fallback=fallback, immutable=immutable)


def shell(app: App, line: str) -> tuple[str, ...]:
    """A command with variables, run in the app's folder."""
    return ("sh", "-c", f"cd {app.folder} && {line}" if app.folder else line)


def node(app: App, file: str) -> tuple[str, ...]:
    return app.manager.node(app.path(file))
