"""Kinds of values that are typed: durations, sizes, points in time."""

from __future__ import annotations

import datetime
import time

import click

from mini_core.quantities import parse_duration, parse_size


def duration(text: str) -> float:
    """Seconds of "90", "15m", "1h30m"."""
    found = parse_duration(text)
    if not found:
        raise click.BadParameter(f"{text!r} is no duration: write 90s, 15m or 1h")
    return found


def size(text: str) -> int:
    """Bytes of "512m", "1g"."""
    found = parse_size(text)
    if not found:
        raise click.BadParameter(f"{text!r} is no size: write 512m or 1g")
    return found


def limit(text: str) -> int:
    """The same, or 0 for none."""
    return 0 if text == "0" else size(text)


def moment(text: str) -> float:
    """Seconds since the epoch of "30m" (ago), "02:00" (the last one), "2026-11-24 02:00"."""
    found = parse_moment(text, time.time())
    if found is None:
        raise click.BadParameter(f"{text!r} is no time: write 30m, 02:00 or 2026-11-24T02:00")
    return found


def parse_moment(text: str, now: float) -> float | None:
    """Local time, unless the text has a zone."""
    if (ago := parse_duration(text)) is not None:
        return now - ago
    try:
        clock = datetime.time.fromisoformat(text)
    except ValueError:
        pass
    else:
        today = datetime.datetime.fromtimestamp(now)
        then = datetime.datetime.combine(today.date(), clock.replace(tzinfo=None))
        return (then if then <= today else then - datetime.timedelta(days=1)).timestamp()
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
