"""Which route a request takes: the table as one worker uses it. No sockets are touched here, except to forget them."""

from __future__ import annotations

from typing import Any

from mini_core.hosts import canonical
from mini_core.types import Route, RouteTable, Target
from mini_proxy.options import CONTROLLER_TIMEOUT, Options
from mini_proxy.upstream import Backend, backend_for, controller_backend

MAX_REMEMBERED = 4096
PLATFORM = "platform"


class App:
    """What a worker knows of one app. requests: in flight, as the cap counts them. streams: WebSockets and event
    streams. last: when it was last asked for (monotonic); 0: never."""

    is_platform = False

    def __init__(self, name: str, row: int, options: Options) -> None:
        self.name, self.row = name, row
        self.requests: set[Any] = set()
        self.streams: set[Any] = set()
        self.last = 0.0
        self.response_timeout = options.response_timeout


class CompiledRoute:
    """A route with its instances. `order` gives them as they are to be tried: the next in turn first, those that just
    refused a connection last."""

    def __init__(self, route: Route, backends: list[Backend]) -> None:
        self.route, self.backends = route, backends
        self._prefix = route.path.rstrip("/").encode("latin-1", "replace")
        self._turn = 0

    def covers(self, path: bytes) -> bool:
        prefix = self._prefix
        return not prefix or path == prefix or path.startswith(prefix + b"/")

    def order(self) -> list[Backend]:
        backends = self.backends
        if len(backends) > 1:
            self._turn = turn = (self._turn + 1) % len(backends)
            backends = backends[turn:] + backends[:turn]
            backends.sort(key=lambda backend: not backend.available)
        return backends


class Table:
    """The routes in force. generation: -1 before there is a table."""

    def __init__(self) -> None:
        self.generation = -1
        self.backends: dict[Target, Backend] = {}
        self.controller: Backend | None = None
        self._routes: dict[str, list[CompiledRoute]] = {}
        self._hosts: frozenset[str] = frozenset()
        self._found: dict[bytes, list[CompiledRoute] | None] = {}

    def apply(self, table: RouteTable, controller: str) -> None:
        """controller: its socket, where the table names none. Instances that are no longer routed keep what they are
        serving, and lose their idle connections."""
        targets = dict.fromkeys(target for route in table.routes for target in route.targets)
        known = self.backends
        kept = {target: known.pop(target) for target in targets if target in known}
        self.backends = {target: kept.get(target) or backend_for(target) for target in targets}
        for target, backend in known.items():
            backend.routed = False
            backend.close_idle()
            if not backend.forgettable:
                self.backends[target] = backend
        for target in targets:
            self.backends[target].routed = True
        routes: dict[str, list[CompiledRoute]] = {}
        for route in sorted(table.routes, key=lambda route: -len(route.path.rstrip("/"))):
            backends = [self.backends[target] for target in route.targets]
            routes.setdefault(route.host, []).append(CompiledRoute(route, backends))
        self._routes, self._hosts, self._found = routes, frozenset(table.hosts), {}
        self._set_controller(table.controller or controller)
        self.generation = table.generation

    def _set_controller(self, path: str) -> None:
        if self.controller is None or self.controller.target.host != path:
            if self.controller is not None:
                self.controller.routed = False
                self.controller.close_idle()
            self.controller = controller_backend(path)

    def find(self, host: bytes, path: bytes) -> CompiledRoute | str | None:
        """The route, `PLATFORM`, or None. An empty string is a host that has routes, none of which covers the path."""
        routes = self._found[host] if host in self._found else self._remember(host)
        if routes is None:
            return None
        if not routes:
            return PLATFORM
        for route in routes:
            if route.covers(path):
                return route
        return ""

    def _remember(self, host: bytes) -> list[CompiledRoute] | None:
        name = canonical(host.decode("latin-1"))
        routes = [] if name in self._hosts else self._routes.get(name)
        if len(self._found) >= MAX_REMEMBERED:
            self._found.clear()
        self._found[host] = routes
        return routes

    def forget_idle(self, older_than: float) -> None:
        for target, backend in list(self.backends.items()):
            backend.close_idle(older_than)
            if backend.forgettable:
                del self.backends[target]
        if self.controller is not None:
            self.controller.close_idle(older_than)


class PlatformApp(App):
    """The controller, for which requests to the platform's own hosts are."""

    is_platform = True

    def __init__(self, options: Options) -> None:
        super().__init__("", -1, options)
        self.response_timeout = CONTROLLER_TIMEOUT
