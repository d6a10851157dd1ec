"""What builds leave behind is removed, and removing it keeps nobody waiting."""

from __future__ import annotations

import threading

import pytest

from mini_core.engine.collect import Collector, Redactors
from mini_core.testing import until
from mini_core.types import LogLine
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


def test_an_instance_that_is_started_again_and_again_leaves_no_reader_of_its_log_behind(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    class Endless:
        """As a log that is followed looks when the instance is there again before its end was seen."""

        def __init__(self) -> None:
            self._closed = threading.Event()

        def __iter__(self) -> Endless:
            return self

        def __next__(self) -> LogLine:
            self._closed.wait()
            raise StopIteration

        def close(self) -> None:
            self._closed.set()

    lab.deploy(web=["serve", "hello"])
    parts = lab.controller._parts
    monkeypatch.setattr(parts.runtime, "logs", lambda *_, follow=False, **__: Endless() if follow else iter(()))
    (item,) = lab.store.instances.find(phase="live")
    collector = Collector(parts, Redactors(parts), lab.store.apps.get("blog"), item)
    until(lambda: isinstance(collector._source, Endless), what="the reader's start")
    collector.stop()
    collector._thread.join(5)
    assert not collector._thread.is_alive()
