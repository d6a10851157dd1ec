"""A plugin for mini: PHP apps, on Debian's own PHP."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mini_core.hookspecs import Context, PlanAmendment, hookimpl
from mini_core.interfaces import Buildpack, LogSink, Source
from mini_core.types import Plan

from mini_php.buildpack import PhpBuildpack
from mini_php.sink import FileSink


class PhpPlugin:
    @hookimpl
    def mini_detect(self) -> Iterable[Buildpack]:
        return [PhpBuildpack()]

    @hookimpl
    def mini_amend_plan(self, source: Source, plan: Plan) -> PlanAmendment | None:
        if plan.buildpack != "php" or source.has("mini-php.single"):
            return None
        return PlanAmendment(env={"PHP_CLI_SERVER_WORKERS": "4"})

    @hookimpl
    def mini_log(self, context: Context) -> Iterable[LogSink]:
        path = context.settings.get("php", {}).get("log")
        return [FileSink(Path(path))] if path else []
