"""The controller's process: `python -m mini_core.server`.

It opens the controller, serves both sockets, says that it is ready, and waits for a signal. SIGTERM ends only this
process: apps and router go on, and the next one finds them again.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import logging.handlers
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask
from waitress.server import create_server

from mini_core import __version__, api, disk
from mini_core.controller import Controller, open_controller
from mini_core.errors import Conflict, MiniError, NotFound
from mini_core.locks import FileLock
from mini_core.paths import Paths, find_paths, private_folder
from mini_core.server import ports, state, streams
from mini_core.server.app import create_app
from mini_core.server.channel import Allowed, channel_class, end_loop
from mini_core.server.handlers import Shutdown
from mini_core.server.operation import Call, Operation
from mini_core.settings import Settings
from mini_core.types import encode, replace

log = logging.getLogger(__name__)

THREADS = 48
"""Per socket: streams take 32 of them at most, so short calls always find one."""
LOOK_EVERY = 1.0
"""Seconds between looks whether the folders are still there."""
FLAGS = ("port", "bind", "domain", "runtime", "router")
LOG_SIZE, LOG_COUNT = 2 * 1024 * 1024, 3

Open = Callable[[Settings, Paths], Controller]


class Server:
    """Both sockets over one controller. `wait` returns how it was ended: "stop" (apps go on), "homeless"
    (so do they, but what is in the folders now is another's), "down" (they were stopped) or "interrupted" (Ctrl-C,
    which means down for a platform in the foreground)."""

    def __init__(self, controller: Controller, *, admin_mode: int = 0o600) -> None:
        self._controller = controller
        self._ended = threading.Event()
        self._how = "stop"
        self._threads: list[threading.Thread] = []
        shutdown = Operation(
            method="POST",
            path="/v1/internal/shutdown",
            handler=self._shut_down,
            access="internal",
            request=Shutdown,
            response=str,
            stream=True,
            summary="Stop apps, router and server",
        )
        paths = controller.paths
        self._servers = [
            self._serve(create_app(controller, trusted=False), paths.controller_socket, 0o600, self._known),
            self._serve(
                create_app(controller, trusted=True, more=[shutdown]), paths.admin_socket, admin_mode, lambda *_: True
            ),
        ]

    def _known(self, key: str, whole: bool) -> bool:
        try:
            return bool(key) and not (self._controller.authenticate(key).app and whole)
        except MiniError:
            return False

    def _serve(self, app: Flask, path: Path, mode: int, allowed: Allowed) -> Any:
        server: Any = create_server(
            app,
            unix_socket=str(path),
            unix_socket_perms=f"{mode:o}",
            threads=THREADS,
            connection_limit=1000,
            backlog=256,
            asyncore_use_poll=True,
            channel_request_lookahead=1,  # without it a client that leaves is not noticed
            clear_untrusted_proxy_headers=False,  # only the router reaches the socket
            max_request_body_size=self._controller.settings.upload,
            ident="mini",
        )
        server.channel_class = channel_class(allowed, self._controller.paths.data / "uploads", self._check_room)
        return server

    def _check_room(self, size: int) -> None:
        """What is sent is there twice for a moment: as it comes, and as it is kept. Raises Unavailable."""
        disk.check(self._controller.paths.data, self._controller.settings.disk_reserve, 2 * size, "what is sent")

    def start(self) -> None:
        self._threads = [threading.Thread(target=server.run, name="http", daemon=True) for server in self._servers]
        for thread in self._threads:
            thread.start()

    def stop(self, how: str = "stop") -> None:
        """Lets `wait` return; may be called from a signal handler."""
        self._how = how
        self._ended.set()

    def wait(self, homeless: Callable[[], bool]) -> str:
        """homeless: whether the folders are gone, so that nobody finds this process any more."""
        while not self._ended.wait(LOOK_EVERY):
            if homeless():
                log.error("%s was removed or replaced: ending", self._controller.paths.data)
                self.stop("homeless")
        return self._how

    def close(self) -> None:
        """Takes no more requests. Short ones may finish; streams are dropped, so that their clients ask again."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.task_dispatcher.shutdown(cancel_pending=True, timeout=0.5)
        for server in servers:
            for channel in list(server.active_channels.values()):
                channel.cancel()
        for server in servers:
            server.task_dispatcher.shutdown(cancel_pending=True, timeout=1.5 * streams.POLL)
        for server, thread in zip(servers, self._threads, strict=False):
            end_loop(server, thread)
        if self._how != "homeless":
            for path in (self._controller.paths.controller_socket, self._controller.paths.admin_socket):
                path.unlink(missing_ok=True)

    def _shut_down(self, call: Call) -> Any:
        """Says what happens, a line each; the process ends after the last."""
        if call.body.purge and (apps := [app.name for app in call.controller.apps("")]):
            yield from (f"Removing {name}" for name in apps)
            with ThreadPoolExecutor(16, thread_name_prefix="purge") as pool:
                stuck = list(filter(None, pool.map(partial(_why_stuck, call.controller), apps)))
            if stuck:
                yield from stuck
                return
        yield "Stopping apps and router"
        call.controller.shutdown()
        yield state.STOPPED
        self.stop("down")


def _why_stuck(controller: Controller, app: str) -> str:
    """Removes the app; "" or why it could not be."""
    try:
        controller.destroy_app(app, "local")
    except NotFound:
        return ""
    except MiniError as error:
        return error.message
    return ""


# --- the process


