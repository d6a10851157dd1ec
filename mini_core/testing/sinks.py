"""The contracts of log sinks, and of what a plugin removes with an app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mini_core.interfaces import LogSink
from mini_core.types import (
    LogLine,
)


class LogSinkContract:
    """Fixtures: `sink`, and `received`, which gives the texts that arrived where the sink writes to."""

    @pytest.fixture
    def sink(self) -> LogSink:
        raise NotImplementedError("define the fixture `sink`")

    @pytest.fixture
    def received(self) -> Callable[[], Sequence[str]]:
        raise NotImplementedError("define the fixture `received`")

    def test_every_line_of_a_batch_arrives_once_and_in_order(
        self, sink: LogSink, received: Callable[[], Sequence[str]]
    ) -> None:
        texts = [f"line {number} ä€\u2028" for number in range(50)]
        sink.write([LogLine(at=float(n), app="blog", source="app", text=text) for n, text in enumerate(texts)])
        sink.write([])
        sink.close()
        assert list(received()) == texts

    def test_closing_twice_is_no_error(self, sink: LogSink) -> None:
        sink.close()
        sink.close()


class DestroyContract:
    """For plugins that implement `mini_app_destroy`. Fixtures: `plugin`; `create(app)`, which makes what the plugin
    keeps for an app; `leftovers(app)`, which lists it."""

    @pytest.fixture
    def plugin(self) -> Any:
        raise NotImplementedError("define the fixture `plugin`")

    @pytest.fixture
    def create(self) -> Callable[[str], None]:
        raise NotImplementedError("define the fixture `create`")

    @pytest.fixture
    def leftovers(self) -> Callable[[str], Sequence[str]]:
        raise NotImplementedError("define the fixture `leftovers`")

    def test_destroying_twice_leaves_nothing_of_the_app_and_all_of_the_others(
        self, plugin: Any, create: Callable[[str], None], leftovers: Callable[[str], Sequence[str]]
    ) -> None:
        create("blog")
        create("shop")
        plugin.mini_app_destroy(app="blog")
        plugin.mini_app_destroy(app="blog")
        assert not leftovers("blog")
        assert leftovers("shop")
