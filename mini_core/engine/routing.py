"""From the store to the router: the whole table, numbered, and acknowledged before anything old is touched."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable

from mini_core import hosts
from mini_core.engine.parts import Parts
from mini_core.store.records import App, Instance
from mini_core.types import Route, RouteState, RouteTable, Target


def target_of(item: Instance) -> Target | None:
    address = item.address
    return Target(instance=item.id, host=address.host, port=address.port) if address else None


def state_of(app: App) -> RouteState:
    if app.maintenance:
        return "maintenance"
    if app.asleep:
        return "asleep"
    return "hold" if app.hold else "live"


def routes_of(app: App, names: Iterable[str], instances: Iterable[Instance]) -> tuple[Route, ...]:
    """One for each of the app's hosts; its targets are the instances that are marked as routed."""
    targets = tuple(target for item in instances if item.routed and (target := target_of(item)))
    return tuple(Route(host=name, app=app.name, targets=targets, state=state_of(app)) for name in names)


class Publisher:
    """Brings what the store says to the router. Changes are written with a new generation first, then pushed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self.acknowledged = 0

    def table(self) -> RouteTable:
        """Asks the store the same few questions however many apps there are."""
        store, domain = self._parts.store, self._parts.settings.domain
        with store.transaction():
            routes: list[Route] = []
            domains, instances = store.apps.all_domains(), defaultdict[int, list[Instance]](list)
            for item in store.instances.find(routed=1):
                instances[item.app].append(item)
            for app in store.apps.all():
                if app.state != "new":
                    names = hosts.app_hosts(app.name, domain, domains.get(app.id, ()))
                    routes += routes_of(app, names, instances[app.id])
            return RouteTable(
                generation=store.meta.generation,
                routes=tuple(routes),
                hosts=hosts.platform_hosts(domain),
                controller=self._parts.router_settings.controller,
            )

    def push(self, *, again: bool = False) -> None:
        """Returns when every worker serves what the store says now. Raises Unavailable where the router does not
        answer. again: even if the router had acknowledged it before."""
        with self._lock:
            table = self.table()
            if table.generation > self.acknowledged or again:
                self._parts.router.apply(table)
                self.acknowledged = table.generation

    def up_to_date(self) -> bool:
        return self.acknowledged >= self._parts.store.meta.generation
