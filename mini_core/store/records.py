"""Rows of the store, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mini_core.api import DeployKind, DeployOptions, DeployState, Failure
from mini_core.manifest import CronJob, Scripts, Strategy
from mini_core.types import Endpoint, InstanceKind, Limits, Release, Secret, Value, Volume

AppPhase = Literal["new", "running", "stopped", "destroying"]
"""What is wanted of an app: "new" never had a release."""


class App(Value):
    """handle: the name it was created with, by which runtimes, labels and folders know it; a rename leaves it.

    hold: its requests wait while instances that cannot run side by side change over. limits: what the user set, by
    process type ("" is all).
    """

    id: int
    name: str
    handle: str
    created_at: float
    created_by: str
    state: AppPhase = "new"
    asleep: bool = False
    maintenance: bool = False
    hold: bool = False
    release: int | None = None
    deployed_at: float | None = None
    limits: Mapping[str, Limits] = {}


ReleaseState = Literal["pending", "live", "failed"]


class Extras(Value):
    """What the repository's files say beyond the plan, kept with the release that was made from them."""

    scripts: Scripts = Scripts()
    cron: tuple[CronJob, ...] = ()
    limits: Mapping[str, Limits] = {}
    volumes: tuple[Volume, ...] = ()
    strategy: Strategy | None = None
    idle: float | None = None
    formation: Mapping[str, int] = {}


class StoredRelease(Value):
    """addons: what plugins added to the environment. fingerprint: of all that makes it; the same one again is
    "unchanged". build_key: of all that went into its image."""

    release: Release
    state: ReleaseState
    addons: Mapping[str, Secret]
    fingerprint: str
    build_key: str
    image_kept: bool = True
    extras: Extras = Extras()


class Request(Value):
    """What a deploy was asked to do; stored encrypted, since env holds secrets.

    limits: changes, by process type ("" is all), where 0 takes a limit back. volumes: to be added. unmounted:
    names of those to go. version: the release to go back to. process: restart this type only.
    """

    options: DeployOptions = DeployOptions()
    env: Mapping[str, Secret] = {}
    unset: tuple[str, ...] = ()
    quantities: Mapping[str, int] = {}
    limits: Mapping[str, Limits] = {}
    volumes: tuple[Volume, ...] = ()
    unmounted: tuple[str, ...] = ()
    version: int | None = None
    process: str = ""


class Deploy(Value):
    id: int
    app: int
    kind: DeployKind
    state: DeployState
    step: str
    actor: str
    reason: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    timeout: float
    base_url: str = ""
    archive: str = ""
    digest: str = ""
    release: int | None = None
    generation: int | None = None
    unchanged: bool = False
    cancelled: bool = False
    failure: Failure | None = None


InstancePhase = Literal["new", "live", "retired"]


class Instance(Value):
    """phase: "new" belongs to its deploy, "live" to the reconciler, "retired" is on its way out.

    endpoint: the address it was given. found: where it listens instead. engine_restarts: how often the engine
    itself had restarted it when we last looked. next_try: when a crashed one is started again. command: of one that
    runs no process type's, as it is shown. attached: a client holds its streams, and it ends with them.
    """

    id: str
    app: int
    release: int
    process: str
    index: int
    kind: InstanceKind
    deploy: int | None = None
    phase: InstancePhase
    endpoint: Endpoint | None = None
    found: Endpoint | None = None
    routed: bool = False
    healthy: bool = False
    created_at: float
    started_at: float | None = None
    crashes: int = 0
    crashing_since: float | None = None
    next_try: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    engine_restarts: int = 0
    command: str = ""
    attached: bool = False

    @property
    def name(self) -> str:
        return f"{self.process}.{self.index}"

    @property
    def address(self) -> Endpoint | None:
        """Where it is to be reached."""
        return self.found or self.endpoint


class Work(Value):
    """A durable job: a plugin's hook or a clean-up, retried until it is done."""

    id: int
    kind: str
    app: str
    plugin: str
    data: Mapping[str, Any]
    created_at: float
    attempts: int = 0
    next_try: float = 0.0
    error: str = ""
