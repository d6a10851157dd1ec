"""A worker: waitress with Flask on the shared listening sockets, and a link to the master.

It serves whether or not there is a master. One whose master is gone starts a new one, handing over the listening
sockets and the master's lock, and reports to it; connections and requests do not notice. Under systemd, which starts
the master again itself, it waits for that one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from mini_core.locks import keep_folder
from mini_core.types import RouterSettings, RouteTable, Target, from_data
from mini_proxy.channel import Channel, Server
from mini_proxy.loop import BROKEN, IN, OUT, Loop
from mini_proxy.options import raise_file_limit, read_options
from mini_proxy.proxy import Proxy
from mini_proxy.state import State
from mini_proxy.waker import Waker

VERSION = 1
"""Of what master and workers say to each other."""
PAGE_THREADS = 4
ALONE_FOR = 60.0
"""Seconds for which a worker waits for systemd to start a master."""
log = logging.getLogger("mini_proxy")

Message = dict[str, Any]


class Link:
    """JSON lines between a worker and its master. Never blocks; lost: called when the other end is gone."""

    def __init__(self, loop: Loop, sock: socket.socket, take: Callable[[Message], None], lost: Callable[[], None]):
        self._loop, self._sock, self._take, self._lost = loop, sock, take, lost
        self._in, self._out = bytearray(), bytearray()
        sock.setblocking(False)
        loop.watch(sock.fileno(), IN, self.on_event)

    def send(self, message: Message) -> None:
        self._out += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            while self._out:
                del self._out[: self._sock.send(self._out)]
        if self._sock.fileno() >= 0:
            self._loop.want(self._sock.fileno(), IN | (OUT if self._out else 0))

    def on_event(self, flags: int) -> None:
        if flags & OUT:
            self._flush()
        if flags & (IN | BROKEN):
            try:
                data = self._sock.recv(1 << 20)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                self._lost()
                return
            self._in += data
            *lines, rest = self._in.split(b"\n")
            self._in = bytearray(rest)
            for line in lines:
                self._take(json.loads(line))

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()


class Pages:
    """The Flask app, loaded beside the first requests: that takes longer than all else that a worker needs."""

    def __init__(self) -> None:
        self._loaded = threading.Event()
        threading.Thread(target=self._load, name="pages", daemon=True).start()

    def _load(self) -> None:
        from mini_proxy.pages import create_app

        self._app = create_app()
        self._loaded.set()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self._loaded.wait()
        return self._app(environ, start_response)


class Worker:
    """supervised: by systemd. column: its own in the shared counters."""

    def __init__(
        self, state: State, settings: RouterSettings, listeners: list[socket.socket], column: int, supervised: bool
    ) -> None:
        self._state, self._listeners, self._column, self._supervised = state, listeners, column, supervised
        self._options = read_options(settings.options)
        self.loop = Loop()
        self.proxy = Proxy(self.loop, self._options, state.folder, settings.controller, column)
        waker = Waker(settings.controller, settings.waker, self._options.hold_timeout, self._wake_failed)
        self.proxy.wake = waker.wake
        self._dispatcher = ThreadedTaskDispatcher()
        self._servers: list[Server] = []
        self._lock = state.lock_worker()
        keep_folder(state.folder)
        self._link: Link | None = None
        self._phase = "starting"
        self._leave_by = float("inf")
        self._alone_since = 0.0
        table = state.read_table()
        if table is not None:
            self.proxy.apply(table)
        self.loop.every(0.25, self._tick)
        self.loop.every(1.0, self._sweep)

    def run(self, link: socket.socket) -> None:
        self._attach(link)
        self.loop.run()
        for server in self._servers:
            server.stop_accepting()
        self.proxy.log.flush()

    # --- serving

    def _accept(self) -> None:
        if self._phase != "starting":
            return
        self._dispatcher.set_thread_count(PAGE_THREADS)
        app, adj = Pages(), self._adjustments()
        self.proxy.max_open = adj.connection_limit // 2
        for sock in self._listeners:
            self._servers.append(Server(self.proxy, app, self.loop, sock.dup(), self._dispatcher, adj))
        self._phase = "serving"

    def _adjustments(self) -> Adjustments:
        return Adjustments(
            connection_limit=max(raise_file_limit() * 2 // 5, 64),  # each may need two descriptors
            max_request_body_size=self._options.max_body,
            max_request_header_size=65536,
            inbuf_overflow=524288,
            recv_bytes=65536,
            channel_request_lookahead=1,
            clear_untrusted_proxy_headers=False,
            backlog=2048,
            ident="mini",
            log_socket_errors=False,
        )

    def _wake_failed(self, app: str, cause: str) -> None:
        self.loop.call_from_thread(lambda: self.proxy.wake_failed(app, cause))

    def _channels(self) -> list[Channel]:
        return [channel for server in self._servers for channel in list(server.channels())]

    # --- leaving

    def retire(self) -> None:
        """Another worker takes over: no new connections, and an end to each after its next response. A connection is
        not closed while it is idle, as its next request may be on the way; event streams and WebSockets go on."""
        if self._phase != "stopping":
            self._leave("retiring", self._options.linger_timeout)

    def stop(self, grace: float) -> None:
        """The router ends: as `retire`, but within `grace` seconds, and what is idle is closed."""
        if self._phase != "stopping":
            self._leave("stopping", grace)
            self._tick()

    def _leave(self, phase: str, within: float) -> None:
        self._phase, self._leave_by = phase, time.monotonic() + within
        self.proxy.closing = True
        for server in self._servers:
            server.stop_accepting()
        for sock in self._listeners:
            sock.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _sweep(self) -> None:
        for server in self._servers:
            server.sweep()

    def _tick(self) -> None:
        if self._link is None and self._phase != "stopping":
            self._seek_master()
        if self._phase in ("retiring", "stopping"):
            self._tick_leaving()

    def _tick_leaving(self) -> None:
        channels = self._channels()
        if self._phase == "stopping":
            for channel in channels:
                if not channel.requests and channel.request is None and not channel.total_outbufs_len:
                    channel.handle_close()
            if not self.proxy.busy:
                self.proxy.cut_all()
            channels = self._channels()
        if not channels or time.monotonic() > self._leave_by:
            self.proxy.cut_all()
            self.loop.stop()

    # --- the master

    def _attach(self, sock: socket.socket) -> None:
        self._link = Link(self.loop, sock, self._take, self._master_lost)
        self._link.send({"op": "hello", "pid": os.getpid(), "column": self._column, **self._about()})

    def _about(self) -> Message:
        return {"phase": self._phase, "version": VERSION, "generation": self.proxy.table.generation}

    def _master_lost(self) -> None:
        self._link = None
        self._alone_since = time.monotonic()
        if self._phase == "starting":
            self.loop.stop()

    def _seek_master(self) -> None:
        """Reports to the master that there is, or starts one; what is in another folder is not this router's."""
        if not self._state.is_ours(self._lock):
            log.error("%s was removed or replaced: ending", self._state.folder)
            self.stop(self._options.drain_timeout)
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(os.fspath(self._state.control))
        except OSError:
            sock.close()
            if self._phase == "serving" and not self._supervised:
                self._start_master()
            elif self._phase == "serving" and time.monotonic() - self._alone_since > ALONE_FOR:
                log.warning("no master was started: leaving")
                self.stop(self._options.drain_timeout)
            return
        self._attach(sock)

    def _start_master(self) -> None:
        lock = self._state.lock_master()
        if lock is None:
            return  # another worker was faster
        log.warning("the master is gone: starting another")
        fds = [sock.fileno() for sock in self._listeners]
        inherit = json.dumps({"listen": fds, "lock": lock})
        try:
            subprocess.run(
                [sys.executable, "-P", "-m", "mini_proxy", "--state", self._state.folder, "--inherit", inherit],
                pass_fds=[*fds, lock],
                stdin=subprocess.DEVNULL,
                cwd=self._state.folder,
                check=False,
                timeout=10,
            )
        finally:
            os.close(lock)

    def _take(self, message: Message) -> None:
        reply = self._reply
        number = message["id"]
        match message["op"]:
            case "apply":
                reply(number, generation=self.proxy.apply(from_data(RouteTable, message["table"])))
            case "accept":
                self._accept()
                reply(number)
            case "drain":
                target = from_data(Target, message["target"])
                self.proxy.drain(target, message["timeout"], lambda done: reply(number, done=done))
            case "cut":
                self.proxy.cut(from_data(Target, message["target"]))
                reply(number)
            case "in_flight":
                reply(number, count=self.proxy.in_flight(from_data(Target, message["target"])))
            case "status":
                reply(
                    number,
                    activity=self.proxy.activity(),
                    connections=len(self._channels()),
                    **self._about(),
                    figures=self.proxy.figures(),
                )
            case "retire":
                reply(number)
                self.retire()
            case "stop":
                reply(number)
                self.stop(message["grace"])
            case other:
                reply(number, error=f"unknown operation {other}")

    def _reply(self, number: int, **fields: Any) -> None:
        if self._link is not None:
            self._link.send({"id": number, **fields})


def run_worker(
    state: State, listeners: list[socket.socket], link: socket.socket, column: int, supervised: bool
) -> None:
    """Serves until told to leave."""
    tempfile.tempdir = os.fspath(state.folder / "spool")
    worker = Worker(state, state.read_settings(), listeners, column, supervised)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: worker.loop.ready.append(lambda: worker.stop(25.0)))
    worker.run(link)
