"""What the repository's files can ask for, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mini_core.types import BuildSettings, EnvEntry, Limits, ProcessType, Value, Volume


class HealthSettings(Value):
    """What a file says about health; None where it says nothing. Seconds."""

    path: str | None = None
    timeout: float | None = None
    interval: float | None = None


class CronJob(Value):
    """A command at set times: five cron fields (or a word such as "@daily") and a shell line."""

    name: str
    schedule: str
    command: str


class MonorepoApp(Value):
    """One of a monorepo's apps. watch: globs of the files whose changes concern it, besides its own folder's;
    empty is every file."""

    name: str
    path: str
    watch: tuple[str, ...] = ()


Strategy = Literal["rolling", "recreate"]
"""rolling: the new release is healthy before the old one is touched. recreate: the old one has stopped before the new
one starts, for apps whose volume allows one writer; requests wait meanwhile."""


class Scripts(Value):
    """app.json's scripts, as shell lines. postdeploy: once, when the app is created. dokku_*: at every deploy."""

    postdeploy: str = ""
    dokku_predeploy: str = ""
    dokku_postdeploy: str = ""


class Manifest(Value):
    """All that the repository's files ask for. Mappings are empty, strings "" where they say nothing.

    processes: shell lines of mini.toml's `[processes]`, "" for a type to leave out. procfile: the Procfile's.
    buildpacks: as app.json names them. idle: seconds without a request after which the app sleeps, 0 for never.
    """

    app: str = ""
    path: str = ""
    build: BuildSettings = BuildSettings()
    processes: Mapping[str, str] = {}
    env: tuple[EnvEntry, ...] = ()
    health: HealthSettings = HealthSettings()
    limits: Mapping[str, Limits] = {}
    cron: tuple[CronJob, ...] = ()
    volumes: tuple[Volume, ...] = ()
    strategy: Strategy | None = None
    idle: float | None = None
    apps: tuple[MonorepoApp, ...] = ()
    plugins: Mapping[str, Mapping[str, Any]] = {}
    procfile: tuple[ProcessType, ...] = ()
    formation: Mapping[str, int] = {}
    buildpacks: tuple[str, ...] = ()
    scripts: Scripts = Scripts()
    warnings: tuple[str, ...] = ()

    def named(self, app: str) -> MonorepoApp | None:
        return next((item for item in self.apps if item.name == app), None)
