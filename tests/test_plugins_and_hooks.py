"""Plugins are found, checked and called one by one; a broken one is listed with its reason and harms nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from mini_core import hookspecs
from mini_core.errors import PlanError
from mini_core.hooks import Hooks, amend
from mini_core.hookspecs import KINDS, PlanAmendment, hookimpl
from mini_core.plugins import SPECS, Plugins, check_hooks, find_commands, load_plugins
from mini_core.sources import MemorySource
from mini_core.types import EnvEntry, Plan

PLAN = Plan(buildpack="test", env=(EnvEntry(name="MODE", value="production"),))
CONTEXT = hookspecs.Context(platform="p", data=Path(), cache=Path(), images={}, settings={})


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def install(folder: Path, name: str, code: str, *, entry: str = "", requires: str = "", group: str = "mini") -> None:
    """Lays out an installed distribution: a module and the metadata that pip would write."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry or f'{name} = {name}:Plugin'}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


GOOD = "from mini_core.hookspecs import hookimpl\nclass Plugin:\n    @hookimpl\n    def mini_doctor(self): return []\n"


def test_every_hook_is_documented_with_its_kind():
    for name, spec in SPECS.items():
        kind = (spec.__doc__ or "").partition(":")[0]
        assert kind in KINDS, name


def test_the_built_ins_are_registered_as_third_parties_are():
    infos = {info.name: info for info in load_plugins().infos() if info.origin == "mini-paas"}
    assert set(infos) == {"buildpacks", "docker", "drains", "process", "proxy"}
    assert {info.state for info in infos.values()} == {"ok"}


def test_broken_plugins_are_listed_with_the_reason_and_the_others_work(site: Path):
    install(site, "good_one", GOOD)
    install(site, "no_import", "import nothing_of_that_name")
    install(site, "quits", "raise SystemExit(3)")
    install(site, "misspelt", GOOD.replace("mini_doctor", "mini_detekt"))
    install(site, "unmarked", GOOD.replace("    @hookimpl\n", ""))
    install(site, "arguments", GOOD.replace("(self)", "(self, weather)"))
    install(site, "too_new", "raise AssertionError('imported')", requires="mini-paas>=99")
    install(site, "crashes", "class Plugin:\n    def __init__(self): raise ValueError('no')\n")
    infos = {info.name: info for info in load_plugins().infos()}
    assert infos["good_one"].state == "ok" and infos["good_one"].hooks == ("mini_doctor",)
    reasons = {name: info.reason for name, info in infos.items() if info.state == "broken"}
    assert "nothing_of_that_name" in reasons["no_import"]
    assert "SystemExit" in reasons["quits"]
    assert reasons["misspelt"] == "mini_detekt is no hook: did you mean mini_detect?"
    assert reasons["unmarked"] == "mini_doctor lacks @hookimpl"
    assert "weather" in reasons["arguments"]
    assert reasons["too_new"].startswith("it needs mini >=99, this is ")
    assert "ValueError: no" in reasons["crashes"]


def test_two_packages_with_one_plugin_name_are_both_listed_as_broken(site: Path):
    install(site, "first", GOOD, entry="same = first:Plugin")
    install(site, "second", GOOD, entry="same = second:Plugin")
    (info,) = (info for info in load_plugins().infos() if info.name == "same")
    assert info.state == "broken" and "first and second" in info.reason


def test_a_disabled_plugin_is_not_imported(site: Path):
    install(site, "unwanted", "raise AssertionError('imported')")
    (info,) = (info for info in load_plugins(disabled=["unwanted"]).infos() if info.name == "unwanted")
    assert info.state == "disabled"


def test_a_required_plugin_that_is_missing_is_reported():
    (info,) = load_plugins(required=["vault"]).broken_required()
    assert (info.name, info.reason) == ("vault", "it is not installed")


def test_a_command_that_two_packages_or_mini_itself_have_is_listed_never_shadowed(site: Path):
    install(site, "one", "", entry="same = one:x", group="mini.commands")
    install(site, "two", "", entry="same = two:x", group="mini.commands")
    install(site, "three", "", entry="deploy = three:x", group="mini.commands")
    install(site, "four", "", entry="fine = four:x", group="mini.commands")
    good, broken = find_commands(reserved=["deploy"])
    assert list(good) == ["fine"]
    assert {info.origin for info in broken} == {"one", "two", "three"}


