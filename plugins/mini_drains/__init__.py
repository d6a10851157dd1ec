"""Log drains: every app's lines to a file, a syslog server or an HTTP endpoint.

[plugins.drains]                            # in server.toml; each is optional
file = "/var/log/mini/apps.log"             # rotated at 100 MB, five are kept
syslog = "tcp://logs.example.com:6514"      # or udp://; RFC 5424
http = "https://logs.example.com/ingest"    # POST, one JSON object a line
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mini_core.errors import ConfigError
from mini_core.hookspecs import Context, hookimpl
from mini_core.interfaces import LogSink
from mini_drains.sinks import FileSink, HttpSink, SyslogSink

KINDS: Mapping[str, Callable[[str], LogSink]] = {"file": FileSink, "syslog": SyslogSink, "http": HttpSink}


class DrainsPlugin:
    @hookimpl
    def mini_log(self, context: Context) -> Iterable[LogSink]:
        return [make_sink(kind, target) for kind, target in context.settings.get("drains", {}).items()]


def make_sink(kind: str, target: Any) -> LogSink:
    """The sink of a setting. Raises ConfigError naming it."""
    if kind not in KINDS:
        raise ConfigError(f"plugins.drains.{kind}: unknown kind of drain", hint=f"Known: {', '.join(KINDS)}.")
    if not isinstance(target, str):
        raise ConfigError(f"plugins.drains.{kind}: expected a string, got {target!r}")
    return KINDS[kind](target)
