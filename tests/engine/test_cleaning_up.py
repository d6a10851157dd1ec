"""What builds leave behind is removed, and removing it keeps nobody waiting."""

from __future__ import annotations

from mini_core.testing import until
from tests.engine.conftest import Lab


def test_what_an_app_built_goes_with_the_app_and_nothing_else(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.deploy("shop", web=["serve", "hello"])
    lab.controller.destroy_app("blog", "test")
    until(lambda: lab.world.caches == {"shop"}, what="the clean-up")
    assert len(lab.world.images) == 1


def test_a_platform_that_ends_without_apps_leaves_nothing_built(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.controller.destroy_app("blog", "test")
    lab.world.images.add("half-built")
    lab.controller.shutdown()
    assert not lab.world.caches and not lab.world.images


def test_a_crashed_instance_is_started_again_while_a_long_clean_up_runs(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    (first,) = lab.world.of("blog")
    lab.world.hold_prune.clear()
    lab.controller._engine.housekeeper.clean_soon()
    until(lambda: lab.controller._engine.housekeeper._cleaning.locked(), what="the clean-up's start")
    first.end(1)
    until(lambda: lab.world.of("blog") not in ([], [first]), what="the restart")
    assert lab.controller._engine.housekeeper._cleaning.locked()
    lab.world.hold_prune.set()
