"""The local platform, seen from outside: started by the first deploy, by any later command after a reboot, by
`mini up`; stopped by `mini down`. What the commands call."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mini_core.errors import Conflict, Unavailable
from mini_core.paths import Paths, find_paths, private_folder
from mini_core.server import adminclient, state
from mini_core.server.layout import is_managed, server_python
from mini_core.types import Value, from_data, replace

START_LIMIT = 90.0
"""Seconds that a start may take: images of a network, a recovery after a crash."""

ANSWER_LIMIT = 10.0
"""Seconds after which a controller that says nothing is stuck."""

COMMAND = (server_python(), "-P", "-m", "mini_core.server")

Say = Callable[[str], None]


class Started(Value):
    """The running platform. new: this call started it. message: a line for the user, "" where it ran already."""

    running: state.Running
    new: bool = False
    message: str = ""


def condition(paths: Paths | None = None) -> Literal["running", "down", "stopped", "none"]:
    """running; put down by the user; stopped otherwise (a reboot, a crash); never started here."""
    paths = paths or find_paths()
    if is_running(paths):
        return "running"
    if not state.local_file(paths).exists():
        return "none"
    return "down" if state.load_local(paths).down else "stopped"


def is_running(paths: Paths | None = None) -> bool:
    """Whether requests are taken."""
    return adminclient.answers((paths or find_paths()).admin_socket)


def has_arrived(paths: Paths) -> bool:
    """Whether requests are taken, once a process that is on its way up or down has got there."""
    deadline = time.monotonic() + START_LIMIT
    while not is_running(paths):
        if _is_free(state.server_lock(paths)) or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def ensure_running(paths: Paths | None = None, *, first: bool = False, command: Sequence[str] = COMMAND) -> Started:
    """The local platform, started in the background where it does not run.

    first: also where there was none yet or the user put it down, as `mini deploy` does. Many callers at once start
    one. Raises Unavailable with what to do, and what the platform itself could not do.
    """
    paths = paths or find_paths()
    found = condition(paths)
    if found == "running":
        return Started(running=_running(paths))
    if found == "none" and not first:
        raise Unavailable("No local platform yet.", hint="Start it: mini deploy . or mini up", code="no-platform")
    if found == "down" and not first:
        raise Unavailable("The local platform is stopped.", hint="Start it: mini up", code="stopped")
    return start(paths, {}, command=command)


def start(paths: Paths, flags: Mapping[str, Any], *, command: Sequence[str] = COMMAND) -> Started:
    """Starts it in the background with the flags of `mini up` and returns once it takes requests."""
    require_own(paths)
    private_folder(paths.data)
    with waiting_for(state.start_lock(paths)):
        if has_arrived(paths):
            return Started(running=_running(paths))
        running = _spawn(paths, [*command, *_arguments(flags), "--detach"])
    return Started(running=running, new=True, message=started_message(running))


def started_message(running: state.Running) -> str:
    lines = [f"Local platform started ({running.runtime} runtime, port {running.port}). Stop it: mini down"]
    return "\n".join([*lines, running.notice] if running.notice else lines)


def up(
    flags: Mapping[str, Any],
    *,
    foreground: bool,
    say: Say,
    paths: Paths | None = None,
    serve: Callable[..., int] | None = None,
) -> int:
    """`mini up`: flags by the name of the setting (port, bind, domain, runtime, router), unset ones None.

    In the foreground it returns when the platform ends; Ctrl-C puts it down. serve: what serves there, instead of
    `daemon.serve`. Returns the exit code.
    """
    paths = paths or find_paths()
    if is_running(paths):
        running = _running(paths)
        _same_flags(running, flags)
        say(f"The platform runs already: {running.url} ({running.runtime} runtime, pid {running.pid}).")
        return 0
    if not foreground:
        say(start(paths, flags).message)
        return 0
    return _foreground(paths, flags, say, serve)


def down(
    *, purge: bool = False, say: Say = lambda _: None, paths: Paths | None = None, command: Sequence[str] = COMMAND
) -> bool:
    """`mini down`: stops apps, router and controller, and keeps what should run for the next `mini up`.

    purge: removes the apps and everything else as well. False where nothing ran.
    """
    paths = paths or find_paths()
    if is_managed(paths):
        raise Unavailable("The server's services run this platform.", hint="sudo systemctl stop mini mini-router")
    _end_if_stuck(paths)
    ran = has_arrived(paths)
    left = state.running_file(paths).exists()
    if not ran and (left or (purge and state.local_file(paths).exists())):
        start(paths, {}, command=command)  # only it knows what its predecessor left running
    if ran or is_running(paths):
        said = ""
        for said in adminclient.lines(paths.admin_socket, "POST", "/v1/internal/shutdown", {"purge": purge}):
            say(said)
        if said != state.STOPPED and is_running(paths):
            raise Unavailable("The platform goes on: it could not be stopped.", hint="See what is stuck: mini status")
        with waiting_for(state.server_lock(paths)):
            pass
    if purge:
        for folder in (paths.run, paths.data):
            shutil.rmtree(folder, ignore_errors=True)
    elif state.local_file(paths).exists():
        state.save_local(paths, replace(state.load_local(paths), down=True))
    return ran or left


def restart(paths: Paths | None = None, *, command: Sequence[str] = COMMAND) -> Started:
    """Replaces the controller's process; apps and router go on."""
    paths = paths or find_paths()
    stop_controller(paths)
    return start(paths, {}, command=command)


