"""The master: owns the listening sockets, starts workers that share them, and passes on what the controller says.

It carries no requests, so that its end harms none: the workers start another one (see `worker`). SIGHUP, or the
operation `reload`, puts new code in force: the master executes itself anew, keeping its sockets, its pid and its
workers, and then replaces these one by one. SIGTERM ends the router when the requests in flight are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mini_core import __version__
from mini_core.errors import Unavailable
from mini_core.types import RouterSettings, RouteTable, from_data, to_data
from mini_proxy.accesslog import rotate
from mini_proxy.counters import COLUMNS, Counters
from mini_proxy.listen import endpoint_of
from mini_proxy.options import Options, read_options
from mini_proxy.state import State

LIMIT = 64 << 20
"""Bytes of one message: a table with many thousand routes."""
START_TIMEOUT = 20.0
ANSWER_TIMEOUT = 10.0
STUCK_AFTER = 30.0
ORPHANS_WITHIN = 1.5
"""Seconds for which a new master waits for the workers of one that was killed."""
STOP_GRACE = 5.0

log = logging.getLogger("mini_proxy")
Message = dict[str, Any]


class WorkerGone(Exception):
    pass


class WorkerHandle:
    """A worker, as the master sees it. gone: set when its link has ended. serving: it accepts connections."""

    def __init__(self, pid: int, column: int, sock: socket.socket) -> None:
        self.pid, self.column, self.sock = pid, column, sock
        self.phase = "starting"
        self.generation = -1
        self.started_at = time.time()
        self.heard_at = time.monotonic()
        self.hello = asyncio.Event()
        self.serving = asyncio.Event()
        self.gone = asyncio.Event()
        self.figures: Mapping[str, Any] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, asyncio.Future[Message]] = {}
        self._number = time.time_ns()

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes in what the worker says until it is gone."""
        self._writer = writer
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                with contextlib.suppress(ValueError):
                    self._heard(json.loads(line))
        self.gone.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(WorkerGone(f"worker {self.pid} is gone"))
        writer.close()
        with contextlib.suppress(OSError):  # how the link ended is known; asyncio reports it unless it is asked for
            await writer.wait_closed()

    def _heard(self, message: Message) -> None:
        self.heard_at = time.monotonic()
        if message.get("op") == "hello":
            self.pid, self.phase, self.generation = message["pid"], message["phase"], message["generation"]
            self.hello.set()
        elif message.get("id") in self._calls and not (call := self._calls[message["id"]]).done():
            call.set_result(message)

    async def call(self, op: str, within: float = ANSWER_TIMEOUT, **fields: Any) -> Message:
        """Raises WorkerGone and TimeoutError."""
        if self._writer is None or self.gone.is_set():
            raise WorkerGone(f"worker {self.pid} is gone")
        self._number += 1
        number, call = self._number, asyncio.get_running_loop().create_future()
        self._calls[number] = call
        try:
            self._writer.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
            return await asyncio.wait_for(call, within)
        finally:
            del self._calls[number]


