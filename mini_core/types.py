"""The values that flow through mini.

    Source → Offers → Plan → Image → Release → Instances → Routes

All are subclasses of `Value`: frozen, keyword-only and deeply immutable (sequences are tuples, mappings are read-only
copies). They hold no behaviour beyond looking things up in themselves. `replace` makes one that differs; `encode` and
`decode` turn them into JSON and back; readers ignore fields they don't know, so an older mini reads what a newer one
stored. Values that are stored carry `schema`, raised when a field changes its meaning.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Literal, TypeVar, dataclass_transform

import msgspec
from msgspec.structs import force_setattr

T = TypeVar("T")


class Secret:
    """A string that must not be shown: prints as `[REDACTED]`; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "[REDACTED]"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


_SCALAR = re.compile(r"(?:(?:str|int|float|bool|bytes|None)(?: \| )?)+")
"""Annotations of fields that hold nothing to be changed."""


class _ValueType(msgspec.StructMeta):
    """msgspec inherits `frozen`, but wants `kw_only` said at each class. _containers: fields that may hold something
    that can be changed; log lines, of which there are many, have none."""

    _containers: tuple[str, ...] = ()

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], **options: Any) -> _ValueType:
        made = super().__new__(cls, name, bases, body, **{"kw_only": True, **options})
        kinds: dict[str, object] = {}
        for base in reversed(made.__mro__):
            kinds |= getattr(base, "__annotations__", {})
        made._containers = tuple(name for name in made.__struct_fields__ if not _SCALAR.fullmatch(str(kinds[name])))
        return made


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value(msgspec.Struct, frozen=True, metaclass=_ValueType):
    """The base of all values: frozen, keyword-only, its mappings and sequences cannot be changed after it is made."""

    def __post_init__(self) -> None:
        for name in type(self)._containers:
            item = getattr(self, name)
            if isinstance(item, dict):
                force_setattr(self, name, MappingProxyType(dict(item)))
            elif isinstance(item, list):
                force_setattr(self, name, tuple(item))


V = TypeVar("V", bound=Value)


def replace(item: V, **changes: Any) -> V:
    """The same value with other fields. Raises TypeError for a field that it does not have."""
    return msgspec.structs.replace(item, **changes)


def _encode_hook(item: Any) -> Any:
    if isinstance(item, MappingProxyType):
        return dict(item)
    if isinstance(item, Secret):
        return str(item)
    raise NotImplementedError(f"cannot encode {type(item).__name__}")


def encode(item: object) -> bytes:
    """JSON of a value. Secrets are written as `[REDACTED]`: the store keeps them apart, encrypted."""
    return msgspec.json.encode(item, enc_hook=_encode_hook)


def to_data(item: object) -> Any:
    """The value as plain dicts, lists, strings and numbers."""
    return msgspec.to_builtins(item, enc_hook=_encode_hook)


