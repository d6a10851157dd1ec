"""A controller that keeps everything in memory, and behaves as the signatures of the real one say."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mini_core import api
from mini_core.controller import Controller
from mini_core.errors import Denied, NotFound, Unavailable
from mini_core.interfaces import ApiRequest, EndpointSpec, OneOff, Page
from mini_core.paths import Paths
from mini_core.settings import Settings
from mini_core.types import Event, LogLine, Plan, Secret

KEYS = {"mini_admin": ("admin", ""), "mini_blog": ("ci", "blog")}


class FakeController(Controller):
    homeless = False

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.settings, self.paths, self.platform = settings, paths, "p-1234"
        self.made = {name: app for name, (_, app) in KEYS.items()}
        self._keys = {"admin": api.KeyInfo(name="admin", created_at=1.0)}
        self._apps = {name: api.AppInfo(name=name, state="running", created_at=1.0) for name in ("blog", "shop")}
        self._env = {"SECRET": "s3cr3t-value", "DEBUG": "0"}
        self._deploys: list[api.DeployInfo] = []
        self.sources: list[bytes] = []
        self.options: list[api.DeployOptions] = []
        self.base_urls: list[str] = []
        self.actors: list[str] = []
        self.log: list[LogLine] = []
        self.news = threading.Condition()
        self.closed = self.down = self.broken = False
        self.streaming = 0

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def shutdown(self) -> None:
        self.down = True
        (self.paths.data / "was-shut-down").touch()

    def status(self, base_url: str) -> api.StatusInfo:
        self.base_urls.append(base_url)
        return api.StatusInfo(
            version="0.1.0",
            platform=self.platform,
            state="ok",
            runtime="process",
            router="proxy",
            url=base_url or f"http://localhost:{self.settings.port}",
            pid=1,
            started_at=1.0,
            apps=tuple(self._apps.values()),
            disk_free=10**12,
        )

    def doctor(self) -> api.DoctorInfo:
        return api.DoctorInfo(checks=())

    def backup_size(self, *, images: bool) -> int:
        return 2_000_000 if images else 1_000_000

    def backup(self, actor: str, *, images: bool) -> Iterator[bytes]:
        yield b"images " if images else b"no images "
        if self.broken:
            raise RuntimeError("gone in the middle")
        yield b"and more"

    def restore(self, file: BinaryIO, actor: str, *, replacing: bool) -> Iterator[api.RestoreEvent]:
        size, first = 0, file.read(5)
        while data := file.read(100_000):
            size += len(data)
        folder = {Path(f"/proc/self/fd/{file.fileno()}").readlink().parent} if size > 100_000 else set()
        yield api.RestoreEvent(kind="done", text=f"{first.decode()} {size} {replacing} {folder == {self.uploads}}")

    @property
    def uploads(self) -> Path:
        return self.paths.data / "uploads"

    def plugins(self) -> tuple[api.PluginInfo, ...]:
        return (api.PluginInfo(name="sick", version="1", origin="sick", state="broken", reason="no such module"),)

    def buildpacks(self) -> tuple[api.BuildpackInfo, ...]:
        return ()

    def endpoints(self) -> Mapping[str, tuple[EndpointSpec, ...]]:
        def echo(request: ApiRequest) -> object:
            return {"actor": request.actor, "app": request.app, "name": request.params["name"], "body": request.body}

        return {
            "notes": (
                EndpointSpec(method="POST", path="echo/<name>", handler=echo),
                EndpointSpec(method="GET", path="count", handler=lambda _: iter([1, 2, 3]), summary="Count"),
                EndpointSpec(method="GET", path="count", handler=lambda _: "a second one of this address"),
                EndpointSpec(method="GET", path="<nosuch:x>", handler=lambda _: "no such converter"),
                EndpointSpec(method="BREW", path="coffee", handler=lambda _: "no such method"),
            )
        }

    def pages(self) -> Mapping[str, tuple[Page, ...]]:
        return {"notes": (Page(path="index.html", content_type="text/html", body=b"<p>notes</p>"),)}

    def plan(self, archive: Path, options: api.DeployOptions) -> api.PlanInfo:
        self.sources.append(archive.read_bytes())
        return api.PlanInfo(plan=Plan(buildpack="python"))

    def events(self, *, app: str = "", after: int = 0, limit: int = 100, follow: bool = False) -> Iterator[Event]:
        yield Event(id=1, at=1.0, kind="app.created", actor="admin", app=app)

    def authenticate(self, key: str) -> api.KeyInfo:
        if key not in KEYS:
            raise Denied("No such key.")
        name, app = KEYS[key]
        return api.KeyInfo(name=name, created_at=1.0, app=app)

    def keys(self) -> tuple[api.KeyInfo, ...]:
        return tuple(self._keys.values())

    def create_key(self, request: api.NewKey, actor: str) -> api.CreatedKey:
        self._keys[request.name] = api.KeyInfo(name=request.name, created_at=time.time())
        return api.CreatedKey(name=request.name, key=f"mini_{request.name}")

    def revoke_key(self, name: str, actor: str) -> None:
        del self._keys[name]

    def apps(self, base_url: str) -> tuple[api.AppInfo, ...]:
        return tuple(self._apps.values())

    def app(self, name: str, base_url: str) -> api.AppInfo:
        if name not in self._apps:
            raise NotFound(f"No app {name}.", hint="See which there are: mini apps")
        return self._apps[name]

    def create_app(self, request: api.NewApp, actor: str, base_url: str) -> api.AppInfo:
        self._apps[request.name] = api.AppInfo(name=request.name, state="new", created_at=time.time())
        return self._apps[request.name]

    def destroy_app(self, name: str, actor: str) -> None:
        if (self.paths.data / f"{name}-is-stuck").exists():
            raise Unavailable(f"{name} is not gone yet: the engine is busy.")
        del self._apps[name]

    def wake(self, app: str) -> None:
        self.app(app, "")

    def deploy(self, app: str, archive: Path, options: api.DeployOptions, actor: str, base_url: str) -> api.DeployInfo:
        taken = self.paths.data / "taken.tar.gz"
        archive.rename(taken)
        self.sources.append(taken.read_bytes())
        self.options.append(options)
        self.base_urls.append(base_url)
        return self._deploy(app, actor)

    def _deploy(self, app: str, actor: str) -> api.DeployInfo:
        self.actors.append(actor)
        info = api.DeployInfo(
            id=len(self._deploys) + 1, app=app, kind="deploy", state="done", step="done", actor=actor, created_at=1.0
        )
        self._deploys.append(info)
        return info

    def deploys(self, app: str = "", *, limit: int = 50) -> tuple[api.DeployInfo, ...]:
        return tuple(info for info in self._deploys if app in ("", info.app))[-limit:]

    def deploy_info(self, deploy: int) -> api.DeployInfo:
        if not 0 < deploy <= len(self._deploys):
            raise NotFound(f"No deploy {deploy}.")
        return self._deploys[deploy - 1]

    def deploy_events(self, deploy: int, *, after: int = 0, follow: bool = True) -> Iterator[api.DeployEvent]:
        for seq in range(after + 1, 4):
            yield api.DeployEvent(seq=seq, at=1.0, kind="done" if seq == 3 else "output", text=f"line {seq}")

    def releases(self, app: str) -> tuple[api.ReleaseInfo, ...]:
        return (self.release(app, 1),)

    def release(self, app: str, version: int) -> api.ReleaseInfo:
        return api.ReleaseInfo(
            version=version, created_at=1.0, created_by="admin", reason="deploy", runtime="process", env=self._env
        )

    def env(self, app: str, *, build: bool = False) -> dict[str, str]:
        self.app(app, "")
        return dict(self._env)

    def change_env(self, app: str, change: api.EnvChange, actor: str) -> api.DeployInfo | None:
        if change.set and change.set.items() <= self._env.items():
            return None
        self._env |= change.set
        return self._deploy(app, actor)

    def restart(self, app: str, actor: str, *, process: str = "") -> api.DeployInfo:
        raise ZeroDivisionError("a bug of ours")

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
        self.streaming += 1
        try:
            seen = max(0, len(self.log) - lines)
            while True:
                with self.news:
                    while seen == len(self.log) and follow:
                        self.news.wait()
                    found, seen = self.log[seen:], len(self.log)
                yield from found
                if not follow:
                    return
        finally:
            self.streaming -= 1

    def write_log(self, text: str) -> None:
        with self.news:
            self.log.append(LogLine(at=1.0, app="blog", source="app", text=text))
            self.news.notify_all()

    def maintenance(self, app: str, on: bool, actor: str) -> None:
        self.actors.append(f"{actor}:{on}")

    def run(self, app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        return LocalCommand(request)

    def start_run(self, app: str, request: api.OneOffRequest, actor: str) -> api.Started:
        return api.Started(name="run.1", id=f"{app}-v1-run-1-0")

    def stop_run(self, app: str, name: str, actor: str) -> None:
        self.actors.append(f"{actor}:{app}:{name}")


class LocalCommand:
    """A one-off on this machine."""

    def __init__(self, request: api.OneOffRequest) -> None:
        import subprocess

        env = {name: Secret.reveal(item) for name, item in request.env.items()}
        self._process = subprocess.Popen(
            request.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", **env},
        )
        self.sizes: list[tuple[int, int]] = []

    def output(self) -> Iterator[tuple[str, bytes]]:
        import os
        import selectors

        with selectors.DefaultSelector() as selector:
            for name in ("stdout", "stderr"):
                selector.register(getattr(self._process, name), selectors.EVENT_READ, name)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, 65536)
                    if data:
                        yield key.data, data
                    else:
                        selector.unregister(key.fileobj)

    def write(self, data: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def close_stdin(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream
            stream.close()


def open_fake(settings: Settings, paths: Paths) -> FakeController:
    return FakeController(settings, paths)


if __name__ == "__main__":
    import sys

    from mini_core.server import daemon

    sys.exit(daemon.main(opener=open_fake))