def stop_controller(paths: Paths) -> None:
    """Ends the controller's process alone and waits until it is gone."""
    running = state.load_running(paths)
    if running is None or not is_running(paths):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    with waiting_for(state.server_lock(paths)):
        pass


def health(paths: Paths) -> dict[str, Any]:
    """What `/healthz` answers through the router, with the address asked. Raises Unavailable."""
    running = state.load_running(paths)
    if running is None:
        raise Unavailable("No platform runs here.", hint="mini up, or sudo systemctl start mini")
    import urllib.request

    url = f"http://{running.address}:{running.port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return {**json.load(response), "url": url}
    except (OSError, ValueError) as error:
        raise Unavailable(f"{url} does not answer: {error}", hint="See why: mini doctor") from None


# --- inside


def require_own(paths: Paths) -> None:
    """Raises Unavailable where the platform is not this user's to start."""
    if is_managed(paths):
        raise Unavailable(
            "The server's services run this platform, and they are stopped.", hint="sudo systemctl start mini"
        )


def _end_if_stuck(paths: Paths) -> None:
    """Kills a controller that takes connections and does not answer; apps and router do not depend on it."""
    running = state.load_running(paths)
    if running is None or not is_running(paths):
        return
    try:
        adminclient.call(paths.admin_socket, "GET", "/healthz", timeout=ANSWER_LIMIT)
    except Unavailable:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        with waiting_for(state.server_lock(paths)):
            pass


def _running(paths: Paths) -> state.Running:
    running = state.load_running(paths)  # written before the sockets are there
    if running is None:
        raise Unavailable(f"{state.running_file(paths)} is missing or damaged.", hint="mini down, then mini up")
    return running


def _arguments(flags: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name, item in flags.items():
        for each in item if isinstance(item, list | tuple) else [item]:
            if each is not None:
                found += [f"--{name}", str(each)]
    return found


def _same_flags(running: state.Running, flags: Mapping[str, Any]) -> None:
    for name in ("port", "domain", "runtime"):
        given = flags.get(name)
        if given and given != getattr(running, name):
            raise Conflict(
                f"The platform runs already, with {name} {getattr(running, name)}.",
                hint=f"mini down, then mini up --{name} {given}",
            )


def _spawn(paths: Paths, command: list[str]) -> state.Running:
    """Starts the process, which leaves for the background, and waits for what it says on a pipe."""
    ours, theirs = os.pipe()
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        subprocess.run(
            [*command, "--ready-fd", str(theirs)],
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    finally:
        os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = _wait_for_line(pipe.fileno())
    return _understand(paths, told)


def _wait_for_line(descriptor: int) -> bytes:
    """What is written until the other end is closed; stops waiting after START_LIMIT."""
    deadline = time.monotonic() + START_LIMIT
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Unavailable(
                f"The local platform did not start within {START_LIMIT:.0f} s.", hint="See why: mini doctor"
            )
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        data += chunk
    return data


def _understand(paths: Paths, told: bytes) -> state.Running:
    if not told:
        raise Unavailable(
            "The local platform ended while it started.",
            hint=f"See {paths.logs / 'platform.log'}",
            tail=last_words(paths),
        )
    answer = json.loads(told)
    if "running" in answer:
        return from_data(state.Running, answer["running"])
    raise Unavailable(answer["message"], hint=answer["hint"], code=answer["code"])


def last_words(paths: Paths, count: int = 5) -> list[str]:
    """The last lines that the platform wrote, and of a crash of the interpreter also the first, which names it."""
    logged, crash = _lines(paths.logs / "platform.log"), _lines(paths.logs / "platform.out")
    return [*logged[-count:], *crash[:1], *crash[1:][-count:]]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _foreground(paths: Paths, flags: Mapping[str, Any], say: Say, serve: Callable[..., int] | None) -> int:
    from mini_core.server import daemon

    require_own(paths)
    private_folder(paths.data)
    daemon.log_to(paths, stderr=False)

    def ready(running: state.Running) -> None:
        say(f"mini {running.version} at {running.url} ({running.runtime} runtime). Stop it: Ctrl-C")
        if running.notice:
            say(running.notice)

    return (serve or daemon.serve)(flags, paths, ready=ready)


@contextlib.contextmanager
def waiting_for(path: Path) -> Iterator[None]:
    """The lock, once whoever has it lets go."""
    private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError) as error:
        return isinstance(error, FileNotFoundError)
    return True
