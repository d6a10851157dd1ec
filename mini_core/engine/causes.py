"""Why an app ended, told from what it wrote last. Pure.

A file that a message names is shortened to its path in the app's folder, which ends in `/app` with every runtime.
"""

from __future__ import annotations

import itertools
import re
import signal as signals
from collections.abc import Iterable, Sequence

from mini_core.types import Value

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"ModuleNotFoundError: No module named '([^'.]+)",
        "The package {0} is not installed: add it to the dependencies.",
    ),
    (r"Cannot find module '(?:\S*?/app/)([^']+)'", "There is no {0}: mend the start command, or is it not committed?"),
    (r"Cannot find module '(\.[^']*)'", "There is no {0}: is it ignored, or not committed?"),
    (
        r"Cannot find (?:module|package) '([^'./][^']*)'",
        "The package {0} is not installed: add it to the dependencies.",
    ),
    (
        r"can't open file '(?:\S*?/app/)?([^']+)'.*No such file|(?:sh|bash): (?:\d+: )?(?:cannot|can't) open (\S+?):",
        "There is no {0}: mend the start command, or is it not committed?",
    ),
    (
        r"exec (\S+) failed: Permission denied|(?:sh|bash): (?:(?:line )?\d+: )?(?:exec: )?(\S+): Permission denied",
        "{0} is not executable: chmod +x {0}, and deploy again.",
    ),
    (
        r"exec (\S+) failed: No such file or directory",
        "There is no {0} in the image, or nothing that its first line names (Windows line ends spoil that).",
    ),
    (
        r"(?:sh|bash): (?:(?:line )?\d+: )?(?:exec: )?([^\s:]+): (?:command )?not found",
        "There is no command {0}: add what has it to the dependencies, or mend the start command.",
    ),
    (r"Missing script: \"?([^\"\s]+)", "package.json has no script {0}: add it, or mend the start command."),
    (
        r"Failed to find attribute '(\w+)' in '([\w.]+)'",
        "The module {1} has no {0}: name your application's module and variable in the start command.",
    ),
    (
        r"Attribute \"(\w+)\" not found in module \"([\w.]+)\"",
        "The module {1} has no {0}: name your application's module and variable in the start command.",
    ),
    (r"Could not import module \"([\w.]+)\"", "There is no module {0} to start, or it fails when it is imported."),
    (r"(?i)EADDRINUSE|address already in use", "Its port is taken by something else: listen on $PORT."),
    (r"KeyError: '([A-Z][A-Z0-9_]+)'", "If {0} is a variable of its environment: mini env set {0}=… -a {app}"),
    (
        r"(?i)(?:password|peer) authentication failed|access denied for user|WRONGPASS|NOAUTH",
        "A database refuses its credentials: mini env list -a {app} shows which variables are set.",
    ),
    (
        r"(?i)no such table|relation \S+ does not exist|doesn't exist.*table|table .*doesn't exist",
        "A table is missing: are the migrations up to date, and run by `release:` in the Procfile?",
    ),
    (
        r"(?i)could not translate host name|name or service not known|ENOTFOUND|name resolution",
        "It does not find the host of a service that it needs: mini env list -a {app} shows which variables are set.",
    ),
    (
        r"(?i)could not connect|ECONNREFUSED|connection refused|connection to server .* failed",
        "It cannot reach a service that it needs; localhost is the app itself in a container.",
    ),
    (r"(?i)exec format error", "A program was built for another kind of machine: build it where it runs."),
    (r"(?i)permission denied", "It may not read or write something; it does not run as root."),
)

_SIGNALS = {
    signals.SIGKILL: "It was killed from outside: a machine that runs out of memory does that. See: mini doctor",
    signals.SIGTERM: "Something asked it to end.",
}
_NATIVE = (signals.SIGSEGV, signals.SIGABRT, signals.SIGILL, signals.SIGBUS, signals.SIGFPE)


LOOKED_AT = 60
"""Lines that are looked through: Node writes a page after what is wrong."""

NOISE = re.compile(r"npm notice")


class Cause(Value):
    """hint: one sentence on what to do. tail: the last lines, and the telling one where it came long before."""

    hint: str
    tail: tuple[str, ...]


def explain(app: str, lines: Sequence[str], exit_code: int | None, signal: int | None, *, limit: int) -> Cause:
    """What the lines tell; limit: of the tail."""
    looked_at = folded(line for line in lines if not NOISE.match(line))[-LOOKED_AT:]
    for pattern, hint in _CAUSES:
        for number, line in enumerate(looked_at):
            if match := re.search(pattern, line):
                found = [group for group in match.groups() if group]
                return Cause(hint=hint.format(*found, app=app), tail=_shortened(looked_at, number, limit))
    tail = tuple(looked_at[-limit:])
    return Cause(hint=_without_a_word(tail, exit_code, signal), tail=tail)


def folded(lines: Iterable[str]) -> list[str]:
    """The lines, with how often one came where it came again and again, as probes leave it."""
    found: list[str] = []
    for line, same in itertools.groupby(lines):
        count = sum(1 for _ in same)
        found += [line] * count if count < 3 else [line, f"({count} times)"]
    return found


def _shortened(lines: Sequence[str], telling: int, limit: int) -> tuple[str, ...]:
    if telling >= len(lines) - limit:
        return tuple(lines[-limit:])
    told = lines[telling : telling + limit // 2]
    return (*told, "…", *lines[len(lines) - (limit - len(told) - 1) :])


def _without_a_word(tail: Sequence[str], exit_code: int | None, signal: int | None) -> str:
    number = signal or of_exit_code(exit_code)
    if number in _SIGNALS:
        return _SIGNALS[signals.Signals(number)]
    if number in _NATIVE:
        return "Native code crashed: do its compiled dependencies fit this machine?"
    if exit_code == 0:
        return "It ended by itself: a web process or worker has to keep running."
    if exit_code == 127:
        return "Its start command was not found: mini plan shows which one is used."
    return "Its last lines say why." if tail else "It wrote nothing: mini plan shows how it is started."


def of_exit_code(code: int | None) -> int | None:
    """The signal that a shell means by an exit code."""
    return code - 128 if code is not None and 128 < code < 160 else None


def signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def how_it_ended(exit_code: int | None, signal: int | None) -> str:
    """`exited with code 3`, `was ended by SIGKILL (exit code 137)`."""
    number = signal or of_exit_code(exit_code)
    if number:
        return f"was ended by {signal_name(number)} (exit code {128 + number})"
    return "has gone" if exit_code is None else f"exited with code {exit_code}"
