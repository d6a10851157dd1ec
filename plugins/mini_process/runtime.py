"""Instances as local processes, each with a shim that outlives the controller.

One supervisor: the shim starts an instance once and says how it ended; whether and when it is started again is the
core's decision, which starts the same spec again. `supervise` therefore has nothing to do here.

Limits: memory is watched (on Linux, by the shim, every two seconds) rather than held by the kernel, and the others
are not there, so "limits" is none of the abilities.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mini_core.errors import NotFound, StartError, Unavailable
from mini_core.interfaces import Job
from mini_core.types import Endpoint, InstanceSpec, InstanceStatus, LogLine, Plan, Secret
from mini_process import proc, shim, static_server
from mini_process.builder import remove_builds
from mini_process.folders import Exit, InstanceFolder, Record, State, safe_name
from mini_process.layout import Layout, base_environment
from mini_process.logfiles import LogReader
from mini_process.oneoff import LocalCommand
from mini_process.usage import Usage
from mini_process.volumes import Volumes

T = TypeVar("T")

PORTS = range(20000, 32768)
"""Below the ports that systems hand out by themselves (Linux from 32768, macOS from 49152)."""
LOG_SIZE, LOG_FILES = 4 * 1024 * 1024, 4
POLL = 0.02
LAUNCH = 5.0  # seconds within which a shim has its lock
STALE = 60.0  # seconds after which a folder without a record is a leftover, not one that is being made
ONCE = frozenset({"release", "oneoff", "cron"})
"""Kinds that never run twice: starting one that has ended gives its status."""


class ProcessRuntime:
    name = "process"
    accepts = frozenset({"folder"})
    abilities = frozenset({"volumes", "exec", "tty"})
    notice = "Apps run as local processes without isolation from each other: for development, not for strangers' code."

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._volumes = Volumes(layout)
        self._usage = Usage()
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def check(self) -> None:
        """Nothing: where the plugin provides it, it can be used."""

    def allocate(self, taken: Collection[Endpoint]) -> Endpoint:
        busy = {endpoint.port for endpoint in taken}
        for port in random.sample(PORTS, len(PORTS)):
            if port not in busy and _is_free(port):
                return Endpoint(host="127.0.0.1", port=port)
        raise Unavailable(f"no free port from {PORTS[0]} to {PORTS[-1]}", hint="Stop apps: mini ps, mini stop")

    # --- starting and stopping

    def start(self, spec: InstanceSpec, job: Job) -> InstanceStatus:
        job.check()
        folder = self._folder(spec.id)
        with self._lock(spec.id):
            if folder.held() or (spec.kind in ONCE and folder.exists()):
                return self._status_of(folder, proc.Snapshot) or _gone(spec)
            self._end_leftovers(folder)
            cwd, env, argv = self._command(spec)
            folder.create(spec)
            try:
                _launch(folder, spec, cwd, env, argv)
            except StartError:
                proc.kill_leftovers(spec.id, None)
                folder.remove()
                raise
            return self._status_of(folder, proc.Snapshot) or _gone(spec)

    def supervise(self, instance: str) -> None:
        """Nothing: the core starts instances again, see the module."""

    def stop(self, instance: str, *, grace: float) -> None:
        folder = self._folder(instance)
        with self._lock(instance):
            if folder.exists():
                self._stop(folder, grace)

    def remove(self, instance: str) -> None:
        folder = self._folder(instance)
        with self._lock(instance):
            record = folder.record()
            if record:
                self._stop(folder, record.grace)
            folder.remove()
        self._usage.forget(instance)

    def _stop(self, folder: InstanceFolder, grace: float) -> None:
        folder.ask_to_stop(grace)
        state = folder.state()
        if state and not state.shim:
            _stop_group(state.pid, grace)
            return
        if state and folder.held():
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.shim, signal.SIGTERM)
            if not _await_release(folder, grace + 5):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state.shim, signal.SIGKILL)
                _await_release(folder, 5)
        self._end_leftovers(folder)

    def _end_leftovers(self, folder: InstanceFolder) -> None:
        """Where the shim is gone without having written how the instance ended: what it left is killed."""
        if folder.exists() and not folder.held() and folder.exit() is None:
            state = folder.state()
            proc.kill_leftovers(folder.id, state.pid if state else None)
            lost = Exit(exit_code=137, signal=int(signal.SIGKILL), ended_at=time.time())
            folder.write_exit(lost)

    def _command(self, spec: InstanceSpec) -> tuple[Path, dict[str, str], tuple[str, ...]]:
        """Where, with which environment and what to execute."""
        build = self._layout.build_of(spec.image)
        app = build / "app"
        if not app.is_dir():
            raise StartError(
                f"{spec.app}: the build of release {spec.release} is gone", hint="Deploy again: mini deploy"
            )
        env = base_environment(build, spec.plan)
        env |= {"HOME": str(app), "TMPDIR": tempfile.gettempdir(), "PYTHONUNBUFFERED": "1"}
        env |= self._volumes.attach(app, spec)
        path = env["PATH"]
        env |= {name: secret.reveal() for name, secret in spec.env.items()}
        if env["PATH"] != path:
            env["PATH"] = path + os.pathsep + env["PATH"]
        env["MINI_INSTANCE"] = spec.id
        return app, env, spec.command or spec.image.command or _static_command(app, spec.plan, env)

    # --- watching

    def status(self, instance: str) -> InstanceStatus | None:
        return self._status_of(self._folder(instance), proc.Snapshot)

    def listening(self, instance: str) -> tuple[Endpoint, ...] | None:
        folder = self._folder(instance)
        state = folder.state() if folder.held() else None
        return proc.listening(proc.Snapshot().tree(state.pid)) if state else ()

    def list(self) -> tuple[InstanceStatus, ...]:
        snapshot = functools.cache(proc.Snapshot)
        found = (self._status_of(folder, snapshot) for folder in self._folders())
        return tuple(status for status in found if status)

    def wait(self, instance: str, timeout: float) -> InstanceStatus | None:
        folder = self._folder(instance)
        deadline = time.monotonic() + timeout
        while folder.exists():
            if not folder.held():
                return self.status(instance)
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL)
        return None

    def logs(self, instance: str, *, since: float = 0.0, follow: bool = False) -> Iterator[LogLine]:
        folder = self._folder(instance)
        record = folder.record()
        if record is None:
            return iter(())
        return LogReader(folder, record, since=since, follow=follow)

    def _folders(self) -> Iterator[InstanceFolder]:
        try:
            paths = sorted(self._layout.instances.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            folder = InstanceFolder(path)
            if folder.exists():
                yield folder
            elif _age(path) > STALE and not folder.held():
                folder.remove()

    def _status_of(self, folder: InstanceFolder, snapshot: Callable[[], proc.Snapshot]) -> InstanceStatus | None:
        record = folder.record()
        if record is None:
            return None
        if not folder.held():
            if folder.exit() is None and not self._settled(folder):
                return _status(record, "starting", None, None)
            return _status(record, "exited", folder.state(), folder.exit())
        state = folder.state()
        if state is None:
            return _status(record, "starting", None, None)
        return self._usage.add(_status(record, "running", state, None), snapshot(), state.pid)

    def _settled(self, folder: InstanceFolder) -> bool:
        """Ends what a shim that was killed left behind; False while the instance is being started or stopped."""
        lock = self._lock(folder.id)
        if not lock.acquire(blocking=False):
            return False
        try:
            if folder.state() is None and _age(folder.path) < LAUNCH:
                return False
            self._end_leftovers(folder)
            return True
        finally:
            lock.release()

    # --- commands with their streams

    def attach(self, spec: InstanceSpec, job: Job) -> LocalCommand:
        """The controller itself is the parent and holds the lock: a one-off whose streams are gone has no reason to
        live on, and its leftovers are ended as those of any instance."""
        job.check()
        folder = self._folder(spec.id)
        cwd, env, argv = self._command(spec)
        folder.create(spec)
        try:
            lock = folder.hold()
        except BlockingIOError:
            raise StartError(f"{spec.id} runs already") from None

        def on_end(code: int) -> None:
            proc.kill_leftovers(spec.id, None)
            number = code - 128 if code > 128 else None
            folder.write_exit(Exit(exit_code=code, signal=number, ended_at=time.time()))
            os.close(lock)

        try:
            command = LocalCommand(argv, env=env, cwd=cwd, tty=spec.tty, stdin=spec.stdin or spec.tty, on_end=on_end)
        except BaseException:
            os.close(lock)
            folder.remove()
            raise
        folder.write_state(State(shim=0, pid=command.pid, started_at=time.time()))
        return command

    def exec(
        self, instance: str, command: Sequence[str], *, tty: bool = False, env: Mapping[str, Secret]
    ) -> LocalCommand:
        folder = self._folder(instance)
        state = folder.state()
        if state is None or not folder.held():
            raise NotFound(f"{instance} does not run", hint="See what does: mini ps")
        variables = proc.environment(state.pid) | {name: secret.reveal() for name, secret in env.items()}
        record = folder.record()
        cwd = self._layout.data / record.image / "app" if record else Path("/")
        return LocalCommand(command, env=variables, cwd=cwd, tty=tty, stdin=True)

    # --- volumes, the end

    def remove_volume(self, app: str, name: str) -> None:
        self._volumes.remove(app, name)

    def volume_path(self, app: str, name: str) -> Path | None:
        path = self._volumes.path(app, name)
        return path if path.is_dir() else None

    def export_volume(self, app: str, name: str) -> Iterator[bytes]:
        return self._volumes.export(app, name)

    def import_volume(self, app: str, name: str, data: Iterator[bytes]) -> None:
        self._volumes.import_(app, name, data)

    def destroy(self, app: str) -> None:
        records = [record for folder in self._folders() if (record := folder.record())]
        _all_at_once(self.remove, [record.id for record in records if record.app == app])
        self._volumes.remove_all(app)
        remove_builds(self._layout, app)

    def shutdown(self) -> None:
        def stop(record: Record) -> None:
            self.stop(record.id, grace=record.grace)

        _all_at_once(stop, [record for folder in self._folders() if (record := folder.record())])

    def _folder(self, instance: str) -> InstanceFolder:
        return InstanceFolder(self._layout.instances / safe_name(instance))

    def _lock(self, instance: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(instance, threading.Lock())


def _launch(folder: InstanceFolder, spec: InstanceSpec, cwd: Path, env: Mapping[str, str], argv: Sequence[str]) -> None:
    """Starts the shim, which detaches itself; returns once the instance's process exists."""
    order = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(cwd),
        "instance": spec.id,
        "grace": spec.grace,
        "memory": spec.limits.memory,
        "log_size": LOG_SIZE,
        "log_files": LOG_FILES,
    }
    launcher = subprocess.run(
        [sys.executable, "-I", "-S", shim.__file__, str(folder.path)],
        input=json.dumps(order).encode(),
        capture_output=True,
        env={},
        cwd="/",
        start_new_session=True,
        check=False,
    )
    if launcher.stdout not in (b"ok", b"locked"):
        words = (launcher.stderr or launcher.stdout).decode("utf-8", "replace").strip().splitlines()
        raise StartError(f"{spec.id} could not be started: {words[-1] if words else 'the shim failed'}", tail=words)


