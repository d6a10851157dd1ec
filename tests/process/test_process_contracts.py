"""The process plugin keeps the contracts of builders and runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mini_core.hookspecs import Context
from mini_core.testing import BuilderContract, RuntimeContract
from mini_core.types import Plan, Step, Toolchain
from mini_process import ProcessPlugin
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


def test_the_plugin_provides_a_builder_a_runtime_that_fits_it_and_checks(tmp_path: Path) -> None:
    plugin = ProcessPlugin()
    context = Context(platform="p", data=tmp_path / "data", cache=tmp_path / "cache", images={}, settings={})
    (builder,), (runtime,) = plugin.mini_build(context), plugin.mini_run(context)
    assert (builder.name, runtime.name, runtime.accepts) == ("process", "process", {builder.produces})
    assert "isolation" not in runtime.abilities and "without isolation" in runtime.notice
    assert list(tmp_path.iterdir()) == [], "constructing must not write"
    checks = [check for run in plugin.mini_doctor() for check in run()]
    assert [check.name for check in checks][:3] == ["local python", "local node", "local go"]
    assert checks[0].state == "ok"
