"""What plugins provide, and what they are handed, as protocols.

`mini_core/testing/` has the contract tests that an implementation of each must pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mini_core.errors import MiniError
from mini_core.types import (
    BuildSettings,
    Check,
    Endpoint,
    Image,
    InstanceSpec,
    InstanceStatus,
    LogLine,
    Offer,
    Plan,
    RouterSettings,
    RouteTable,
    Secret,
    Target,
    Value,
)


@runtime_checkable
class Source(Protocol):
    """A read-only tree of files, whatever it is kept in. Paths are relative, with "/", without "." or ".."."""

    def files(self) -> tuple[str, ...]:
        """Every file and symlink, sorted."""

    def read(self, path: str) -> bytes | None:
        """The content of a file (links inside the tree are followed), or None where there is no such file."""

    def is_executable(self, path: str) -> bool: ...

    # What follows can be had from the above; `mini_core.sources.BaseSource` implements it.

    def text(self, path: str) -> str | None:
        """The content as text: UTF-8 (a BOM is dropped), UTF-16 with BOM, else Latin-1. None without the file."""

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Files that match, sorted: `*` within a folder, `**` across folders."""

    def sub(self, path: str) -> Source:
        """The tree below a folder."""


class Job(Protocol):
    """How a long operation talks to whoever waits for it. Implementations are thread-safe."""

    deadline: float
    """time.monotonic() value after which the operation is to be given up."""
    cancelled: threading.Event
    """Set when it is to stop; it then has 5 s."""

    def emit(self, line: str, *, kind: str = "output") -> None:
        """One line for the user. kind: "output" (a tool's own), "info", "warning", "progress" (may be dropped)."""

    def check(self) -> None:
        """Raises Cancelled when cancelled or past the deadline."""


class Buildpack(Protocol):
    """Recognises one language or framework. `detect` is pure: the same source and settings, the same answer; it
    opens no socket, starts no process, writes nothing and imports nothing of the app's."""

    name: str
    description: str

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None: ...


@runtime_checkable
class WorkspaceBuildpack(Buildpack, Protocol):
    """A buildpack that knows repositories whose apps share one lock file, so that only the whole can be built."""

    def detect_member(self, source: Source, path: str, settings: BuildSettings) -> Offer | None:
        """The app in a folder of a workspace, None where the folder is no member of one. source: the whole
        repository; the plan's paths are relative to its root. Pure, as `detect` is."""


class BuildRequest(Value):
    """What a builder gets. source: the unpacked source's root; the app is at `plan.path` below it. build_env: the
    build-time environment, secret: it must not end up in the image or its history. id: unique, to name results by.
    labels: to put on everything made. no_cache: start from scratch."""

    id: str
    app: str
    plan: Plan
    source: Path
    build_env: Mapping[str, Secret]
    labels: Mapping[str, str]
    no_cache: bool = False


class Builder(Protocol):
    """Carries out a plan."""

    name: str
    produces: str
    """The kind of its images: "docker", "folder"."""

    def render(self, plan: Plan) -> dict[str, str]:
        """Files that would be generated for the plan (name → text), "Dockerfile" among them; pure, offline."""

    def build(self, request: BuildRequest, job: Job) -> Image:
        """Raises BuildError, with the step's name and its tool's last lines."""

    def exists(self, image: Image) -> bool: ...

    def remove(self, image: Image) -> None:
        """Removes the image; nothing happens where it is gone already."""

    def prune(self, keep: Collection[Image], apps: Collection[str]) -> int:
        """Removes what this platform built and no longer needs: half-built leftovers, images not in keep, caches of
        apps other than these, and what of caches is too much. No build is under way. Returns the bytes freed, as far
        as known."""

    def size(self, images: Collection[Image]) -> int:
        """Bytes that `export` would give, about."""

    def export(self, images: Collection[Image]) -> Iterator[bytes]:
        """All that another platform needs to run the images, for `import_`; what they share is in it once. Raises
        NotFound where one is gone."""

    def import_(self, images: Sequence[tuple[Image, str]], data: Iterator[bytes]) -> tuple[Image | MiniError, ...]:
        """Takes in what `export` gave for the images, perhaps on another machine, each as one of this platform's own
        app: with a ref of its own, so that removing it leaves the other platform's. In the place of one that cannot
        be used here is the reason. Raises BuildError where none can be."""


