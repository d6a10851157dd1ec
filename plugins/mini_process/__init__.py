"""Build and run as local processes, for a machine without Docker."""

from __future__ import annotations

from collections.abc import Iterable

from mini_core.hookspecs import Context, hookimpl
from mini_core.interfaces import Builder, CheckRun, Runtime


class ProcessPlugin:
    """Provides the builder and the runtime "process"."""

    @hookimpl
    def mini_build(self, context: Context) -> Iterable[Builder]:
        from mini_process.builder import ProcessBuilder
        from mini_process.layout import Layout

        paths = context.settings.get("process", {}).get("paths", ())
        return (ProcessBuilder(Layout.of(context), tuple(paths)),)

    @hookimpl
    def mini_run(self, context: Context) -> Iterable[Runtime]:
        from mini_process.layout import Layout
        from mini_process.runtime import ProcessRuntime

        return (ProcessRuntime(Layout.of(context)),)

    @hookimpl
    def mini_doctor(self) -> Iterable[CheckRun]:
        from mini_process.doctor import check_toolchains

        return (check_toolchains,)
