"""Why something failed, in words: what a deploy keeps, and what `ps` says of a crash."""

from __future__ import annotations

import logging
import re
import signal as signals
from collections.abc import Iterable, Sequence

from mini_core.api import Failure
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


def ended(name: str, status: InstanceStatus, memory: int | None, lines: Iterable[LogLine]) -> InstanceFailed:
    """The error for an instance that should run and has ended."""
    tail = [line.text for line in lines][-TAIL:]
    after = _after(status)
    if status.oom:
        limit = f" ({megabytes(memory)})" if memory else ""
        return InstanceFailed(
            f"{name} ran out of memory{limit}{after}.",
            code="out-of-memory",
            hint=f"Give it more: mini scale --memory {_double(memory)}",
            tail=tail,
            exit_code=status.exit_code,
            signal=status.signal,
        )
    return InstanceFailed(
        f"{name} {how_it_ended(status.exit_code, status.signal)}{after}.",
        code="exited",
        hint=likely_cause(tail, status.exit_code),
        tail=tail,
        exit_code=status.exit_code,
        signal=status.signal,
    )


def how_it_ended(exit_code: int | None, signal: int | None) -> str:
    if signal:
        try:
            return f"was ended by {signals.Signals(signal).name}"
        except ValueError:
            return f"was ended by signal {signal}"
    return "has gone" if exit_code is None else f"exited with code {exit_code}"


def _after(status: InstanceStatus) -> str:
    if status.started_at is None or status.ended_at is None:
        return ""
    return f" after {max(status.ended_at - status.started_at, 0):.1f} s"


def megabytes(size: int) -> str:
    return f"{size / MEGABYTE / 1024:.3g} GB" if size >= 1024 * MEGABYTE else f"{size // MEGABYTE} MB"


def _double(memory: int | None) -> str:
    return f"{memory * 2 // MEGABYTE}m" if memory else "1g"


_MISSING = "The package {0} is not installed: add it to the dependencies."

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"ModuleNotFoundError: No module named '([^'.]+)",
        "The package {0} is not installed: add it to the dependencies.",
    ),
    (r"Cannot find module '([^'./][^']*)'", "The package {0} is not installed: add it to the dependencies."),
    (r"(?i)EADDRINUSE|address already in use", "Its port is taken by something else: listen on $PORT."),
    (r"KeyError: '([A-Z][A-Z0-9_]+)'", "If {0} is a variable of its environment: mini env set {0}=…"),
    (r"(?:sh|bash): (?:line )?\d+: (\S+): (?:command )?not found", "{0} is not installed: see the start command."),
    (r"(?i)permission denied", "It may not read or write something; it does not run as root."),
    (r"(?i)could not connect|ECONNREFUSED|Connection refused", "It cannot reach a service that it needs."),
)


def likely_cause(tail: Sequence[str], exit_code: int | None) -> str:
    """One sentence on what to do, from what the app wrote."""
    text = "\n".join(tail)
    for pattern, hint in _CAUSES:
        if match := re.search(pattern, text):
            return hint.format(*match.groups())
    if exit_code == 0:
        return "It ended by itself: a web process or worker has to keep running."
    if exit_code == 127:
        return "Its start command was not found: mini plan shows which one is used."
    return "Its last lines say why." if tail else "It wrote nothing: mini plan shows how it is started."
