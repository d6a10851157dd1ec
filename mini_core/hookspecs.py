"""The hooks. A plugin is a class with methods of these names, marked with `hookimpl`, and constructed without I/O.

Register it as an entry point in the group `mini`; the entry point's name is the plugin's name. Each hook has a
kind, which says how answers are used (see `KINDS`); no hook depends on the order in which plugins are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pluggy

from mini_core.interfaces import (
    Builder,
    Buildpack,
    CheckRun,
    EndpointSpec,
    LogSink,
    Page,
    Platform,
    Router,
    Runtime,
    Source,
)
from mini_core.types import Event, Plan, Release, Step, Value

hookspec = pluggy.HookspecMarker("mini")
hookimpl = pluggy.HookimplMarker("mini")

KINDS: Mapping[str, str] = {
    "providing": "collected; objects with unique names, chosen by name, priority or evidence",
    "amending": "additions only; two plugins that disagree are an error naming both",
    "deciding": "all are asked and refusals collected; an unexpected exception refuses, naming the plugin",
    "durable": "stored jobs, retried until done; each part is idempotent",
    "notifying": "called after the fact, at least once, isolated from everything else",
    "life cycle": "called in the server only",
}


class Context(Value):
    """Where providers find what they may need to construct their objects. No I/O happens while constructing.

    platform: this platform's id. data: its data folder; a plugin keeps its own below data/plugins/NAME. cache:
    may be lost at any time. images: `[images]` of server.toml (toolchain or toolchain:version → image). settings:
    `[plugins.NAME]` of server.toml, by plugin. disk_reserve: bytes that must stay free (see `mini_core.disk`).
    """

    platform: str
    data: Path
    cache: Path
    images: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    disk_reserve: int = 0


class PlanAmendment(Value):
    """Additions to a plan: environment defaults, packages, steps after the plan's own, processes it lacks."""

    env: Mapping[str, str] = {}
    packages: tuple[str, ...] = ()
    runtime_packages: tuple[str, ...] = ()
    processes: Mapping[str, tuple[str, ...]] = {}
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


# --- providing


@hookspec
def mini_detect() -> Iterable[Buildpack]:  # type: ignore[empty-body]
    """providing: buildpacks, which recognise a language or framework in a source."""


@hookspec
def mini_build(context: Context) -> Iterable[Builder]:  # type: ignore[empty-body]
    """providing: builders, which turn a plan into an image."""


@hookspec
def mini_run(context: Context) -> Iterable[Runtime]:  # type: ignore[empty-body]
    """providing: runtimes, which start instances of an image."""


@hookspec
def mini_route(context: Context) -> Iterable[Router]:  # type: ignore[empty-body]
    """providing: routers, which bring requests to instances."""


@hookspec
def mini_log(context: Context) -> Iterable[LogSink]:  # type: ignore[empty-body]
    """providing: log sinks, which get every log line of every app, redacted."""


@hookspec
def mini_api() -> Iterable[EndpointSpec]:  # type: ignore[empty-body]
    """providing: HTTP endpoints below /v1/x/PLUGIN/, authenticated by the core."""


@hookspec
def mini_pages() -> Iterable[Page]:  # type: ignore[empty-body]
    """providing: static pages below /x/PLUGIN/, open to everyone who reaches the server."""


@hookspec
def mini_doctor() -> Iterable[CheckRun]:  # type: ignore[empty-body]
    """providing: checks for `mini doctor`."""


# --- amending


@hookspec
def mini_amend_plan(source: Source, plan: Plan) -> PlanAmendment | None:
    """amending: additions to a plan, from the source; pure, like detection."""


@hookspec
def mini_release_env(app: str) -> Mapping[str, str] | None:
    """amending: variables that a new release of the app gets, such as an add-on's URL. They are secrets."""


# --- deciding


@hookspec
def mini_check_deploy(app: str, plan: Plan, release: Release | None) -> Sequence[str] | None:
    """deciding: reasons to refuse the deploy, each one line. release: the one that runs now, if any."""


# --- durable


@hookspec
def mini_app_destroy(app: str) -> None:
    """durable: removes what the plugin keeps outside the platform's store for an app that is gone."""


@hookspec
def mini_app_rename(old: str, new: str) -> None:
    """durable: the app has a new name."""


@hookspec
def mini_backup(folder: Path) -> None:
    """durable: writes what the plugin needs to be restored into the folder, which is empty."""


@hookspec
def mini_restore(folder: Path) -> None:
    """durable: takes back what `mini_backup` wrote."""


# --- notifying


@hookspec
def mini_event(event: Event) -> None:
    """notifying: something happened (app.created, deploy.done, deploy.failed, instance.crashed, …)."""


# --- life cycle


@hookspec
def mini_start(platform: Platform) -> None:
    """life cycle: the server starts; keep `platform` to use it later."""


@hookspec
def mini_stop() -> None:
    """life cycle: the server stops."""