def _static_command(app: Path, plan: Plan, env: Mapping[str, str]) -> tuple[str, ...]:
    if plan.static is None:
        raise StartError("there is no command to start", hint='Say which in mini.toml: [processes] web = "…"')
    site = plan.static
    argv = [sys.executable, "-I", str(static_server.__file__), "--root", str(app / site.root)]
    argv += ["--host", env.get("HOST", "127.0.0.1"), "--port", env.get("PORT", "8080"), "--fallback", site.fallback]
    return (*argv, *(f"--immutable={prefix}" for prefix in site.immutable))


def _status(record: Record, state: str, running: State | None, ended: Exit | None) -> InstanceStatus:
    return InstanceStatus(
        id=record.id,
        app=record.app,
        release=record.release,
        process=record.process,
        index=record.index,
        state=state,  # type: ignore[arg-type]
        endpoint=record.endpoint,
        started_at=running.started_at if running else None,
        ended_at=ended.ended_at if ended else None,
        exit_code=ended.exit_code if ended else None,
        signal=ended.signal if ended else None,
        oom=bool(ended and ended.oom),
        restarts=record.restarts,
    )


def _gone(spec: InstanceSpec) -> InstanceStatus:
    return InstanceStatus(
        id=spec.id, app=spec.app, release=spec.release, process=spec.process, index=spec.index, state="gone"
    )


def _is_free(port: int) -> bool:
    """Whether nothing listens on the port at any of the machine's addresses."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
    return True


def _await_release(folder: InstanceFolder, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while folder.held():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def _stop_group(group: int, grace: float) -> None:
    """For a one-off whose streams somebody holds, who also reaps it."""
    deadline = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline and group in {item.pid for item in proc.Snapshot().tree(group)}:
            time.sleep(POLL)
        os.killpg(group, signal.SIGKILL)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _all_at_once(function: Callable[[T], None], items: Sequence[T]) -> None:
    """Calls it for each, side by side; raises the first error once all are done."""
    if items:
        with ThreadPoolExecutor(max_workers=min(32, len(items))) as pool:
            list(pool.map(function, items))