def test_finding_commands_imports_none_of_them(site: Path):
    install(site, "lazy", "raise AssertionError('imported')", entry="lazy = lazy:x", group="mini.commands")
    assert "lazy" in find_commands()[0]


def test_one_plugin_that_raises_does_not_stop_the_others():
    class Raises:
        @hookimpl
        def mini_run(self, context):
            raise OSError("no engine")

    class Works:
        @hookimpl
        def mini_run(self, context):
            return [Named("works")]

    hooks = Hooks(Plugins.of({"raises": Raises(), "works": Works()}))
    assert list(hooks.runtimes(CONTEXT)) == ["works"]
    assert hooks.problems() == ("raises: mini_run: OSError: no engine",)
    assert {info.name: info.state for info in hooks.infos()} == {"raises": "broken", "works": "ok"}


def test_a_name_that_two_plugins_provide_is_used_by_neither_until_one_is_disabled():
    class Provides:
        @hookimpl
        def mini_route(self, context):
            return [Named("proxy")]

    plugins = Plugins.of({"one": Provides(), "two": Provides()})
    assert Hooks(plugins).routers(CONTEXT) == {}
    hooks = Hooks(plugins, disabled=["one.proxy"])
    assert hooks.plugin_of(hooks.routers(CONTEXT)["proxy"]) == "two"


@pytest.mark.parametrize("names", list(itertools.permutations(["a", "b", "c"])))
def test_amendments_do_not_depend_on_the_order_of_plugins(names):
    given = {
        "a": PlanAmendment(env={"X": "1"}, packages=("curl",)),
        "b": PlanAmendment(env={"Y": "2", "X": "1"}),
        "c": PlanAmendment(processes={"clock": ("run",)}, packages=("git",)),
    }
    plan = amend(PLAN, {name: given[name] for name in names})
    assert {entry.name: entry.value for entry in plan.env} == {"MODE": "production", "X": "1", "Y": "2"}
    assert plan.packages == ("curl", "git")
    assert plan.process("clock").source == "plugin c"


def test_amendments_that_disagree_name_both_plugins():
    with pytest.raises(PlanError, match="a and b disagree about the variable X"):
        amend(PLAN, {"b": PlanAmendment(env={"X": "2"}), "a": PlanAmendment(env={"X": "1"})})


def test_an_amendment_cannot_change_what_the_plan_has():
    with pytest.raises(PlanError, match="the plan and a disagree about the variable MODE"):
        amend(PLAN, {"a": PlanAmendment(env={"MODE": "debug"})})


def test_all_refusals_are_collected_and_a_crash_refuses():
    class Refuses:
        @hookimpl
        def mini_check_deploy(self, app, plan):
            return [f"{app} is frozen"]

    class Crashes:
        @hookimpl
        def mini_check_deploy(self):
            raise KeyError("policy")

    hooks = Hooks(Plugins.of({"policy": Crashes(), "freeze": Refuses()}))
    refusals = hooks.check_deploy("blog", PLAN, None)
    assert refusals == ("freeze: blog is frozen", "policy: could not check the deploy: 'policy'")


def test_an_implementation_takes_only_the_arguments_it_wants():
    class Small:
        @hookimpl
        def mini_amend_plan(self, plan):
            return PlanAmendment(env={"A": plan.buildpack})

    plan = Hooks(Plugins.of({"small": Small()})).amend_plan(MemorySource({}), PLAN)
    assert {entry.name: entry.value for entry in plan.env}["A"] == "test"


def test_a_plugin_without_hooks_is_no_error():
    assert check_hooks(object()) == ((), "")


def test_the_core_imports_no_plugin():
    code = (
        "import pkgutil, sys, importlib, mini_core\n"
        "for m in pkgutil.walk_packages(mini_core.__path__, 'mini_core.'):\n"
        "    if not m.name.endswith('__main__') and '.testing' not in m.name: importlib.import_module(m.name)\n"
        "print([m for m in sys.modules if m.split('.')[0] in {'docker', 'mini_docker', 'mini_process', 'mini_proxy',"
        " 'mini_buildpacks'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