def _decode_hook(kind: type, item: Any) -> Any:
    if kind is Secret:
        return Secret(item)
    raise NotImplementedError(f"cannot decode {kind.__name__}")


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_first_use = threading.Lock()


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Made by one thread at a time: msgspec keeps what it finds out about a class with the class, unfinished at
    first, and crashes where another thread comes upon that."""
    found = _decoders.get(kind)
    if found is None:
        with _first_use:
            found = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=_decode_hook)
    return found


def decode(kind: type[T], data: bytes | str) -> T:
    """A value from its JSON. Unknown fields are ignored. Raises msgspec.ValidationError naming the path."""
    return _decoder(kind).decode(data)


def from_data(kind: type[T], data: Any, *, strict: bool = True) -> T:
    """A value from plain data. strict: no number or flag is read from a string. Raises msgspec.ValidationError naming
    the path."""
    _decoder(kind)
    return msgspec.convert(data, type=kind, strict=strict, dec_hook=_decode_hook)


# --- Plan ------------------------------------------------------------------------------------------------------


class Strength(IntEnum):
    """How good the evidence behind an offer is. The strongest offer is taken."""

    LOOSE = 10  # loose files only: an index.html, a main.py
    MANIFEST = 20  # a manifest: requirements.txt, package.json, go.mod
    PROJECT = 30  # a manifest with a lock file or an entry point
    DOCKERFILE = 40
    EXPLICIT = 50  # named in mini.toml or on the command line


class Evidence(Value):
    """Why something was decided: a file in the source (relative to its root), a line if there is one, a remark."""

    file: str
    detail: str = ""
    line: int | None = None


class Toolchain(Value):
    """A language's tools, as a requirement: builders resolve it to an image or to what the machine has.

    version: "3.13", ">=3.10,<4", "^20", "22.x" or "" for the default. source: where the version comes from, a
    file in the repository or "default".
    """

    name: str
    version: str = ""
    source: str = "default"


class Cache(Value):
    """A folder that a tool may reuse from one build to the next; losing it costs time, never correctness.

    name is shared by all apps (such as "pip"). Either `variable`, an environment variable that gets the folder's
    path for the step (PIP_CACHE_DIR), or `path`, relative to the app's folder (".next/cache").
    """

    name: str
    variable: str = ""
    path: str = ""


class Step(Value):
    """One command of a build, run in the app's folder.

    argv: never a shell line (use ("sh", "-c", line) where one is needed). files: what it reads, relative to the
    app's folder; (".",) or empty is the whole source. Steps that name files run before the rest of the source is
    there, so a code change does not run them again. env: for this step only. toolchain: which of the plan's
    toolchains carries it out; "" is the first. secrets: it sees the build-time environment.
    """

    name: str
    argv: tuple[str, ...]
    files: tuple[str, ...] = ()
    caches: tuple[Cache, ...] = ()
    env: Mapping[str, str] = {}
    toolchain: str = ""
    secrets: bool = True


class Dockerfile(Value):
    """The repository's own Dockerfile: path relative to the app's folder, its target stage and build arguments."""

    path: str = "Dockerfile"
    target: str = ""
    args: Mapping[str, str] = {}


class StaticSite(Value):
    """Files that are served as they are. root: relative to the app's folder, after the build steps.

    fallback: served with 200 for unknown paths ("index.html" for a single-page app), "" for a 404 (404.html's
    content where there is one). immutable: path prefixes whose files never change (hashed asset names).
    """

    root: str = "."
    fallback: str = ""
    immutable: tuple[str, ...] = ()


EnvKind = Literal["value", "generated", "required"]


class EnvEntry(Value):
    """What the plan says about one variable of the app's environment.

    "value": a default that the app's own environment overrides. "generated": a random secret made once per app.
    "required": the user must set it before the first deploy.
    """

    name: str
    kind: EnvKind = "value"
    value: str = ""
    description: str = ""


class ProcessType(Value):
    """A way to start the app: `web` gets routes, `release` runs once before traffic, all others are workers.

    command: argv; ("sh", "-c", line) for Procfile lines; empty means what the image starts by itself.
    source: where it comes from ("Procfile", "package.json scripts.start", "detected").
    """

    name: str
    command: tuple[str, ...] = ()
    source: str = "detected"


class Health(Value):
    """When an instance counts as healthy: `path` answers below 400, or, without a path, the port answers.

    Times in seconds. timeout: from start to healthy. interval: between later probes.
    """

    path: str = ""
    timeout: float = 60.0
    interval: float = 10.0


class Plan(Value):
    """How to build and run a source: data only. It names requirements, never images, secrets or absolute paths.

    The first toolchain is the app's main one. `runtime` names the toolchain that the running app needs ("" where
    none is, as for Go): a builder may leave the others behind. `artifacts`: what the running app needs of the
    built folder, relative to it ("." is everything). `bin`: folders in the app's folder that are put in front of
    PATH, when building and when running. `packages`: Debian packages while building; `runtime_packages`: while
    running. `summary` is the one line a user reads ("pip", "Flask → gunicorn").
    """

    schema: int = 1
    buildpack: str
    path: str = "."
    toolchains: tuple[Toolchain, ...] = ()
    runtime: str = ""
    package_manager: str = ""
    framework: str = ""
    summary: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    steps: tuple[Step, ...] = ()
    artifacts: tuple[str, ...] = (".",)
    dockerfile: Dockerfile | None = None
    static: StaticSite | None = None
    packages: tuple[str, ...] = ()
    runtime_packages: tuple[str, ...] = ()
    bin: tuple[str, ...] = ()
    env: tuple[EnvEntry, ...] = ()
    processes: tuple[ProcessType, ...] = ()
    port: int | None = None
    health: Health = Health()
    warnings: tuple[str, ...] = ()

    def process(self, name: str) -> ProcessType | None:
        return next((item for item in self.processes if item.name == name), None)

    def toolchain(self, name: str) -> Toolchain | None:
        return next((item for item in self.toolchains if item.name == name), None)


class BuildSettings(Value):
    """What the user asked of the build (mini.toml's `[build]`, flags, build-time variables that name versions).

    env holds no secrets: only entries written in the repository's own files. dockerfile, target, args: of the
    repository's own Dockerfile. processes: what the Procfile and mini.toml start, whatever a buildpack detects.
    """

    buildpack: str = ""
    packages: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    dockerfile: str = ""
    target: str = ""
    args: Mapping[str, str] = {}
    processes: tuple[ProcessType, ...] = ()


class Offer(Value):
    """A buildpack's answer: how strongly it believes that the source is its own, why, and the plan."""

    buildpack: str
    strength: Strength
    reason: str
    plan: Plan


# --- Image, release --------------------------------------------------------------------------------------------


class Image(Value):
    """Something runnable.

    kind: what runtimes accept it ("docker", "folder"). ref: how its builder and runtime find it (an image id or
    tag, a folder below the data folder). digest: of the content, the same for the same result. size in bytes.
    resolved: toolchain → what it became ("python" → "python:3.13-slim"). ports: the ports it declares. command:
    what it starts by itself, where it says. workdir: where commands run.
    """

    schema: int = 1
    kind: str
    builder: str
    ref: str
    digest: str = ""
    size: int = 0
    resolved: Mapping[str, str] = {}
    ports: tuple[int, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    dockerfile: str = ""


class Limits(Value):
    """Of one instance. memory in bytes, cpu in cores, pids a count; None is the platform's default."""

    memory: int | None = None
    cpu: float | None = None
    pids: int | None = None


class Volume(Value):
    """Storage that outlives instances and releases. target: absolute path in the instance."""

    name: str
    target: str


class Origin(Value):
    """Where a source came from. commit: of the working tree's HEAD, if any; changed: files that differ from it."""

    digest: str
    commit: str = ""
    branch: str = ""
    changed: int = 0
    files: int = 0
    size: int = 0


class Release(Value):
    """Everything needed to run a version of an app again exactly: immutable, whole, numbered from 1 per app.

    env: the app's environment at that time (the store keeps it encrypted). limits: by process type, "" for all.
    reason: "deploy", "env set KEY", "rollback to v3". created_at: seconds since the epoch. created_by: a key's
    name.
    """

    schema: int = 1
    app: str
    version: int
    image: Image
    plan: Plan
    env: Mapping[str, Secret] = {}
    processes: tuple[ProcessType, ...] = ()
    limits: Mapping[str, Limits] = {}
    volumes: tuple[Volume, ...] = ()
    runtime: str
    origin: Origin | None = None
    plugins: Mapping[str, str] = {}
    reason: str = "deploy"
    created_at: float = 0.0
    created_by: str = ""

    def process(self, name: str) -> ProcessType | None:
        return next((item for item in self.processes if item.name == name), None)


# --- Instances -------------------------------------------------------------------------------------------------


class Endpoint(Value):
    """An address that an instance is to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


InstanceKind = Literal["web", "worker", "release", "oneoff", "cron"]


class InstanceSpec(Value):
    """What a runtime is to start.

    id: chosen by the core, unique, used as the thing's name, so that starting it twice finds it instead. env: all
    of it, PORT included. endpoint: where a web process is to be reached; None for the others. labels: at least
    `mini.platform`, `mini.app`, `mini.release`, `mini.process`, `mini.instance`. grace: seconds from SIGTERM to
    SIGKILL.
    """

    id: str
    app: str
    release: int
    process: str
    kind: InstanceKind = "web"
    index: int = 1
    image: Image
    plan: Plan
    command: tuple[str, ...] = ()
    env: Mapping[str, Secret] = {}
    endpoint: Endpoint | None = None
    volumes: tuple[Volume, ...] = ()
    limits: Limits = Limits()
    labels: Mapping[str, str] = {}
    grace: float = 10.0
    tty: bool = False
    stdin: bool = False


InstanceState = Literal["starting", "running", "paused", "exited", "gone"]
"""paused: by somebody else; `Runtime.start` lets it go on."""


class InstanceStatus(Value):
    """What a runtime says of an instance. Times in seconds since the epoch.

    exit_code: None while it runs; 128+N, with `signal` N, when a signal ended it. oom: the kernel ended it for want of
    memory, or did so before the engine restarted it. endpoint: where it can be reached. memory in bytes, cpu in cores,
    both averages of the last seconds where known. supervised: it comes back by the engine's own means, or the engine
    has none. health: what the image's own health check says, where it has one that counts; health_detail: its last
    words.
    """

    id: str
    app: str
    release: int
    process: str
    index: int = 1
    state: InstanceState
    endpoint: Endpoint | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    restarts: int = 0
    memory: int | None = None
    cpu: float | None = None
    supervised: bool = True
    health: Literal["", "starting", "healthy", "unhealthy"] = ""
    health_detail: str = ""


# --- Routes ----------------------------------------------------------------------------------------------------

RouteState = Literal["live", "hold", "asleep", "maintenance"]


class Target(Value):
    """An instance as the router sees it. url-free: host and port, plain HTTP."""

    instance: str
    host: str
    port: int


class Route(Value):
    """Requests for `host` (lower case, no port) below `path` go to one of `targets`, round robin.

    live: served. hold: requests wait. asleep: the first request wakes the app, all wait. maintenance: 503 with a
    page. A live route without targets answers 503. max_requests: how many may be in flight at once (0: the
    router's default).
    """

    host: str
    app: str
    path: str = "/"
    tls: bool = False
    targets: tuple[Target, ...] = ()
    state: RouteState = "live"
    max_requests: int = 0


class RouteTable(Value):
    """The whole of what a router serves. generation only grows; a router refuses a lower one.

    controller: where requests for the platform's own hosts go: a unix socket path. hosts: those hosts.
    """

    schema: int = 1
    generation: int
    routes: tuple[Route, ...] = ()
    hosts: tuple[str, ...] = ()
    controller: str = ""


class RouterSettings(Value):
    """binds: addresses to listen on. state: a folder of the router's own. controller: its unix socket.

    waker: URL path on the controller's socket that wakes a sleeping app: POST {"app": NAME}, answered with 204 when
    the app is routed. A router calls it without `X-Forwarded-For` and adds that header to everything it forwards:
    the controller answers 404 to forwarded requests there, so that nobody outside reaches it. platform: this
    platform's id. workers: 0 is the router's own choice.
    """

    binds: tuple[Endpoint, ...]
    state: str
    controller: str
    waker: str = "/v1/internal/wake"
    platform: str
    workers: int = 0
    options: Mapping[str, Any] = {}


# --- Logs and events -------------------------------------------------------------------------------------------

LogSource = Literal["app", "build", "router", "platform"]


class LogLine(Value):
    """One line, without its end. at: seconds since the epoch. process: "web.1" for apps. stream: for app lines."""

    at: float
    app: str
    source: LogSource
    text: str
    process: str = ""
    instance: str = ""
    release: int | None = None
    stream: Literal["stdout", "stderr"] = "stdout"


class Event(Value):
    """Something that happened, as stored. Ids only grow. actor: a key's name or "platform"."""

    id: int
    at: float
    kind: str
    actor: str
    app: str = ""
    data: Mapping[str, Any] = {}


class Check(Value):
    """One line of `mini doctor`. hint: the command that mends it."""

    name: str
    state: Literal["ok", "warning", "error", "skipped"]
    detail: str = ""
    hint: str = ""


def iter_env(plan: Plan, kind: EnvKind) -> Iterator[EnvEntry]:
    """The plan's environment entries of one kind."""
    return (entry for entry in plan.env if entry.kind == kind)
