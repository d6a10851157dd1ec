"""The process plugin keeps the contracts of builders and runtimes."""

from __future__ import annotations

import pytest

from mini_core.testing import BuilderContract, RuntimeContract
from mini_core.types import Plan, Step, Toolchain
from mini_process.builder import ProcessBuilder


class TestProcessBuilder(BuilderContract):
    @pytest.fixture
    def builder(self, layout) -> ProcessBuilder:  # type: ignore[no-untyped-def]
        return ProcessBuilder(layout)

    @pytest.fixture
    def plan(self) -> Plan:
        step = Step(name="compile", argv=("python3", "-m", "compileall", "-q", "."))
        return Plan(buildpack="contract", toolchains=(Toolchain(name="python", version=">=3.9"),), steps=(step,))

    @pytest.fixture
    def files(self) -> dict[str, str]:
        return {"main.py": "print('hello')\n"}


class TestProcessRuntime(RuntimeContract):
    @pytest.fixture
    def make_runtime(self, make_runtime):  # type: ignore[no-untyped-def]
        return make_runtime

    @pytest.fixture
    def image(self, image):  # type: ignore[no-untyped-def]
        return image
