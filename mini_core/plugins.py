"""Finding plugins: entry points are read, checked and loaded one by one, so that a broken one is only listed.

A plugin's requirement on mini is read from its distribution's metadata before anything of it is imported. The
built-ins come through the same door.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mini_core import __version__, hookspecs
from mini_core.api import PluginInfo
from mini_core.types import replace

GROUP = "mini"
COMMAND_GROUP = "mini.commands"
DISTRIBUTION = "mini-paas"

SPECS: Mapping[str, Callable[..., Any]] = {
    name: item for name, item in vars(hookspecs).items() if name.startswith("mini_")
}
"""Every hook by name."""


class Plugins:
    """The plugins of one process: those that work, by name, and what is known of all."""

    def __init__(self, infos: Iterable[PluginInfo], objects: Mapping[str, object], required: Collection[str] = ()):
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._infos = {}
        self._required = tuple(required)
        for info in infos:
            self._infos[info.name] = self._register(info, objects.get(info.name))

    @classmethod
    def of(cls, objects: Mapping[str, object]) -> Plugins:
        """Plugins made from objects at hand, without entry points: name → plugin."""
        infos = (PluginInfo(name=name, version="", origin="", state="ok") for name in objects)
        return cls(infos, objects)

    def infos(self) -> tuple[PluginInfo, ...]:
        """All that were found, working or not, by name."""
        return tuple(self._infos[name] for name in sorted(self._infos))

    def names(self) -> tuple[str, ...]:
        """Those that work."""
        return tuple(info.name for info in self.infos() if info.state == "ok")

    def broken_required(self) -> tuple[PluginInfo, ...]:
        """Plugins in `[plugins] required` that do not work or are not there: no deploy may happen then."""
        missing = PluginInfo(name="", version="", origin="", state="broken", reason="it is not installed")
        infos = (self._infos.get(name, replace(missing, name=name)) for name in self._required)
        return tuple(info for info in infos if info.state != "ok")

    def implementing(self, hook: str) -> tuple[str, ...]:
        """Names of the working plugins that implement a hook, sorted."""
        found = {impl.plugin_name for impl in getattr(self._manager.hook, hook).get_hookimpls()}
        return tuple(name for name in self.names() if name in found)

    def call(self, plugin: str, hook: str, **arguments: Any) -> Any:
        """Calls one plugin's implementation with those of the arguments that it takes. Raises what it raises."""
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            if impl.plugin_name == plugin:
                return impl.function(*(arguments[name] for name in impl.argnames))
        raise LookupError(f"{plugin} does not implement {hook}")

    def _register(self, info: PluginInfo, plugin: object | None) -> PluginInfo:
        if info.state != "ok" or plugin is None:
            return info
        hooks, problem = check_hooks(plugin)
        if problem:
            return replace(info, state="broken", reason=problem)
        try:
            self._manager.register(plugin, info.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.get_plugin(info.name) is not None:
                self._manager.unregister(name=info.name)
            reason = " ".join(str(error).split())
            return replace(info, state="broken", reason=reason)
        return replace(info, hooks=hooks)


def check_hooks(plugin: object) -> tuple[tuple[str, ...], str]:
    """The hooks that a plugin implements, and what is wrong with it ("" if nothing is): a name that is no hook, or
    a hook's name without the marker, which pluggy would pass over in silence."""
    hooks = []
    for name in sorted(set(dir(plugin))):
        member = getattr(plugin, name, None)
        marked = hasattr(member, f"{GROUP}_impl")
        if marked and name not in SPECS:
            return (), f"{name} is no hook{_suggest(name)}"
        if not marked and name.startswith("mini_") and callable(member):
            known = "lacks @hookimpl" if name in SPECS else f"is no hook{_suggest(name)}"
            return (), f"{name} {known}"
        if marked:
            hooks.append(name)
    return tuple(hooks), ""


def load_plugins(*, disabled: Collection[str] = (), required: Collection[str] = ()) -> Plugins:
    """Every plugin that is installed, loaded where it can be."""
    infos: list[PluginInfo] = []
    objects: dict[str, object] = {}
    for name, found in sorted(_by_name(entry_points(group=GROUP)).items()):
        info, plugin = _load(name, found, disabled)
        infos.append(info)
        if plugin is not None:
            objects[name] = plugin
    return Plugins(infos, objects, required)


def find_commands(reserved: Collection[str] = ()) -> tuple[dict[str, EntryPoint], tuple[PluginInfo, ...]]:
    """CLI commands of plugins, from metadata alone: name → entry point, and those that cannot be used because
    mini (`reserved`) or another package has a command of that name."""
    good: dict[str, EntryPoint] = {}
    broken: list[PluginInfo] = []
    for name, found in sorted(_by_name(entry_points(group=COMMAND_GROUP)).items()):
        if name in reserved:
            broken += [_described(point, f"the command {name} is mini's own") for point in found]
        elif len(found) > 1:
            broken += [_described(point, f"the command {name} comes from {_origins(found)}") for point in found]
        else:
            good[name] = found[0]
    return good, tuple(broken)


def _by_name(points: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Entry points by name; one that is found twice because its distribution is on the path twice counts once."""
    found: dict[str, dict[tuple[str, str], EntryPoint]] = defaultdict(dict)
    for point in points:
        found[point.name].setdefault((_origin(point), point.value), point)
    return {name: list(items.values()) for name, items in found.items()}


def _load(name: str, found: list[EntryPoint], disabled: Collection[str]) -> tuple[PluginInfo, object | None]:
    point = found[0]
    if name in disabled:
        return replace(_described(point, "by [plugins] disabled"), state="disabled"), None
    if len(found) > 1:
        reason = f"{name} comes from {_origins(found)}: uninstall one of them"
        return _described(point, reason), None
    if problem := _incompatible(point):
        return _described(point, problem), None
    try:
        plugin = point.load()()
    except (Exception, SystemExit) as error:  # whatever a plugin's import does must not end the platform
        return _described(point, f"{point.value}: {type(error).__name__}: {_first_line(error)}"), None
    return replace(_described(point, ""), state="ok"), plugin


def _incompatible(point: EntryPoint) -> str:
    for text in (point.dist.requires or []) if point.dist else []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != DISTRIBUTION or (requirement.marker and not _applies(requirement)):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return f"it needs mini {requirement.specifier}, this is {__version__}"
    return ""


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _described(point: EntryPoint, reason: str) -> PluginInfo:
    version = point.dist.version if point.dist else ""
    return PluginInfo(name=point.name, version=version, origin=_origin(point), state="broken", reason=reason)


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _origins(found: Iterable[EntryPoint]) -> str:
    return " and ".join(sorted({_origin(point) for point in found}))


def _suggest(name: str) -> str:
    close = difflib.get_close_matches(name, SPECS, n=1)
    return f": did you mean {close[0]}?" if close else ""


def _first_line(error: BaseException) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
