"""Checks for `mini doctor`: what local processes can be built with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mini_core.types import Check
from mini_process import toolchains
from mini_process.shim import LINUX, numbers_in_proc

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


def check_strays() -> Sequence[Check]:
    """Instances whose folder was removed, with the platform around it: nobody stops them."""
    strays = dict(_strays())
    if not strays:
        return [Check(name="local strays", state="ok", detail="every instance has its platform")]
    names = ", ".join(sorted(folder.name for folder in strays.values()))
    hint = f"kill {' '.join(map(str, sorted(strays)))}"
    return [Check(name="local strays", state="warning", detail=f"of a platform that is gone: {names}", hint=hint)]


def _strays() -> Iterator[tuple[int, Path]]:
    """(process id of a shim, its folder, which is not there any more, as the shim itself sees it)."""
    for pid in numbers_in_proc():
        with contextlib.suppress(OSError):
            words = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
            place = next((at for at, word in enumerate(words) if word.endswith("/mini_process/shim.py")), None)
            if place is not None and not Path(f"/proc/{pid}/root{words[place + 1]}").exists():
                yield pid, Path(words[place + 1])
