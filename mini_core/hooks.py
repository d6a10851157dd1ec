"""The only caller of hooks: one typed method per hook.

Plugins are called one by one. What one of them raises is kept as a problem of that plugin, shown by `mini plugins
list`, `mini status` and `mini doctor`, and the others are called all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from mini_core import api
from mini_core.errors import MiniError, PlanError
from mini_core.hookspecs import Context, PlanAmendment
from mini_core.interfaces import (
    Builder,
    Buildpack,
    CheckRun,
    EndpointSpec,
    LogSink,
    Page,
    Platform,
    Router,
    Runtime,
    Source,
)
from mini_core.plugins import Plugins
from mini_core.types import EnvEntry, Event, Plan, ProcessType, Release, replace

T = TypeVar("T")
log = logging.getLogger(__name__)


class Hooks:
    """disabled: names of plugins (left out when loading) and of single objects, as "PLUGIN.OBJECT"."""

    def __init__(self, plugins: Plugins, *, disabled: Collection[str] = ()) -> None:
        self.plugins = plugins
        self._disabled = frozenset(disabled)
        self._problems: dict[tuple[str, str], str] = {}
        self._owners: dict[int, str] = {}

    # --- providing

    def buildpacks(self) -> tuple[Buildpack, ...]:
        """Sorted by name."""
        return tuple(self._named("mini_detect", "buildpack").values())

    def builders(self, context: Context) -> dict[str, Builder]:
        return self._named("mini_build", "builder", context=context)

    def runtimes(self, context: Context) -> dict[str, Runtime]:
        return self._named("mini_run", "runtime", context=context)

    def routers(self, context: Context) -> dict[str, Router]:
        return self._named("mini_route", "router", context=context)

    def log_sinks(self, context: Context) -> dict[str, LogSink]:
        return self._named("mini_log", "log sink", context=context)

    def endpoints(self) -> dict[str, tuple[EndpointSpec, ...]]:
        """Plugin → its HTTP endpoints."""
        return self._by_plugin("mini_api")

    def pages(self) -> dict[str, tuple[Page, ...]]:
        """Plugin → its pages."""
        return self._by_plugin("mini_pages")

    def checks(self) -> tuple[tuple[str, CheckRun], ...]:
        """(plugin, check) for `mini doctor`."""
        found: dict[str, tuple[CheckRun, ...]] = self._by_plugin("mini_doctor")
        return tuple((plugin, check) for plugin, checks in found.items() for check in checks)

    def plugin_of(self, item: object) -> str:
        """The name of the plugin that provided an object."""
        return self._owners.get(id(item), "")

    # --- amending

    def amend_plan(self, source: Source, plan: Plan) -> Plan:
        """The plan with every plugin's additions. Raises PlanError where two contradict each other."""
        amendments = self._answers("mini_amend_plan", source=source, plan=plan)
        return amend(plan, {plugin: item for plugin, item in amendments.items() if item is not None})

    def release_env(self, app: str) -> dict[str, str]:
        """Variables that plugins add to a release. Raises PlanError where two give one a different value."""
        given: dict[str, tuple[str, str]] = {}
        for plugin, env in self._answers("mini_release_env", app=app).items():
            for name, item in (env or {}).items():
                _agree(given, plugin, f"variable {name}", name, item)
        return {name: item for name, (_, item) in given.items()}

    # --- deciding

    def check_deploy(self, app: str, plan: Plan, release: Release | None) -> tuple[str, ...]:
        """Why the deploy must not happen; empty if it may. A plugin that crashes while checking refuses."""
        refusals = []
        for plugin in self.plugins.implementing("mini_check_deploy"):
            try:
                answer = self.plugins.call(plugin, "mini_check_deploy", app=app, plan=plan, release=release)
                refusals += [f"{plugin}: {reason}" for reason in answer or ()]
            except Exception as error:
                self._failed(plugin, "mini_check_deploy", error)
                refusals.append(f"{plugin}: could not check the deploy: {error}")
        return tuple(refusals)

    # --- durable, notifying, life cycle: one plugin at a time, by stored jobs; these raise what the plugin raises

    def implementing(self, hook: str) -> tuple[str, ...]:
        """Names of the plugins that implement a hook."""
        return self.plugins.implementing(hook)

    def durable(self, hook: str, plugin: str, **arguments: Any) -> None:
        """Carries out one plugin's part of a durable hook ("mini_app_destroy", …)."""
        self.plugins.call(plugin, hook, **arguments)

    def event(self, plugin: str, event: Event) -> None:
        self.plugins.call(plugin, "mini_event", event=event)

    def start(self, plugin: str, platform: Platform) -> None:
        if plugin in self.plugins.implementing("mini_start"):
            self._guarded(plugin, "mini_start", platform=platform)

    def stop(self, plugin: str) -> None:
        if plugin in self.plugins.implementing("mini_stop"):
            self._guarded(plugin, "mini_stop")

    # --- what is known of the plugins

    def infos(self) -> tuple[api.PluginInfo, ...]:
        """All plugins, those that failed when they were called listed as broken."""
        failed = {plugin: reason for (plugin, _), reason in self._problems.items()}
        return tuple(
            replace(info, state="broken", reason=failed[info.name])
            if info.state == "ok" and info.name in failed
            else info
            for info in self.plugins.infos()
        )

    def buildpack_infos(self) -> tuple[api.BuildpackInfo, ...]:
        """The buildpacks, each with the plugin that it comes from."""
        versions = {info.name: info.version for info in self.plugins.infos()}
        owners = ((item, self.plugin_of(item)) for item in self.buildpacks())
        return tuple(
            api.BuildpackInfo(
                name=item.name, description=item.description, plugin=owner, version=versions.get(owner, "")
            )
            for item, owner in owners
        )

    def problems(self) -> tuple[str, ...]:
        """One line for each thing that is wrong with a plugin."""
        broken = [f"{info.name}: {info.reason}" for info in self.plugins.infos() if info.state == "broken"]
        return (*broken, *(f"{plugin}: {reason}" for (plugin, _), reason in sorted(self._problems.items())))

    # --- inside

    def _answers(self, hook: str, **arguments: Any) -> dict[str, Any]:
        answers = {}
        for plugin in self.plugins.implementing(hook):
            try:
                answers[plugin] = self.plugins.call(plugin, hook, **arguments)
            except Exception as error:
                self._failed(plugin, hook, error)
        return answers

    def _by_plugin(self, hook: str, **arguments: Any) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for plugin in self.plugins.implementing(hook):
            try:
                found[plugin] = tuple(self.plugins.call(plugin, hook, **arguments) or ())
            except Exception as error:
                self._failed(plugin, hook, error)
        return found

    def _named(self, hook: str, what: str, **arguments: Any) -> dict[str, Any]:
        """Objects by name. A name that two plugins provide is used by neither: order must not decide."""
        found: dict[str, list[tuple[str, Any]]] = {}
        for plugin, items in self._by_plugin(hook, **arguments).items():
            for item in items:
                if f"{plugin}.{item.name}" not in self._disabled:
                    found.setdefault(item.name, []).append((plugin, item))
                    self._owners[id(item)] = plugin
        good = {}
        for name, items_of in sorted(found.items()):
            if len(items_of) == 1:
                good[name] = items_of[0][1]
                continue
            plugins = " and ".join(plugin for plugin, _ in items_of)
            reason = f"{what} {name} comes from {plugins}: add PLUGIN.{name} to [plugins] disabled for one of them"
            self._problems[items_of[0][0], f"{hook} {name}"] = reason
        return good

    def _guarded(self, plugin: str, hook: str, **arguments: Any) -> None:
        try:
            self.plugins.call(plugin, hook, **arguments)
        except Exception as error:
            self._failed(plugin, hook, error)

    def _failed(self, plugin: str, hook: str, error: Exception) -> None:
        log.warning("plugin %s failed in %s", plugin, hook, exc_info=error)
        foreseen = isinstance(error, MiniError)
        self._problems[plugin, hook] = str(error) if foreseen else f"{hook}: {type(error).__name__}: {error}"


