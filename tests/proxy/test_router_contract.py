"""The embedded router keeps the promises that every router makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mini_core.interfaces import Router
from mini_core.testing import RouterContract
from mini_proxy.router import ProxyRouter


class TestProxyRouter(RouterContract):
    @pytest.fixture
    def make_router(self) -> Callable[[], Router]:
        return ProxyRouter
