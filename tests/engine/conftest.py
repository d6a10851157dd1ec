"""A whole controller over fakes, with a folder and a world of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_core import api
from mini_core.controller import Controller, open_controller
from mini_core.hooks import Hooks
from mini_core.paths import Paths, find_paths
from mini_core.plugins import Plugins
from mini_core.settings import Settings
from mini_core.testing import tar_of, until
from mini_core.types import Limits, replace
from tests.engine.fakes import FakePlugin, World, ask


class Lab:
    """A platform in memory. `reopen` is what a restart of the controller does."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.world = World()
        self.paths: Paths = find_paths(str(folder / "home"))
        self.abilities: frozenset[str] = options.pop("abilities", frozenset({"volumes"}))
        limits = Limits(memory=256 * 1024 * 1024)
        self.settings = Settings(
            port=18080, router="fake", runtime="fake", drain=0.5, grace=0.5, disk_reserve=0, limits=limits, **options
        )
        self._uploads = 0
        self.open()

    def open(self) -> None:
        self.controller: Controller = open_controller(self.settings, self.paths, hooks=self.hooks())
        self.controller.start()

    def hooks(self) -> Hooks:
        return Hooks(Plugins.of({"fake": FakePlugin(self.world, abilities=self.abilities)}))

    def reopen(self, **settings: Any) -> None:
        self.controller.close()
        self.settings = replace(self.settings, **settings)
        self.open()

    def close(self) -> None:
        self.controller.close()
        self.world.close()

    @property
    def store(self) -> Any:
        return self.controller._store

    # --- doing

    def archive(self, **wish: Any) -> Path:
        self._uploads += 1
        files = {"fake.json": json.dumps({key: item for key, item in wish.items() if not key.startswith("file_")})}
        files |= {key.removeprefix("file_"): item for key, item in wish.items() if key.startswith("file_")}
        return tar_of(files, self.folder / f"upload-{self._uploads}.tar.gz")

    def send(self, app: str = "blog", *, options: api.DeployOptions | None = None, **wish: Any) -> api.DeployInfo:
        """Deploys fake.json with these wishes, and returns at once."""
        wish = wish or {"web": ["serve", "hello"]}
        return self.controller.deploy(app, self.archive(**wish), options or api.DeployOptions(), "ci", "")

    def deploy(self, app: str = "blog", *, options: api.DeployOptions | None = None, **wish: Any) -> api.DeployInfo:
        """Deploys and waits for the end."""
        return self.ended(self.send(app, options=options, **wish))

    def ended(self, info: api.DeployInfo | None) -> api.DeployInfo:
        assert info is not None
        for _ in self.controller.deploy_events(info.id):
            pass
        return self.controller.deploy_info(info.id)

    def lines(self, info: api.DeployInfo) -> list[str]:
        return [item.text for item in self.controller.deploy_events(info.id, follow=False)]

    def set_env(self, app: str = "blog", **env: str) -> api.DeployInfo:
        return self.ended(self.controller.change_env(app, api.EnvChange(set=env), "me"))

    def get(self, app: str = "blog") -> tuple[int, str]:
        return ask(self.world, f"{app}.localhost")

    def at_rest(self, app: str = "blog") -> None:
        """Waits until nothing of the app is on its way in or out, and the engine has nothing else."""

        def calm() -> bool:
            rows = self.store.instances.find()
            known = {item.id for item in rows}
            return all(item.phase == "live" for item in rows) and known == set(self.world.instances)

        until(calm, what=f"rest of {app}")

    def events(self, kind: str) -> list[Any]:
        return [event for event in self.controller.events(limit=1000) if event.kind == kind]


@pytest.fixture(autouse=True)
def workers_settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_core.engine.health.SETTLED", 0.2)
    monkeypatch.setattr("mini_core.reconcile.SETTLED", 0.2)


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    labs: list[Lab] = []

    def make(**options: Any) -> Lab:
        labs.append(Lab(tmp_path, **options))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab()