def serve(
    flags: Mapping[str, Any],
    paths: Paths,
    *,
    ready: Callable[[state.Running], None],
    local: bool = True,
    opener: Open = open_controller,
) -> int:
    """Opens the controller and serves until a signal. flags: see `choose`. ready: called once requests are taken.

    local: the platform of one user, whose key is made here; otherwise a server's. Raises MiniError.
    """
    with holding(state.server_lock(paths)) as lock:
        controller = opener(choose(paths, flags), paths)
        try:
            controller.start()
            if local:
                keep_local_key(controller)
            running = describe(controller)
            state.save_running(paths, running)
            server = Server(controller, admin_mode=0o600 if local else 0o660)
            _end_on_signal(server)
            server.start()
            ready(running)
            how = server.wait(lambda: controller.homeless or not lock.in_place)
            if how == "interrupted" and local:
                controller.shutdown()
            server.close()
            if how in ("down", "interrupted"):
                state.running_file(paths).unlink(missing_ok=True)
        finally:
            controller.close()
    return 0


def _end_on_signal(server: Server) -> None:
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    signal.signal(signal.SIGINT, lambda *_: server.stop("interrupted"))
    with contextlib.suppress(AttributeError):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def describe(controller: Controller) -> state.Running:
    status = controller.status("")
    return state.Running(
        pid=os.getpid(),
        version=__version__,
        port=controller.settings.port,
        url=status.url,
        runtime=status.runtime,
        notice=status.notice,
        domain=controller.settings.domain,
        address=ports.reachable(controller.settings.bind[0]),
        started_at=time.time(),
    )


def keep_local_key(controller: Controller) -> None:
    """Makes the key with which this user's programs reach the API over TCP, where there is none yet."""
    from mini_core.client import config

    known = any(info.name == "local" for info in controller.keys())  # noqa: SIM118  # a method of the controller
    if known and config.load_key("local"):
        return
    if known:
        controller.revoke_key("local", "platform")
    config.save_key("local", controller.create_key(api.NewKey(name="local"), "platform").key)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[FileLock]:
    """The lock, held. Raises Conflict where another process has it."""
    lock = FileLock.take(path, Conflict("The platform runs already.", hint="Look at it: mini status"))
    try:
        yield lock
    finally:
        lock.release()


# --- settings


def choose(paths: Paths, flags: Mapping[str, Any]) -> Settings:
    """The settings to run with: flags that were given now, then server.toml, then the flags of the last start.

    A port that was chosen once is kept, so that URLs stay good. Remembers flags and port.
    """
    stored = state.load_local(paths)
    given = {name: item for name, item in flags.items() if item not in (None, "", ())}
    settings = state.settings_of(paths, given)
    settings = replace(settings, bind=ports.usable_binds(settings.bind))
    port = settings.port or stored.port or ports.choose_port(settings.bind)
    state.save_local(
        paths, state.Local(flags={**stored.flags, **given}, port=port if not settings.port else stored.port)
    )
    return replace(settings, port=port)


def log_to(paths: Paths, *, stderr: bool) -> None:
    """Everything that is logged goes to data/logs/platform.log, which is bounded."""
    private_folder(paths.logs)
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            paths.logs / "platform.log", maxBytes=LOG_SIZE, backupCount=LOG_COUNT, encoding="utf-8"
        )
    ]
    if stderr:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=logging.INFO,
        handlers=handlers,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.raiseExceptions = False  # on a full disk nobody would read it, and platform.out is not bounded
    for quiet in ("alembic", "urllib3", "waitress", "docker"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


# --- the command


def main(arguments: Sequence[str] | None = None, *, opener: Open = open_controller) -> int:
    """Starts the process. With --ready-fd its fate is told there as one line of JSON, before it is closed."""
    options = _parser().parse_args(arguments)
    paths = find_paths()
    if options.detach:
        _detach()
        _redirect(paths)
    faulthandler.enable(all_threads=False)
    log_to(paths, stderr=not options.detach)
    told = _Told(options.ready_fd)
    flags = {name: getattr(options, name) for name in FLAGS}
    try:
        return serve(flags, paths, ready=told.ready, local=not options.server, opener=opener)
    except MiniError as error:
        log.error("%s %s", error.message, error.hint)
        told.failed(error)
        return error.exit_status
    except Exception as error:
        log.exception("The server could not start")
        told.failed(MiniError(f"The server could not start: {error}", hint=f"See {paths.logs / 'platform.log'}"))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mini_core.server", description="mini's controller and API.")
    parser.add_argument("--port", type=int)
    parser.add_argument("--bind", action="append")
    parser.add_argument("--domain")
    parser.add_argument("--runtime")
    parser.add_argument("--router")
    parser.add_argument("--server", action="store_true", help="a server's, under systemd: settings from server.toml")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("--ready-fd", type=int, default=-1, help="where to tell when requests are taken")
    return parser


def _detach() -> None:
    """Leaves whoever started this: parent, session, terminal (double fork, daemon(7))."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")


def _redirect(paths: Paths) -> None:
    """Standard streams of a process in the background: a crash of the interpreter is still written somewhere."""
    private_folder(paths.logs)
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(paths.logs / "platform.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for opened, descriptor in ((null, 0), (out, 1), (out, 2)):
        os.dup2(opened, descriptor)
    os.close(null)
    os.close(out)


class _Told:
    """The other end of whoever waits for the start."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)

    def ready(self, running: state.Running) -> None:
        log.info("mini %s serves at %s (pid %d)", running.version, running.url, running.pid)
        self._tell({"running": json.loads(encode(running))})
        _notify_systemd()

    def failed(self, error: MiniError) -> None:
        self._tell({"message": error.message, "hint": error.hint, "code": error.code})

    def _tell(self, what: Mapping[str, Any]) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor, json.dumps(what).encode() + b"\n")
            os.close(self._descriptor)
            self._descriptor = -1


def _notify_systemd() -> None:
    """Tells systemd that the service is up (sd_notify(3)), where it waits for that."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(b"READY=1")
