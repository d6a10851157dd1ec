"""The router's hooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mini_core.hookspecs import Context, hookimpl
from mini_core.types import Check

if TYPE_CHECKING:
    from mini_core.interfaces import CheckRun, Router


class ProxyPlugin:
    @hookimpl
    def mini_route(self, context: Context) -> Iterable[Router]:
        from mini_proxy.router import ProxyRouter

        return [ProxyRouter(context.settings.get("proxy", {}))]

    @hookimpl
    def mini_doctor(self) -> Iterable[CheckRun]:
        return [check_waitress, check_descriptors]


def check_waitress() -> Sequence[Check]:
    """The router builds on waitress's connection class: say so where another version of it does not fit."""
    from importlib.metadata import version

    from waitress.channel import HTTPChannel

    found = version("waitress")
    lacking = [
        name for name in ("service", "received", "_flush_some", "_flush_exception") if not hasattr(HTTPChannel, name)
    ]
    if lacking or not found.startswith("3."):
        return [
            Check(
                name="router: waitress",
                state="error",
                detail=f"{found} is not supported",
                hint="pip install 'waitress>=3,<4'",
            )
        ]
    return [Check(name="router: waitress", state="ok", detail=found)]


def check_descriptors() -> Sequence[Check]:
    """Every proxied connection takes two descriptors."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 4096:
        detail = f"at most {hard} open files: about {hard // 2} connections a worker"
        return [Check(name="router: open files", state="warning", detail=detail, hint="ulimit -Hn 65536")]
    return [Check(name="router: open files", state="ok", detail=str(hard) if hard >= 0 else "unlimited")]
