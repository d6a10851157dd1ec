"""What becomes of a request: the decisions of one worker, all taken in its loop.

Choosing an instance and counting the request as in flight happen in one step, and so does changing the table: there
is one thread, which needs no lock. Requests that wait (`hold`, `asleep`) wait here, and cost no thread.
"""

from __future__ import annotations

import functools
import ipaddress
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mini_core.types import RouteTable, Target
from mini_proxy.accesslog import AccessLog
from mini_proxy.counters import Counters
from mini_proxy.exchange import Exchange
from mini_proxy.forward import RequestIds
from mini_proxy.loop import Loop
from mini_proxy.options import Options
from mini_proxy.problems import Problem
from mini_proxy.table import PLATFORM, App, CompiledRoute, PlatformApp, Table
from mini_proxy.upstream import IDLE_TIMEOUT, Backend

if TYPE_CHECKING:
    from mini_proxy.channel import Channel
    from mini_proxy.request import Request

SWEEP = 0.25


class Proxy:
    """wake: called with an app's name when a request for it finds it asleep; must not block. closing: this worker is
    going, so that no connection gets another request."""

    def __init__(self, loop: Loop, options: Options, state: Path, controller: str, column: int) -> None:
        self.loop, self.options = loop, options
        self.log = AccessLog(state)
        self.ids = RequestIds()
        self.trusted = [ipaddress.ip_network(item, strict=False) for item in options.trusted]
        self.closing = False
        self.table = Table()
        self.wake: Callable[[str], None] = _wake_nobody
        self.now = time.monotonic
        self.max_open = 1 << 30  # of one app: the rest is for its neighbours
        self._controller = controller
        self._counters = Counters(state, column)
        self._apps: dict[str, App] = {}
        self._platform = PlatformApp(options)
        self._waiting: dict[Channel, tuple[App, float]] = {}
        self._drains: list[tuple[Backend, float, Callable[[bool], None]]] = []
        loop.every(SWEEP, self._sweep)

    # --- requests

    def admit(self, request: Request) -> Problem | None:
        """Judges a request with a body before the body is read: what could be served by no app is refused."""
        found = self.table.find(request.host, request.raw_path)
        if found and not isinstance(found, CompiledRoute):
            return None
        return self._problem(request, found)

    def _problem(self, request: Request, found: CompiledRoute | str | None) -> Problem | None:
        """Why a request that found this cannot be served, whatever the app is doing now."""
        host = request.host.decode("latin-1")
        if self.table.generation < 0:
            return Problem.starting()
        if found is None:
            return Problem.unknown_host(host)
        if not isinstance(found, CompiledRoute):
            return Problem.no_path(host)
        route = found.route
        if route.state == "maintenance":
            return Problem.maintenance(route.app)
        if route.state == "live" and not found.backends:
            return Problem.no_instance(route.app)
        return None

    def begin(self, channel: Channel) -> None:
        """A request has arrived whole."""
        if channel.socket is None or not channel.requests or channel.exchange is not None:
            return
        request = channel.requests[0]
        channel.problem = None
        if request.error is not None:
            self._log_refusal(channel, request)
            channel.refuse()
            return
        if not request.host:
            request.host = channel.local_host
        found = self.table.find(request.host, request.raw_path)
        if found == PLATFORM and self.table.controller is not None and request.problem is None:
            self._start(channel, request, self._platform, [self.table.controller])
            return
        problem = request.problem or self._problem(request, found)
        if problem is not None:
            self._answer(channel, request, problem, found.route.app if isinstance(found, CompiledRoute) else "")
            return
        assert isinstance(found, CompiledRoute)
        self._begin_route(channel, request, found)

    def _begin_route(self, channel: Channel, request: Request, found: CompiledRoute) -> None:
        app = self.app(found.route.app)
        app.last = self.now()
        if found.route.state != "live":
            self._park(channel, request, app, asleep=found.route.state == "asleep")
            return
        if len(app.requests) + len(app.streams) >= self.max_open:
            problem = Problem.busy(app.name, f"{self.max_open} connections are open already")
            self._answer(channel, request, problem, app.name)
            return
        cap = found.route.max_requests or self.options.max_requests
        if self._counters.total(app.row) >= cap:
            problem = Problem.busy(app.name, f"{cap} requests are in flight already")
            self._answer(channel, request, problem, app.name)
            return
        self._start(channel, request, app, found.order())

    def _start(self, channel: Channel, request: Request, app: App, backends: list[Backend]) -> None:
        exchange = Exchange(self, channel, request, app, backends)
        channel.exchange = exchange
        self._enter(app, exchange)
        exchange.start()

    def _answer(self, channel: Channel, request: Request, problem: Problem, app: str) -> None:
        request_id = self.ids.of(request)
        client = channel.client.address
        self.log.request(request, client, app, problem.status, 0, request_id, "", problem.cause)
        channel.answer(problem, request_id)

    def _log_refusal(self, channel: Channel, request: Request) -> None:
        error = request.error
        cause = f"{error.reason}: {error.body}" if error is not None else ""
        client = channel.client.address
        self.log.request(request, client, "", error.code if error is not None else 400, 0, b"", "", cause)

    # --- counting

    def app(self, name: str) -> App:
        app = self._apps.get(name)
        if app is None:
            app = self._apps[name] = App(name, self._counters.row(name), self.options)
        return app

    def _enter(self, app: App, exchange: Exchange) -> None:
        app.requests.add(exchange)
        if not app.is_platform:
            self._counters.set(app.row, len(app.requests))

    def leave(self, app: App, exchange: Exchange) -> None:
        """The request no longer counts against the app's cap."""
        app.requests.discard(exchange)
        if not app.is_platform:
            self._counters.set(app.row, len(app.requests))

    def left(self, backend: Backend) -> None:
        """Something of an instance's has ended: perhaps somebody waits for that."""
        if self._drains:
            self._check_drains(backend)

    # --- waiting

    def _park(self, channel: Channel, request: Request, app: App, *, asleep: bool) -> None:
        if sum(1 for other, _ in self._waiting.values() if other is app) >= self.options.max_waiting:
            cause = f"{self.options.max_waiting} requests wait already"
            self._answer(channel, request, Problem.busy(app.name, cause), app.name)
            return
        since = self._waiting.get(channel)
        self._waiting[channel] = (app, since[1] if since else self.now() + self.options.hold_timeout)
        if asleep:
            self.wake(app.name)

    def unpark(self, channel: Channel) -> None:
        self._waiting.pop(channel, None)

    def wake_failed(self, name: str, cause: str) -> None:
        """Nobody will come: those who wait are told."""
        for channel, (app, _) in list(self._waiting.items()):
            if app.name == name:
                self._give_up(channel, app, cause)

    def _give_up(self, channel: Channel, app: App, cause: str) -> None:
        del self._waiting[channel]
        if channel.socket is not None and channel.requests:
            self._answer(channel, channel.requests[0], Problem.not_ready(app.name, cause), app.name)

    # --- the table

    def apply(self, table: RouteTable) -> int:
        """Takes a table that is not older than the one in force; returns the generation in force."""
        if table.generation >= self.table.generation:
            self.table.apply(table, self._controller)
            for channel in list(self._waiting):
                self._again(channel)
            current = {route.app for route in table.routes}
            for name, app in list(self._apps.items()):
                if name not in current and not app.requests and not app.streams:
                    del self._apps[name]
        return self.table.generation

    def _again(self, channel: Channel) -> None:
        """A request that waits is judged by the new table; if it goes on waiting, its limit stays what it was."""
        entry = self._waiting[channel]
        self.begin(channel)
        if channel.exchange is not None or channel.problem is not None:
            self._waiting.pop(channel, None)
        else:
            self._waiting[channel] = entry

    def _backend(self, target: Target) -> Backend | None:
        return self.table.backends.get(target)

    def in_flight(self, target: Target) -> int:
        backend = self._backend(target)
        return len(backend.requests) if backend else 0

    def drain(self, target: Target, timeout: float, done: Callable[[bool], None]) -> None:
        """Calls `done` once nothing is in flight to the target, or with False after `timeout` seconds."""
        backend = self._backend(target)
        if backend is None or not backend.requests:
            done(True)
            return
        self._drains.append((backend, self.now() + timeout, done))

    def _check_drains(self, backend: Backend | None = None) -> None:
        now = self.now()
        for entry in list(self._drains):
            waiting_for, deadline, done = entry
            if (backend in (None, waiting_for) and not waiting_for.requests) or now >= deadline:
                self._drains.remove(entry)
                done(not waiting_for.requests)

    def cut(self, target: Target) -> None:
        backend = self._backend(target)
        if backend is not None:
            for exchange in [*backend.requests, *backend.streams]:
                exchange.cut()

    # --- what is asked of a worker

    def activity(self) -> dict[str, float]:
        """App → when it was last asked for, by the clock that is never set and that all processes share; apps with
        something open count as asked for now."""
        now = self.now()
        waiting = {app for app, _ in self._waiting.values()}
        return {
            name: now if app.requests or app.streams or app in waiting else app.last
            for name, app in self._apps.items()
            if app.last
        }

    def figures(self) -> dict[str, object]:
        backends = self.table.backends.values()
        return {
            "generation": self.table.generation,
            "requests": sum(len(app.requests) for app in self._all_apps()),
            "streams": sum(len(app.streams) for app in self._all_apps()),
            "waiting": len(self._waiting),
            "refusals": {item.target.instance: item.refusals for item in backends if item.refusals},
        }

    def _all_apps(self) -> Iterator[App]:
        yield from self._apps.values()
        yield self._platform

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(app.requests for app in self._all_apps())

    # --- time

    def _sweep(self) -> None:
        now = self.now()
        for app in self._all_apps():
            for exchange in [*app.requests, *app.streams]:
                if now >= exchange.deadline:
                    self.loop.ready.append(functools.partial(_time_out, exchange))
        for channel, (app, deadline) in list(self._waiting.items()):
            if now >= deadline:
                self._give_up(channel, app, f"not ready within {self.options.hold_timeout:g} s")
        self._check_drains()
        self.table.forget_idle(now - IDLE_TIMEOUT)
        self._counters.refresh()
        self.log.flush()

    def cut_all(self) -> None:
        for app in self._all_apps():
            for exchange in [*app.requests, *app.streams]:
                exchange.cut()


def _wake_nobody(app: str) -> None:
    raise NotImplementedError(f"nobody to wake {app}")


def _time_out(exchange: Exchange) -> None:
    if time.monotonic() >= exchange.deadline and exchange.state != "over":
        exchange.timed_out()
