"""What travels over the HTTP API: the requests and answers of `/v1`, shared by server and client.

All times are seconds since the epoch, sizes are bytes. The server's OpenAPI document is made from these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mini_core.types import Check, Limits, Origin, Plan, ProcessType, Secret, Value, Volume

STEPS = ("received", "planned", "built", "released", "starting", "healthy", "routed", "drained", "done")
"""A deploy's steps, in order. "routed" is the commit point: before it recovery rolls back, after it forward."""

DeployKind = Literal["deploy", "env", "rollback", "scale", "restart", "start", "volumes", "addon"]
DeployState = Literal["waiting", "running", "done", "failed", "cancelled"]


class Problem(Value):
    """An error, as `application/problem+json` (RFC 9457): title is one line, hint says what to do."""

    type: str = "about:blank"
    status: int
    title: str
    code: str
    hint: str = ""
    step: str = ""
    tail: tuple[str, ...] = ()


class Failure(Value):
    """Why a deploy failed, kept with it. code: a stable word. tail: last lines of the step's own log, redacted."""

    code: str
    message: str
    hint: str = ""
    step: str = ""
    exit_code: int | None = None
    signal: int | None = None
    tail: tuple[str, ...] = ()


class DeployOptions(Value):
    """Sent with a source, as JSON in the header `Mini-Deploy`.

    env: set with the deploy (--env-file). timeout in seconds. create: make the app if it does not exist.
    path: the app's folder in the source, overriding mini.toml. not_sent: env files that were left out, for a hint.
    """

    origin: Origin | None = None
    env: Mapping[str, str] = {}
    timeout: float = 900.0
    create: bool = True
    buildpack: str = ""
    path: str = ""
    no_cache: bool = False


class DeployInfo(Value):
    """A deploy: everything that makes or replaces instances is one. waiting_for: id of the deploy in front."""

    id: int
    app: str
    kind: DeployKind
    state: DeployState
    step: str
    actor: str
    created_at: float
    finished_at: float | None = None
    release: int | None = None
    unchanged: bool = False
    url: str = ""
    urls: tuple[str, ...] = ()
    failure: Failure | None = None
    waiting_for: int | None = None
    reason: str = ""


class DeployEvent(Value):
    """One line of a deploy's log. seq only grows.

    kind: "step" (text is the step's name, data["phase"] is "begin" or "end", data["seconds"]), "output" (a
    tool's own line), "info", "warning", "progress" (not stored), "failed", "done", "cancelled". After one of the
    last three the stream ends; data then holds the DeployInfo.
    """

    seq: int
    at: float
    kind: str
    text: str = ""
    data: Mapping[str, Any] = {}


AppState = Literal["new", "running", "degraded", "crashed", "stopped", "asleep", "maintenance", "deploying"]


class AppInfo(Value):
    """idle: seconds without a request after which it sleeps; 0: never."""

    name: str
    state: AppState
    created_at: float
    release: int | None = None
    url: str = ""
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    runtime: str = ""
    buildpack: str = ""
    formation: Mapping[str, int] = {}
    running: Mapping[str, int] = {}
    deployed_at: float | None = None
    note: str = ""
    idle: float = 0.0


class InstanceInfo(Value):
    """A line of `mini ps`. state: "starting", "running", "unhealthy", "crashed", "stopping", "stopped", "asleep".

    note: in plain words, with numbers ("crashed 14 times since 02:03, out of memory (512 MB), next try in 60 s").
    """

    name: str
    id: str
    process: str
    index: int
    release: int
    state: str
    command: str = ""
    since: float | None = None
    restarts: int = 0
    memory: int | None = None
    memory_limit: int | None = None
    cpu: float | None = None
    endpoint: str = ""
    note: str = ""
    hint: str = ""


class ReleaseInfo(Value):
    """state: "live" (it took traffic at some time), "pending", "failed"."""

    version: int
    created_at: float
    created_by: str
    reason: str
    runtime: str
    current: bool = False
    image: str = ""
    image_kept: bool = True
    commit: str = ""
    changed: int = 0
    plan: Plan | None = None
    processes: tuple[ProcessType, ...] = ()
    env: Mapping[str, str] = {}
    limits: Mapping[str, Limits] = {}
    volumes: tuple[Volume, ...] = ()
    plugins: Mapping[str, str] = {}
    state: str = "live"


