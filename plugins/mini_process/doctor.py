"""Checks for `mini doctor`: what local processes can be built with."""

from __future__ import annotations

from collections.abc import Sequence

from mini_core.types import Check
from mini_process import toolchains
from mini_process.shim import LINUX

_INSTALL = {"python": "uv python install 3.13", "node": "https://nodejs.org", "go": "https://go.dev/dl"}


def check_toolchains() -> Sequence[Check]:
    """One line for each toolchain: the versions that apps can be built with when they run as local processes."""
    checks = [_check(name) for name in ("python", "node", "go")]
    if not LINUX:
        detail = "memory limits and listening ports are seen on Linux only"
        checks.append(Check(name="process runtime", state="skipped", detail=detail))
    return checks


def _check(name: str) -> Check:
    versions = [tool.version for tool in toolchains.installed(name)]
    if versions:
        return Check(name=f"local {name}", state="ok", detail=", ".join(versions))
    detail = f"none: {name} apps cannot run as local processes"
    return Check(name=f"local {name}", state="skipped", detail=detail, hint=_INSTALL[name])