def amend(plan: Plan, amendments: Mapping[str, PlanAmendment]) -> Plan:
    """The plan with the amendments of several plugins (name → amendment), whatever their order.

    Raises PlanError where two disagree, or where one would change what the plan has: amendments only add.
    """
    env: dict[str, tuple[str, Any]] = {entry.name: ("the plan", entry.value) for entry in plan.env}
    processes: dict[str, tuple[str, Any]] = {item.name: ("the plan", item.command) for item in plan.processes}
    for plugin in sorted(amendments):
        for name, text in amendments[plugin].env.items():
            _agree(env, plugin, f"variable {name}", name, text)
        for name, command in amendments[plugin].processes.items():
            _agree(processes, plugin, f"process {name}", name, tuple(command))
    added = [EnvEntry(name=name, value=item) for name, (owner, item) in env.items() if owner != "the plan"]
    more = [
        ProcessType(name=name, command=item, source=f"plugin {owner}")
        for name, (owner, item) in processes.items()
        if owner != "the plan"
    ]
    return replace(
        plan,
        env=(*plan.env, *added),
        processes=(*plan.processes, *more),
        steps=(*plan.steps, *(step for plugin in sorted(amendments) for step in amendments[plugin].steps)),
        packages=_union(plan.packages, amendments, lambda item: item.packages),
        runtime_packages=_union(plan.runtime_packages, amendments, lambda item: item.runtime_packages),
        warnings=_union(plan.warnings, amendments, lambda item: item.warnings),
    )


def _agree(given: dict[str, tuple[str, T]], plugin: str, what: str, name: str, item: T) -> None:
    owner, before = given.setdefault(name, (plugin, item))
    if before != item:
        raise PlanError(
            f"{owner} and {plugin} disagree about the {what}",
            hint=f'Turn one of them off: [plugins] disabled = ["{plugin}"] in server.toml.',
            code="amendments-disagree",
        )


def _union(
    start: tuple[str, ...],
    amendments: Mapping[str, PlanAmendment],
    pick: Callable[[PlanAmendment], Iterable[str]],
) -> tuple[str, ...]:
    added = (item for plugin in sorted(amendments) for item in pick(amendments[plugin]))
    return tuple(dict.fromkeys((*start, *added)))
