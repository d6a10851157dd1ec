"""From settings and folders to everything that the engine works with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from mini_core.engine import transfer
from mini_core.engine.parts import Parts
from mini_core.errors import Conflict, MiniError, Unavailable
from mini_core.hooks import Hooks
from mini_core.hookspecs import Context
from mini_core.interfaces import Runtime
from mini_core.locks import FileLock
from mini_core.logs import LogBook
from mini_core.paths import Paths, private_folder
from mini_core.plugins import load_plugins
from mini_core.settings import Settings
from mini_core.store import Store, open_store
from mini_core.types import Endpoint, RouterSettings

T = TypeVar("T")

DEFAULT_RUNTIMES = ("docker", "process")
"""In the order in which they are tried at the first start."""

DEFAULT_PORT = 8080


def own(data: Path) -> FileLock:
    """Held for as long as a controller lives: the data folder is its own. Raises Conflict where it is another's."""
    refusal = Conflict(
        f"Another controller works with {data}.",
        hint="mini status shows it; mini down ends it.",
        code="second-controller",
    )
    return FileLock.take(data / "controller.lock", refusal)


def open_parts(settings: Settings, paths: Paths, hooks: Hooks | None) -> tuple[Parts, str]:
    """The parts, and what the user should know about the choice of the runtime ("" if nothing).

    Raises Unavailable where a plugin that is needed is not there, ConfigError for a store of a newer mini.
    """
    for folder in (paths.config, paths.data, paths.run, paths.logs, paths.cache):
        private_folder(folder)
    transfer.finish(paths)
    store = open_store(paths.database, transfer.key_file(paths))
    try:
        return _with_store(settings, paths, store, hooks or _load_hooks(settings))
    except BaseException:
        store.close()
        raise


def _load_hooks(settings: Settings) -> Hooks:
    plugins = load_plugins(disabled=settings.disabled, required=settings.required)
    return Hooks(plugins, disabled=settings.disabled)


def _with_store(settings: Settings, paths: Paths, store: Store, hooks: Hooks) -> tuple[Parts, str]:
    platform = store.meta.get("platform") or str(uuid.uuid4())
    store.meta.set("platform", platform)
    context = Context(
        platform=platform,
        data=paths.data,
        cache=paths.cache,
        images=settings.images,
        settings=settings.plugins,
        disk_reserve=settings.disk_reserve,
    )
    runtime, notice = choose_runtime(store, settings.runtime, hooks.runtimes(context))
    routers = hooks.routers(context)
    port = settings.port or DEFAULT_PORT
    state = private_folder(paths.run / "router")
    parts = Parts(
        platform=platform,
        settings=settings,
        paths=paths,
        store=store,
        hooks=hooks,
        context=context,
        runtime=runtime,
        builders=hooks.builders(context),
        router=pick("router", settings.router, routers),
        router_settings=RouterSettings(
            binds=tuple(Endpoint(host=host, port=port) for host in settings.bind),
            state=str(state),
            controller=str(paths.controller_socket),
            platform=platform,
            workers=settings.workers,
            options=settings.plugins.get(settings.router, {}),
        ),
        book=LogBook(paths.logs, settings.log_size),
        port=port,
        https_routers=tuple(sorted(name for name, router in routers.items() if router.https)),
    )
    return parts, notice


def pick(what: str, name: str, found: Mapping[str, T]) -> T:
    """Raises Unavailable where no plugin provides it."""
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise Unavailable(
            f"There is no {what} {name}.", hint=f"There are: {known}. mini plugins list shows what is broken."
        )
    return found[name]


def choose_runtime(store: Store, wanted: str, found: Mapping[str, Runtime]) -> tuple[Runtime, str]:
    """The runtime that was chosen at the first start, or is chosen now, and a remark about it.

    Another one is taken only on demand, and only while no app runs on the first: raises Conflict.
    """
    chosen = store.meta.get("runtime")
    if chosen and wanted and wanted != chosen:
        apps = [app.name for app in store.apps.all() if app.release is not None]
        if apps:
            raise Conflict(
                f"The apps here run on {chosen}: {', '.join(apps)}.",
                hint=f"mini up --runtime {chosen}, or destroy them first; MINI_HOME makes a second platform.",
                code="other-runtime",
            )
        chosen = wanted
    notice = ""
    if not chosen:
        chosen, notice = (wanted, "") if wanted else _first_that_works(found)
    runtime = pick("runtime", chosen, found)
    store.meta.set("runtime", chosen)
    if notice or wanted:
        store.meta.set("runtime-notice", notice)
    return runtime, store.meta.get("runtime-notice")


def _first_that_works(found: Mapping[str, Runtime]) -> tuple[str, str]:
    """Its name, and why a better one was passed over."""
    remarks: list[str] = []
    names = [name for name in DEFAULT_RUNTIMES if name in found]
    for name in (*names, *sorted(found.keys() - set(names))):
        try:
            found[name].check()
        except MiniError as error:
            remarks.append(": ".join(filter(None, (error.message.rstrip("."), error.hint))))
        else:
            return name, "; ".join(remarks)
    raise Unavailable(
        "No runtime can be used here.", hint="; ".join(remarks) or "mini plugins list shows what is broken."
    )