class OneOff(Protocol):
    """A running command with its streams (a one-off instance, or a command in a running one)."""

    def output(self) -> Iterator[tuple[str, bytes]]:
        """("stdout" | "stderr", bytes) as produced; with a terminal all is "stdout". Ends when the command has."""

    def write(self, data: bytes) -> None: ...

    def close_stdin(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    def signal(self, number: int) -> None: ...

    def wait(self) -> int:
        """The exit code (128+N when signal N ended it)."""

    def close(self) -> None:
        """Lets go of the streams; ends the command if it still runs."""


LINES_LOST = "Lines are missing here: it wrote faster than they could be read."


class Runtime(Protocol):
    """Starts and watches instances. Finds again, after a restart of the controller, all that it started."""

    name: str
    accepts: frozenset[str]
    """Kinds of image."""
    abilities: frozenset[str]
    """Optional ones it has: "limits", "isolation", "volumes", "exec", "tty", "side-by-side-ports", "platforms"
    (what it makes for platforms with different ids is apart)."""
    notice: str
    """One line that a user should read once, or ""."""

    def check(self) -> None:
        """Raises Unavailable, saying what to do, where it can't be used now."""

    def allocate(self, taken: Collection[Endpoint]) -> Endpoint:
        """An address for a new instance, none of those taken."""

    def start(self, spec: InstanceSpec, job: Job) -> InstanceStatus:
        """Makes and starts it and returns at once (not when healthy). A spec whose id exists is adopted; where that is
        paused, it goes on."""

    def supervise(self, instance: str) -> None:
        """From now on the instance may come back by the engine's own means, where it has any."""

    def stop(self, instance: str, *, grace: float) -> None:
        """SIGTERM, up to `grace` seconds, SIGKILL. What it wrote stays readable. Idempotent."""

    def remove(self, instance: str) -> None:
        """Stops and forgets it. Idempotent. Its volumes stay."""

    def status(self, instance: str) -> InstanceStatus | None: ...

    def listening(self, instance: str) -> tuple[Endpoint, ...] | None:
        """The ports that are open in it, by port; None where that can't be told. Asked for where it does not answer as
        it was told to: looking costs more than a status."""

    def list(self) -> tuple[InstanceStatus, ...]:
        """All of this platform's, running or not."""

    def wait(self, instance: str, timeout: float) -> InstanceStatus | None:
        """Its status once it has ended, or None after `timeout` seconds."""

    def logs(self, instance: str, *, since: float = 0.0, follow: bool = False) -> Iterator[LogLine]:
        """What it wrote from `since` on; with follow, until it is removed. Closing the iterator lets go. Where lines
        were lost stands one of the source "platform", with `LINES_LOST`."""

    def attach(self, spec: InstanceSpec, job: Job) -> OneOff:
        """Starts a one-off with its streams connected."""

    def exec(self, instance: str, command: Sequence[str], *, tty: bool = False, env: Mapping[str, Secret]) -> OneOff:
        """A command in a running instance."""

    def remove_volume(self, app: str, name: str) -> None: ...

    def volume_path(self, app: str, name: str) -> Path | None:
        """Where the volume's files are on this machine, where they can be read directly."""

    def export_volume(self, app: str, name: str) -> Iterator[bytes]:
        """The volume's files as a tar, with names below ".". Raises NotFound where there is none."""

    def import_volume(self, app: str, name: str, data: Iterator[bytes]) -> None:
        """Makes the volume from such a tar, modes and owners included; what was in it goes."""

    def destroy(self, app: str) -> None:
        """Removes all that the runtime keeps for the app: instances, volumes, folders. Idempotent."""

    def shutdown(self) -> None:
        """Stops everything of this platform and removes what is shared by its apps, such as its network."""


class Router(Protocol):
    """Brings requests to instances. Lives in processes of its own, which outlive the controller."""

    name: str
    https: bool

    def start(self, settings: RouterSettings) -> None:
        """Adopts the router that runs for this platform, else starts it. Returns when it accepts connections.
        Raises Unavailable where an address is in use, naming it."""

    def apply(self, table: RouteTable) -> None:
        """Returns when every worker serves it; raises Unavailable if that takes more than a few seconds."""

    def in_flight(self, target: Target) -> int | None:
        """Requests being served by it now, over all workers; None: unknown."""

    def drain(self, target: Target, timeout: float) -> bool:
        """Waits until nothing is in flight to a target that is no longer routed; False at the time limit. Event
        streams and WebSockets do not count: they are cut by `cut`."""

    def cut(self, target: Target) -> None:
        """Closes what is still connected to the target."""

    def status(self) -> Mapping[str, Any]:
        """For `mini status`: pid, binds, workers, generation, restarts."""

    def activity(self) -> Mapping[str, float]:
        """App → seconds since its last request, as far as known; 0 while something is open."""

    def close(self) -> None:
        """The controller goes; the router stays."""

    def stop(self) -> None:
        """Ends the router."""


class LogSink(Protocol):
    """Gets redacted log lines in batches, from a bounded queue; whatever it raises is counted and reported."""

    name: str

    def write(self, lines: Sequence[LogLine]) -> None: ...

    def close(self) -> None: ...


class EndpointSpec(Value):
    """An endpoint below `/v1/x/PLUGIN/`. The core authenticates, checks the scope and limits the size.

    scope: "read" or "write". handler: gets an ApiRequest, returns plain data or an iterator of it (NDJSON).
    """

    method: str
    path: str
    handler: Callable[[ApiRequest], Any]
    scope: str = "write"
    summary: str = ""


class ApiRequest(Value):
    """actor: the key's name. app: the app that the key is limited to, if any."""

    actor: str
    app: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None


class Page(Value):
    """A static, open page or asset below `/x/PLUGIN/`."""

    path: str
    content_type: str
    body: bytes


class CheckRun(Protocol):
    """A check of `mini doctor`."""

    def __call__(self) -> Sequence[Check]: ...


class AppData(Protocol):
    """A plugin's own data about one app: JSON values, renamed, backed up and removed with the app."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, item: Any, *, secret: bool = False) -> None: ...

    def delete(self, key: str) -> None: ...

    def keys(self) -> tuple[str, ...]: ...


class Platform(Protocol):
    """What a plugin can reach of the running server; handed to `mini_start`."""

    id: str
    settings: Mapping[str, Any]
    """This plugin's `[plugins.NAME]` settings."""
    folder: Path
    """A folder of the plugin's own, kept across restarts."""

    def apps(self) -> tuple[str, ...]: ...

    def data(self, app: str) -> AppData: ...

    def logs(self, app: str, *, lines: int = 100) -> tuple[LogLine, ...]: ...

    def request_release(self, app: str, reason: str) -> None:
        """Asks for a new release of the app, to pick up a changed environment."""

    def every(self, interval: float, job: Callable[[], None]) -> None:
        """Calls the job every `interval` seconds until the server stops; what it raises is logged."""


class CommandContext(Protocol):
    """`ctx.obj` of a plugin's CLI command (entry point group `mini.commands`)."""

    json: bool

    def client(self) -> Any:
        """The HTTP client of the chosen server: `get(path)`, `post(path, data)`, `delete(path)`, `stream(path)`."""

    def app(self, given: str | None = None) -> str:
        """The app that the command is about, by the usual rules."""

    def data(self, item: Any, text: str) -> None:
        """Prints `item` with --json, else `text`."""

    def info(self, text: str) -> None:
        """A line on stderr."""

    def confirm(self, question: str) -> None:
        """Asks, unless --yes was given; ends the command on a no."""
