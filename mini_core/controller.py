"""The platform, as one object: what the HTTP API can ask of it.

The server translates HTTP to these calls and back; everything that decides lives behind them. Every method
raises MiniError for what it foresees. `actor` is the name of the key that asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mini_core import api
from mini_core.interfaces import EndpointSpec, OneOff, Page
from mini_core.paths import Paths
from mini_core.settings import Settings
from mini_core.types import Event, LogLine


class Controller:
    """Made by `open_controller(settings)`, which takes the data folder's lock. `start()` adopts or starts the
    router, recovers deploys, and begins reconciling; `close()` leaves apps and router running; `shutdown()` stops
    them, keeping the desired state."""

    settings: Settings
    paths: Paths
    platform: str
    """This platform's id."""

    def start(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def shutdown(self) -> None:
        raise NotImplementedError

    # --- the platform

    def status(self, base_url: str) -> api.StatusInfo:
        """base_url: what the client used to reach us, from which URLs of apps derive where no domain is set."""
        raise NotImplementedError

    def doctor(self) -> api.DoctorInfo:
        raise NotImplementedError

    def plugins(self) -> tuple[api.PluginInfo, ...]:
        raise NotImplementedError

    def buildpacks(self) -> tuple[api.BuildpackInfo, ...]:
        raise NotImplementedError

    def endpoints(self) -> Mapping[str, tuple[EndpointSpec, ...]]:
        """Plugin → its endpoints."""
        raise NotImplementedError

    def pages(self) -> Mapping[str, tuple[Page, ...]]:
        """Plugin → its pages."""
        raise NotImplementedError

    def plan(self, archive: Path, options: api.DeployOptions) -> api.PlanInfo:
        raise NotImplementedError

    def events(self, *, app: str = "", after: int = 0, limit: int = 100, follow: bool = False) -> Iterator[Event]:
        """Events newer than `after`; without `after`, the last `limit` ones."""
        raise NotImplementedError

    # --- keys

    def authenticate(self, key: str) -> api.KeyInfo:
        """Raises Denied."""
        raise NotImplementedError

    def keys(self) -> tuple[api.KeyInfo, ...]:
        raise NotImplementedError

    def create_key(self, request: api.NewKey, actor: str) -> api.CreatedKey:
        raise NotImplementedError

    def revoke_key(self, name: str, actor: str) -> None:
        raise NotImplementedError

    # --- apps

    def apps(self, base_url: str) -> tuple[api.AppInfo, ...]:
        raise NotImplementedError

    def app(self, name: str, base_url: str) -> api.AppInfo:
        raise NotImplementedError

    def create_app(self, request: api.NewApp, actor: str, base_url: str) -> api.AppInfo:
        raise NotImplementedError

    def rename_app(self, name: str, new: str, actor: str) -> None:
        raise NotImplementedError

    def destroy_app(self, name: str, actor: str) -> None:
        """Returns when nothing of the app is left; what is stuck is retried and shows in `status`."""
        raise NotImplementedError

    def wake(self, app: str) -> None:
        """Starts a sleeping app and returns when it is routed; many callers, one start."""
        raise NotImplementedError

    # --- deploys: each of these returns at once; the work is a stored job

    def deploy(self, app: str, archive: Path, options: api.DeployOptions, actor: str, base_url: str) -> api.DeployInfo:
        """archive: a tar.gz, which the controller takes over (moves)."""
        raise NotImplementedError

    def deploys(self, app: str = "", *, limit: int = 50) -> tuple[api.DeployInfo, ...]:
        raise NotImplementedError

    def deploy_info(self, deploy: int) -> api.DeployInfo:
        raise NotImplementedError

    def deploy_events(self, deploy: int, *, after: int = 0, follow: bool = True) -> Iterator[api.DeployEvent]:
        raise NotImplementedError

    def cancel_deploy(self, deploy: int, actor: str) -> api.DeployInfo:
        raise NotImplementedError

    def releases(self, app: str) -> tuple[api.ReleaseInfo, ...]:
        raise NotImplementedError

    def release(self, app: str, version: int) -> api.ReleaseInfo:
        raise NotImplementedError

    def rollback(self, app: str, request: api.Rollback, actor: str) -> api.DeployInfo:
        raise NotImplementedError

    def env(self, app: str, *, build: bool = False) -> dict[str, str]:
        """In clear: the server masks unless asked to reveal."""
        raise NotImplementedError

    def change_env(self, app: str, change: api.EnvChange, actor: str) -> api.DeployInfo | None:
        """None where nothing needs to restart."""
        raise NotImplementedError

    def scale(self, app: str, request: api.Scale, actor: str) -> api.DeployInfo | None:
        raise NotImplementedError

    def restart(self, app: str, actor: str, *, process: str = "") -> api.DeployInfo:
        raise NotImplementedError

    def stop(self, app: str, actor: str) -> None:
        raise NotImplementedError

    def start_app(self, app: str, actor: str) -> api.DeployInfo:
        raise NotImplementedError

    # --- watching

    def ps(self, app: str) -> tuple[api.InstanceInfo, ...]:
        raise NotImplementedError

    def logs(
        self,
        app: str,
        *,
        lines: int = 100,
        follow: bool = False,
        process: str = "",
        source: str = "",
        since: float = 0.0,
        pattern: str = "",
    ) -> Iterator[LogLine]:
        raise NotImplementedError

    # --- one-offs

    def run(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        """A command in a new instance of the current release, its streams connected. With `detach` it goes on when
        the streams are closed."""
        raise NotImplementedError

    def exec(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        """A command in the running instance `request.instance`, or in the first one where it is ""."""
        raise NotImplementedError

    # --- domains, volumes, maintenance

    def domains(self, app: str, base_url: str) -> tuple[api.DomainInfo, ...]:
        raise NotImplementedError

    def add_domain(self, app: str, domain: str, actor: str, base_url: str) -> api.DomainInfo:
        raise NotImplementedError

    def remove_domain(self, app: str, domain: str, actor: str) -> None:
        raise NotImplementedError

    def volumes(self, app: str) -> tuple[api.VolumeChange, ...]:
        raise NotImplementedError

    def add_volume(self, app: str, request: api.VolumeChange, actor: str) -> api.DeployInfo | None:
        raise NotImplementedError

    def remove_volume(self, app: str, target: str, actor: str) -> api.DeployInfo | None:
        raise NotImplementedError

    def maintenance(self, app: str, on: bool, actor: str) -> None:
        raise NotImplementedError


def open_controller(settings: Settings, paths: Paths) -> Controller:
    """The controller of the data folder, not started yet. Takes the folder's lock, opens and migrates the store.

    settings: with `port` and `bind` as they are to be used. Raises Conflict where another controller has the lock.
    """
    raise NotImplementedError
