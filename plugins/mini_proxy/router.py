"""The router as the controller has it: starts or adopts the processes, and asks their master."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from mini_core import __version__
from mini_core.errors import Conflict, MiniError, Unavailable
from mini_core.types import RouterSettings, RouteTable, Target, to_data
from mini_proxy.options import read_options
from mini_proxy.state import State

START_TIMEOUT = 40.0
ADOPT_TIMEOUT = 8.0
ANSWER_TIMEOUT = 15.0
Message = dict[str, Any]


class ProxyRouter:
    """Implements `mini_core.interfaces.Router`. Every call is a connection of its own to the master's socket, so that
    there is nothing to keep, and any number of threads may call."""

    name = "proxy"
    https = False

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """options: `[plugins.proxy]` of server.toml; those in `RouterSettings.options` go first."""
        self._options = dict(options or {})
        self._settings: RouterSettings | None = None

    # --- Router

    def start(self, settings: RouterSettings) -> None:
        settings = _with_options(settings, {**self._options, **settings.options})
        read_options(settings.options)
        self._settings = settings
        state = self._state
        state.create()
        about = self._find()
        if about is not None and not about["supervised"] and about["asked"] != [str(bind) for bind in settings.binds]:
            self.stop()
            about = None
        if about is None:
            state.write_settings(settings)
            self._spawn()
            return
        self._adopt(settings, about)

    def apply(self, table: RouteTable) -> None:
        assert self._settings is not None
        self._ask("apply", table=to_data(table), platform=self._settings.platform)

    def in_flight(self, target: Target) -> int | None:
        try:
            return int(self._ask("in_flight", target=to_data(target))["count"])
        except Unavailable:
            return None

    def drain(self, target: Target, timeout: float) -> bool:
        answer = self._ask("drain", ANSWER_TIMEOUT + timeout, target=to_data(target), timeout=timeout)
        return bool(answer["done"])

    def cut(self, target: Target) -> None:
        self._ask("cut", target=to_data(target))

    def status(self) -> Mapping[str, Any]:
        return self._ask("status")

    def activity(self) -> Mapping[str, float]:
        return dict(self._ask("activity")["activity"])

    def close(self) -> None:
        """Nothing is held."""

    def stop(self) -> None:
        """Returns when the processes are gone."""
        state = self._state
        if not state.folder.exists():
            return
        with contextlib.suppress(OSError, MiniError):
            self._exchange("stop", ANSWER_TIMEOUT)
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while state.master_alive():
            if time.monotonic() > deadline:
                raise Unavailable("The router does not end.", hint=f"See {state.folder / 'master.log'}")
            time.sleep(0.02)

    # --- more than the interface asks

    def reload(self) -> None:
        """Puts the code that is installed now in force, without a request lost. Returns when new workers serve."""
        before = {item["pid"] for item in self._ask("status")["workers"] if item["state"] == "serving"}
        with contextlib.suppress(OSError, _Cut):
            answer = self._exchange("reload", START_TIMEOUT)
            raise Unavailable(str(answer.get("error")), code=str(answer.get("code", "")))
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(MiniError):
                workers = self._ask("status")["workers"]
                if not any(item["pid"] in before and item["state"] == "serving" for item in workers):
                    return
            time.sleep(0.05)
        raise Unavailable("The router goes on with its old code.", hint=f"See {self._state.folder / 'master.log'}")

    # --- the master

    @property
    def _state(self) -> State:
        if self._settings is None:
            raise Unavailable("The router has not been started.")
        return State(self._settings.state)

    def _find(self) -> Message | None:
        """What the running master says of itself; None where none runs. Waits for one that is starting, or that
        workers are about to start."""
        deadline = time.monotonic() + ADOPT_TIMEOUT
        while True:
            with contextlib.suppress(OSError, _Cut):
                return self._exchange("about", ANSWER_TIMEOUT)
            if not self._state.master_alive() and not self._state.workers_alive():
                return None
            if time.monotonic() > deadline:
                log = self._state.folder / "master.log"
                raise Unavailable("The router's processes run, but do not answer.", hint=f"See {log}")
            time.sleep(0.05)

    def _adopt(self, settings: RouterSettings, about: Message) -> None:
        """Where settings or the code changed, or the platform was restored as another, the master begins anew."""
        state = self._state
        try:
            old = state.read_settings()
        except (OSError, ValueError):
            old = None
        if old != settings:
            state.write_settings(settings)
        changed = old is None or _what_is_used(old) != _what_is_used(settings)
        if changed or about.get("version") != __version__:
            self.reload()

    def _spawn(self) -> None:
        state = self._state
        command = [sys.executable, "-P", "-m", "mini_proxy", "--state", os.fspath(state.folder.absolute()), "--daemon"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                cwd=state.folder,
                timeout=START_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable("The router does not start.", hint=f"See {state.folder / 'master.log'}") from None
        try:
            report = json.loads(done.stdout)
        except ValueError:
            report = {"error": "The router does not start.", "hint": f"See {state.folder / 'master.log'}"}
        if report.get("code") == "locked":
            self._find()
        elif "error" in report:
            raise Unavailable(report["error"], hint=report.get("hint", ""), code=report.get("code", ""))

    def _ask(self, op: str, within: float = ANSWER_TIMEOUT, **fields: Any) -> Message:
        """All operations can be repeated: a master that is being replaced is asked again when it is back."""
        for attempt in range(2):
            try:
                answer = self._exchange(op, within, **fields)
                break
            except TimeoutError:
                raise Unavailable(f"The router does not answer ({op}).") from None
            except (OSError, _Cut):
                if attempt:
                    raise Unavailable("The router is gone.", hint="mini up") from None
                if self._find() is None:
                    self._spawn()
        if "error" in answer:
            kind = Conflict if answer.get("code") == "stale" else Unavailable
            raise kind(f"The router: {answer['error']}.", code=answer.get("code", ""))
        return answer

    def _exchange(self, op: str, within: float, **fields: Any) -> Message:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(within)
            sock.connect(os.fspath(self._state.control))
            sock.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            with sock.makefile("rb") as reader:
                line = reader.readline()
        if not line:
            raise _Cut
        answer: Message = json.loads(line)
        return answer


class _Cut(Exception):
    """The connection to the master ended without an answer."""


def _with_options(settings: RouterSettings, options: Mapping[str, Any]) -> RouterSettings:
    from mini_core.types import replace

    return replace(settings, options=options)


def _what_is_used(settings: RouterSettings) -> tuple[Any, ...]:
    return (settings.platform, settings.controller, settings.waker, settings.workers, dict(settings.options))