class Master:
    """lock: descriptor of the master's lock. supervised: by systemd, which starts a master again by itself."""

    def __init__(
        self,
        state: State,
        settings: RouterSettings,
        listeners: list[socket.socket],
        lock: int,
        supervised: bool,
    ) -> None:
        self._state, self._settings, self._listeners, self._lock = state, settings, listeners, lock
        self._supervised = supervised
        self._options: Options = read_options(settings.options)
        self._counters = Counters(state.folder)
        self._workers: list[WorkerHandle] = []
        self._reapable: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._applying = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._stopping: float | None = None
        self._settled = self._replacing = False
        self._done = asyncio.Event()
        self._started_at = time.time()
        self._restarts = 0
        self._activity: dict[str, float] = {}
        self._table: RouteTable | None = state.read_table()
        self._control: socket.socket | None = None

    # --- life

    async def run(self, ready: Callable[[], None], resumed: Message | None = None) -> None:
        """Returns when the router has ended. ready: called when connections are accepted. resumed: what `_reexec`
        handed over. Workers of a master that was killed report to this one."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._spawn_task, self.reload)
        loop.add_signal_handler(signal.SIGTERM, self._begin_stop, self._options.drain_timeout)
        loop.add_signal_handler(signal.SIGINT, self._begin_stop, self._options.drain_timeout)
        if resumed:
            self._resume(resumed)
        self._control = self._open_control(resumed)
        server = await asyncio.start_unix_server(self._serve, sock=self._control, limit=LIMIT)
        if not resumed and self._state.workers_alive():
            await asyncio.sleep(ORPHANS_WITHIN)
        for column in set(range(COLUMNS)) - {worker.column for worker in self._workers}:
            self._counters.clear(column)
        self._settled = True
        await self._fill()
        if self._stopping is None and not any(worker.serving.is_set() for worker in self._workers):
            raise Unavailable("The router's workers do not start.", hint=f"See {self._state.folder / 'master.log'}")
        ready()
        self._spawn_task(self._watch)
        if resumed and resumed.get("replace"):
            self._spawn_task(self._replace_all)
        await self._done.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._stopping is not None and self._state.is_ours(self._lock):
            self._state.control.unlink(missing_ok=True)

    def _open_control(self, resumed: Message | None) -> socket.socket:
        if resumed:
            return socket.socket(fileno=resumed["control"])
        path = self._state.control
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(before)
        sock.listen(64)
        return sock

    def _spawn_task(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        async def run() -> None:
            try:
                await function(*arguments)
            except Exception:
                log.exception("unexpected failure in the master")

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        """Once a second: the folder, workers that are stuck, processes that have ended, the size of the log."""
        while True:
            await asyncio.sleep(1.0)
            if not self._state.is_ours(self._lock):
                log.error("%s was removed or replaced: ending", self._state.folder)
                self._begin_stop(self._options.drain_timeout)
                return
            self._reap()
            rotate(self._state.folder, self._options.log_size)
            for worker in list(self._workers):
                if time.monotonic() - worker.heard_at > STUCK_AFTER:
                    log.error("worker %d does not answer: killing it", worker.pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
                    worker.heard_at = time.monotonic()
                elif worker.hello.is_set():
                    self._spawn_task(self._ask, worker)

    async def _ask(self, worker: WorkerHandle) -> None:
        with contextlib.suppress(WorkerGone, TimeoutError):
            answer = await worker.call("status", STUCK_AFTER)
            worker.generation = answer["generation"]
            worker.figures = {**answer["figures"], "connections": answer["connections"]}
            for app, at in answer["activity"].items():
                self._activity[app] = max(at, self._activity.get(app, 0.0))

    def _reap(self) -> None:
        for pid in list(self._reapable):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._reapable.discard(pid)

    # --- workers

    @property
    def _wanted(self) -> int:
        return self._settings.workers or max(1, min(os.cpu_count() or 1, 4))

    @property
    def _active(self) -> list[WorkerHandle]:
        """Those that accept connections, or are about to."""
        return [worker for worker in self._workers if worker.phase in ("starting", "serving")]

    async def _fill(self) -> None:
        """Starts the workers that are missing. Returns when they serve."""
        if self._stopping is not None or not self._settled:
            return
        while len(self._active) > self._wanted and not self._replacing:
            surplus = self._active[-1]
            surplus.phase = "retiring"
            self._spawn_task(surplus.call, "retire")
        started = [self._start_worker() for _ in range(self._wanted - len(self._active))]
        for worker in started:
            await self._until_serving(worker)

    async def _until_serving(self, worker: WorkerHandle) -> bool:
        waits = [asyncio.ensure_future(event.wait()) for event in (worker.serving, worker.gone)]
        await asyncio.wait(waits, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return worker.serving.is_set() and not worker.gone.is_set()

    def _start_worker(self) -> WorkerHandle:
        ours, theirs = socket.socketpair()
        column = min(set(range(COLUMNS)) - {worker.column for worker in self._workers})
        fds = [sock.fileno() for sock in self._listeners]
        spec = json.dumps({"listen": fds, "link": theirs.fileno(), "column": column, "supervised": self._supervised})
        for fd in [*fds, theirs.fileno()]:
            os.set_inheritable(fd, True)
        try:
            command = [sys.executable, "-P", "-m", "mini_proxy", "--state", str(self._state.folder), "--worker", spec]
            pid = os.posix_spawn(sys.executable, command, os.environ)
        finally:
            for fd in fds:
                os.set_inheritable(fd, False)
            theirs.close()
        return self._add_worker(WorkerHandle(pid, column, ours))

    def _add_worker(self, worker: WorkerHandle) -> WorkerHandle:
        self._workers.append(worker)
        self._reapable.add(worker.pid)
        self._spawn_task(self._attend, worker)
        return worker

    async def _attend(self, worker: WorkerHandle) -> None:
        """From a worker's beginning to its end."""
        reader, writer = await asyncio.open_unix_connection(sock=worker.sock, limit=LIMIT)
        await self._attend_link(worker, reader, writer)

    async def _attend_link(
        self, worker: WorkerHandle, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._spawn_task(self._introduce, worker)
        await worker.listen(reader, writer)
        self._workers.remove(worker)
        self._counters.clear(worker.column)
        if worker.phase in ("starting", "serving") and self._stopping is None:
            log.warning("worker %d ended unexpectedly", worker.pid)
            self._restarts += 1
            await asyncio.sleep(min(5.0, 0.05 if time.time() - worker.started_at > 2 else 1.0))
            if self._stopping is None:
                await self._fill()

    async def _introduce(self, worker: WorkerHandle) -> None:
        """A worker accepts connections only once it has the table in force."""
        await worker.hello.wait()
        with contextlib.suppress(WorkerGone):
            if self._table is not None and worker.generation < self._table.generation:
                await worker.call("apply", table=to_data(self._table))
            if worker.phase == "starting":
                await worker.call("accept")
                worker.phase = "serving"
            worker.serving.set()

    # --- new code

    async def reload(self) -> Message:
        """Checks that the code that is installed now can start, and executes it."""
        async with self._reloading:
            check = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "mini_proxy", "--check", cwd=self._state.folder
            )
            if await check.wait() != 0:
                return {"error": "the code that is installed now does not start; nothing was changed", "code": "broken"}
            self._reexec()
            return {}

    def _reexec(self) -> None:
        assert self._control is not None
        workers = [worker for worker in self._workers if worker.hello.is_set()]
        listen = [sock.fileno() for sock in self._listeners]
        resume = {
            "listen": listen,
            "lock": self._lock,
            "control": self._control.fileno(),
            "supervised": self._supervised,
            "replace": True,
            "restarts": self._restarts,
            "activity": self._activity,
            "workers": [[item.pid, item.column, item.sock.fileno(), item.phase] for item in workers],
            "reapable": sorted(self._reapable),
        }
        for fd in [*listen, self._lock, self._control.fileno(), *(item.sock.fileno() for item in workers)]:
            os.set_inheritable(fd, True)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new code has its own handler
        arguments = [sys.executable, "-P", "-m", "mini_proxy", "--state", str(self._state.folder)]
        os.execv(sys.executable, [*arguments, "--resume", json.dumps(resume)])

    def _resume(self, resumed: Message) -> None:
        self._restarts, self._activity = resumed["restarts"], resumed["activity"]
        self._reapable = set(resumed["reapable"])
        for pid, column, fd, phase in resumed["workers"]:
            os.set_inheritable(fd, False)
            worker = WorkerHandle(pid, column, socket.socket(fileno=fd))
            worker.phase = phase
            worker.hello.set()
            if phase == "serving":
                worker.serving.set()
            self._add_worker(worker)

    async def _replace_all(self) -> None:
        """One worker after the other: the new one serves before the old one retires."""
        self._replacing = True
        try:
            for old in self._active:
                new = self._start_worker()
                if not await self._until_serving(new):
                    log.error("a new worker did not start: the old ones stay")
                    return
                old.phase = "retiring"
                with contextlib.suppress(WorkerGone, TimeoutError):
                    await old.call("retire")
        finally:
            self._replacing = False
        await self._fill()

    # --- the end

    def _begin_stop(self, grace: float) -> None:
        if self._stopping is None:
            self._stopping = grace
            self._spawn_task(self._stop, grace)

    async def _stop(self, grace: float) -> None:
        for sock in self._listeners:
            sock.close()
        workers = list(self._workers)
        for worker in workers:
            with contextlib.suppress(WorkerGone, TimeoutError):
                if worker.hello.is_set():
                    await worker.call("stop", grace=grace)
                else:
                    os.kill(worker.pid, signal.SIGKILL)
        ends = [asyncio.ensure_future(worker.gone.wait()) for worker in workers]
        if ends:
            await asyncio.wait(ends, timeout=grace + 2)
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        self._done.set()

    # --- what the controller asks

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to the control socket: the controller's, or a worker's whose master is gone."""
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if message["op"] == "hello":
                    worker = WorkerHandle(message["pid"], message["column"], writer.get_extra_info("socket"))
                    worker._heard(message)
                    self._workers.append(worker)
                    self._spawn_task(self._fill)  # there may be one too many now
                    await self._attend_link(worker, reader, writer)
                    return
                writer.write(json.dumps(await self._answer(message)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, message: Message) -> Message:
        try:
            match message["op"]:
                case "about":
                    return self._about()
                case "apply" if message.get("platform", self._settings.platform) != self._settings.platform:
                    return {"error": "it serves another platform", "code": "foreign"}
                case "apply":
                    return await self._apply(from_data(RouteTable, message["table"]))
                case "drain":
                    within = message["timeout"] + ANSWER_TIMEOUT
                    fields = {"target": message["target"], "timeout": message["timeout"]}
                    return {"done": all(item["done"] for item in await self._all("drain", within, **fields))}
                case "cut":
                    await self._all("cut", target=message["target"])
                    return {}
                case "in_flight":
                    return {
                        "count": sum(item["count"] for item in await self._all("in_flight", target=message["target"]))
                    }
                case "activity":
                    await asyncio.gather(*(self._ask(worker) for worker in self._workers))
                    now = time.monotonic()
                    return {"activity": {app: now - at for app, at in self._activity.items()}}
                case "status":
                    await asyncio.gather(*(self._ask(worker) for worker in self._workers))
                    return self._about()
                case "reload":
                    return await self.reload()
                case "stop":
                    self._begin_stop(STOP_GRACE)
                    return {}
                case other:
                    return {"error": f"unknown operation {other}", "code": "unknown"}
        except TimeoutError:
            return {"error": f"a worker did not answer within {ANSWER_TIMEOUT:g} s", "code": "timeout"}

    async def _apply(self, table: RouteTable) -> Message:
        async with self._applying:
            if self._table is not None and table.generation < self._table.generation:
                known = self._table.generation
                return {"error": f"generation {table.generation} is older than {known}", "code": "stale"}
            self._state.write_table(table)
            self._table = table
            for answer in await self._all("apply", table=to_data(table)):
                if answer["generation"] < table.generation:
                    return {"error": "a worker did not take the table", "code": "refused"}
            return {"generation": table.generation}

    async def _all(self, op: str, within: float = ANSWER_TIMEOUT, **fields: Any) -> list[Message]:
        """The answers of all workers; those that end meanwhile have nothing in flight any more, and owe none."""

        async def ask(worker: WorkerHandle) -> Message | None:
            try:
                return await worker.call(op, within, **fields)
            except WorkerGone:
                return None

        workers = [worker for worker in self._workers if worker.hello.is_set()]
        answers = await asyncio.gather(*(ask(worker) for worker in workers))
        return [answer for answer in answers if answer is not None]

    def _about(self) -> Message:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "binds": [str(endpoint_of(sock)) for sock in self._listeners if sock.fileno() >= 0],
            "asked": [str(bind) for bind in self._settings.binds],
            "platform": self._settings.platform,
            "generation": self._table.generation if self._table else -1,
            "restarts": self._restarts,
            "started_at": self._started_at,
            "supervised": self._supervised,
            "workers": [
                {"pid": item.pid, "state": item.phase, "started_at": item.started_at, **item.figures}
                for item in self._workers
            ],
        }
