"""Why something failed, in words: what a deploy keeps, and what `ps` says of a crash."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from mini_core import disk
from mini_core.api import Failure
from mini_core.engine.causes import explain, how_it_ended
from mini_core.errors import MiniError, StartError
from mini_core.redact import Redactor
from mini_core.types import InstanceStatus, LogLine

log = logging.getLogger(__name__)

TAIL = 20
"""Lines of a log kept with a failure."""

MEGABYTE = 1024 * 1024


class InstanceFailed(StartError):
    """An instance ended, or never became healthy; says how."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str = "",
        tail: Sequence[str] = (),
        exit_code: int | None = None,
        signal: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, tail=tail)
        self.exit_code = exit_code
        self.signal = signal


def failure_of(error: BaseException, step: str, redact: Redactor) -> Failure:
    """What is kept of an error: everything in it redacted. Anything but a MiniError is a bug, and logged as one."""
    error = error if isinstance(error, MiniError) else disk.full(error) or error
    if not isinstance(error, MiniError):
        log.error("deploy failed unexpectedly at %s", step, exc_info=error)
        return Failure(
            code="bug",
            message=redact(f"Unexpected {type(error).__name__}: {error}"),
            hint="This is a bug in mini or a plugin; the server's own log has the details.",
            step=step,
        )
    return Failure(
        code=error.code,
        message=redact.own(error.message),
        hint=redact.own(error.hint),
        step=error.step or step,
        exit_code=getattr(error, "exit_code", None),
        signal=getattr(error, "signal", None),
        tail=tuple(redact(line) for line in error.tail[-TAIL:]),
    )


def ended(app: str, name: str, status: InstanceStatus, memory: int | None, lines: Iterable[LogLine]) -> InstanceFailed:
    """The error for an instance that should run and has ended. app, name: as the user knows them."""
    cause = explain(app, [line.text for line in lines], status.exit_code, status.signal, limit=TAIL)
    after = _after(status)
    if status.oom:
        limit = f" ({megabytes(memory)})" if memory else ""
        return InstanceFailed(
            f"{name} ran out of memory{limit}{after}.",
            code="out-of-memory",
            hint=f"Give it more, and deploy again: mini scale --memory {_double(memory)} -a {app}",
            tail=cause.tail,
            exit_code=status.exit_code,
            signal=status.signal,
        )
    return InstanceFailed(
        f"{name} {how_it_ended(status.exit_code, status.signal)}{after}.",
        code="exited",
        hint=cause.hint,
        tail=cause.tail,
        exit_code=status.exit_code,
        signal=status.signal,
    )


def _after(status: InstanceStatus) -> str:
    if status.started_at is None or status.ended_at is None:
        return ""
    return f" after {max(status.ended_at - status.started_at, 0):.1f} s"


def megabytes(size: int) -> str:
    return f"{size / MEGABYTE / 1024:.3g} GB" if size >= 1024 * MEGABYTE else f"{size // MEGABYTE} MB"


def _double(memory: int | None) -> str:
    """What to try next, as one types it."""
    size = 2 * memory // MEGABYTE if memory else 1024
    return f"{size}m" if size % 1024 else f"{size // 1024}g"
