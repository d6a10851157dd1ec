"""What every part of the engine works with, in one place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from mini_core import hosts
from mini_core.errors import Unavailable
from mini_core.hooks import Hooks
from mini_core.hookspecs import Context
from mini_core.interfaces import Builder, Router, Runtime
from mini_core.logs import LogBook
from mini_core.paths import Paths
from mini_core.redact import Redactor
from mini_core.settings import Settings
from mini_core.store import Store
from mini_core.store.records import App
from mini_core.types import Image, RouterSettings, Secret


@dataclass(frozen=True, kw_only=True)
class Parts:
    """platform: its id. port: the one that URLs carry. https_routers: names of the installed ones that have it.
    pending: secrets of deploys under way, by app, so that they are masked before they are part of any release. lent:
    those that were given to one command, by instance."""

    platform: str
    settings: Settings
    paths: Paths
    store: Store
    hooks: Hooks
    context: Context
    runtime: Runtime
    builders: Mapping[str, Builder]
    router: Router
    router_settings: RouterSettings
    book: LogBook
    port: int
    https_routers: tuple[str, ...] = ()
    allocating: threading.Lock = field(default_factory=threading.Lock)
    pending: dict[int, tuple[Secret, ...]] = field(default_factory=dict)
    lent: dict[str, tuple[Secret, ...]] = field(default_factory=dict)

    def builder(self) -> Builder:
        """The one whose images the runtime runs. Raises Unavailable where no plugin provides one."""
        fitting = [item for item in self.builders.values() if item.produces in self.runtime.accepts]
        if not fitting:
            raise Unavailable(
                f"No builder makes what the {self.runtime.name} runtime runs.",
                hint="mini plugins list shows which are broken.",
                code="no-builder",
            )
        return min(fitting, key=lambda item: (item.name != self.runtime.name, item.name))

    def builder_of(self, image: Image) -> Builder | None:
        return self.builders.get(image.builder)

    @property
    def isolated(self) -> bool:
        """Whether instances have addresses of their own, out of the network's reach."""
        return "isolation" in self.runtime.abilities

    def redactor(self, app: App) -> Redactor:
        """Masks everything secret of the app: of its environment, its build's, its release and deploys under way."""
        secrets = [*self.store.apps.env(app.id).values(), *self.store.apps.env(app.id, build=True).values()]
        secrets += self.pending.get(app.id, ())
        for item in self.store.instances.find(app=app.id):
            secrets += self.lent.get(item.id, ())
            if item.release != app.release:
                secrets += self._of_release(app, item.release)
        if app.release is not None:
            secrets += self._of_release(app, app.release)
        return Redactor(secrets)

    def _of_release(self, app: App, version: int) -> list[Secret]:
        stored = self.store.releases.get(app.id, version)
        return [*stored.release.env.values(), *stored.addons.values()]

    def labels(self, app: App) -> dict[str, str]:
        return {"mini.platform": self.platform, "mini.app": app.handle}

    def hosts(self, app: App) -> tuple[str, ...]:
        return hosts.app_hosts(app.name, self.settings.domain, self.store.apps.domains(app.id))

    def url(self, app: App, base_url: str) -> str:
        return hosts.app_url(app.name, base_url, self.settings.domain, self.port)

    def urls(self, app: App, base_url: str) -> tuple[str, ...]:
        """The first is the one to show; then, for names that some resolvers don't know, another; then added domains."""
        first = self.url(app, base_url)
        _, _, rest = first.partition("://")
        host, port = hosts.split_port(rest)
        suffix = f":{port}" if port else ""
        more = [f"http://{app.name}.127.0.0.1.nip.io{suffix}"] if host.endswith(".localhost") else []
        scheme = "https" if self.router.https else "http"
        more += [f"{scheme}://{domain}{suffix}" for domain in self.store.apps.domains(app.id)]
        return (first, *more)
