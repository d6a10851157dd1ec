"""No request is dropped by a deploy, a broken deploy, a rollback, a scaling or a restart, under a steady load."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.app import BROKEN, write_app
from tests.chaos.load import steady_load
from tests.e2e.platform import MiniPlatform

pytestmark = [pytest.mark.slow, pytest.mark.load, pytest.mark.docker]

WORDS = {
    "exits": ("no database", "4"),
    "never listens": ("listen",),
    "unhealthy": ("500", "/health"),
    "release fails": ("migration failed", "9"),
    "out of memory": ("memory",),
    "build fails": ("no-such-package-at-all",),
}
"""What a user must read of each kind of failure."""


@pytest.fixture(scope="module")
def platform(make_platform: Callable[[str], MiniPlatform]) -> MiniPlatform:
    return make_platform("docker")


def test_thirty_deploys_ten_of_them_broken_drop_no_request(platform: MiniPlatform, tmp_path: Path):
    app, source = "steady", tmp_path / "app"
    platform.mini("deploy", str(write_app(source, "0")), app)
    platform.mini("scale", "-a", app, "web=2")
    broken = itertools.cycle(BROKEN)
    with steady_load(tmp_path, platform.port, f"{app}.localhost", slow_path="/slow?seconds=3") as load:
        for number in range(1, 31):
            if number % 3:
                platform.mini("deploy", str(write_app(source, str(number))), app)
                assert platform.get(app)[1].startswith(f"{number} ")
            else:
                kind = next(broken)
                done = platform.mini("deploy", str(write_app(source, str(number), broken=kind)), app, check=False)
                assert done.returncode == 1, kind
                assert all(word in done.stderr + done.stdout for word in WORDS[kind]), (kind, done.stderr)
            if number % 6 == 0:
                platform.mini("rollback", "-a", app)
                platform.mini("scale", "-a", app, f"web={1 + number // 6 % 3}")
            if number % 10 == 0:
                platform.mini("restart", "-a", app)
    print(load.summary())
    assert load.total > 200 * 30, "the load was too short to mean anything"
    assert (load.failed, load.errors) == (0, [])