class EnvChange(Value):
    """set and unset variables; build: the build-time ones. An unchanged environment makes no release."""

    set: Mapping[str, str] = {}
    unset: tuple[str, ...] = ()
    build: bool = False


class Scale(Value):
    """quantities by process type. limits apply to `process`, or to all where it is "". "reset" is 0."""

    quantities: Mapping[str, int] = {}
    memory: int | None = None
    cpu: float | None = None
    process: str = ""

    def describe(self) -> str:
        """Such as "web=2 worker=1" or "memory=512m cpu=0.5 for worker"."""
        words = [f"{name}={quantity}" for name, quantity in sorted(self.quantities.items())]
        if self.memory is not None:
            words.append(f"memory={f'{self.memory / 1024 / 1024:.4g}m' if self.memory else 'none'}")
        if self.cpu is not None:
            words.append(f"cpu={f'{self.cpu:g}' if self.cpu else 'none'}")
        return " ".join(words) + (f" for {self.process}" if self.process else "")


class NewApp(Value):
    """name: "" lets the server choose one."""

    name: str = ""


class Rename(Value):
    name: str


class Rollback(Value):
    """version: None is the one before the current."""

    version: int | None = None


class DomainChange(Value):
    domain: str


class DomainInfo(Value):
    """kind: "default" or "added". dns: the record to make, where one is needed."""

    domain: str
    url: str
    kind: str
    dns: str = ""
    note: str = ""


class VolumeChange(Value):
    target: str
    name: str = ""


class Toggle(Value):
    on: bool


class NewKey(Value):
    """app: limits the key to it. expires_in: seconds."""

    name: str
    app: str = ""
    expires_in: float | None = None


class KeyInfo(Value):
    name: str
    created_at: float
    app: str = ""
    expires_at: float | None = None
    used_at: float | None = None


class CreatedKey(Value):
    """key is shown this once: only its hash is kept."""

    name: str
    key: str


class PluginInfo(Value):
    """state: "ok", "broken" (reason says why), "disabled". origin: the distribution it comes from."""

    name: str
    version: str
    origin: str
    state: str
    hooks: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    reason: str = ""


class BuildpackInfo(Value):
    name: str
    description: str
    plugin: str
    version: str


class OfferInfo(Value):
    buildpack: str
    strength: str
    reason: str


class PlanInfo(Value):
    """What `mini plan` shows: the plan, the offers that lost, what else could be deployed, generated files."""

    plan: Plan
    offers: tuple[OfferInfo, ...] = ()
    alternatives: tuple[str, ...] = ()
    files: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class StatusInfo(Value):
    """state: "ok" or "degraded". problems: one line each, followed by the command that shows or mends it."""

    version: str
    platform: str
    state: str
    runtime: str
    router: str
    url: str
    pid: int
    started_at: float
    domain: str = ""
    notice: str = ""
    router_status: Mapping[str, Any] = {}
    apps: tuple[AppInfo, ...] = ()
    deploys: tuple[DeployInfo, ...] = ()
    problems: tuple[str, ...] = ()
    disk_free: int = 0
    disk_used: int = 0


class RestoreEvent(Value):
    """What a restore says while it goes on. The last one is "done" or "failed", which says why as a Problem does."""

    kind: Literal["info", "warning", "done", "failed"]
    text: str
    code: str = ""
    hint: str = ""


class DoctorInfo(Value):
    checks: tuple[Check, ...]


class OneOffRequest(Value):
    """A one-off (`run`) or a command in a running instance (`exec`; instance is its name, such as "web.1")."""

    command: tuple[str, ...]
    tty: bool = False
    rows: int = 24
    columns: int = 80
    env: Mapping[str, Secret] = {}
    instance: str = ""


class Started(Value):
    """A one-off that goes on by itself. name: as which `ps` and logs have it, such as "run.1"."""

    name: str
    id: str
