"""Platforms for the end-to-end tests, taken down and purged afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.platform import MiniPlatform


@pytest.fixture(scope="module")
def make_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], MiniPlatform]]:
    made: list[MiniPlatform] = []

    def make(runtime: str) -> MiniPlatform:
        made.append(MiniPlatform(tmp_path_factory.mktemp("home"), runtime))
        made[-1].up()
        made[-1].remember_id()
        return made[-1]

    yield make
    for platform in made:
        platform.mini("down", "--purge", "--yes", check=False, timeout=120)
        shutil.rmtree(platform.home, ignore_errors=True)
