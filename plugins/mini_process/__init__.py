"""Build and run as local processes, for a machine without Docker."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from mini_core.hookspecs import Context, hookimpl
from mini_core.interfaces import Builder, CheckRun, Runtime

SUPPORTED = sys.platform != "win32"


class ProcessPlugin:
    """Provides the builder and the runtime "process", where there are process groups and file locks: not on Windows.

    `[plugins.process] paths` in server.toml: more folders in which to look for python, node, go.
    """

    @hookimpl
    def mini_build(self, context: Context) -> Iterable[Builder]:
        if not SUPPORTED:
            return ()
        from mini_process.builder import ProcessBuilder
        from mini_process.layout import Layout

        paths = context.settings.get("process", {}).get("paths", ())
        return (ProcessBuilder(Layout.of(context), tuple(paths)),)

    @hookimpl
    def mini_run(self, context: Context) -> Iterable[Runtime]:
        if not SUPPORTED:
            return ()
        from mini_process.layout import Layout
        from mini_process.runtime import ProcessRuntime

        return (ProcessRuntime(Layout.of(context)),)

    @hookimpl
    def mini_doctor(self) -> Iterable[CheckRun]:
        if not SUPPORTED:
            return ()
        from mini_process.doctor import check_strays, check_toolchains

        return (check_toolchains, check_strays)
