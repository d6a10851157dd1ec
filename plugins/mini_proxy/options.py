"""What can be set in `[plugins.proxy]` of server.toml."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import msgspec

from mini_core.errors import ConfigError
from mini_core.types import Value, from_data

CONTROLLER_TIMEOUT = 600.0
"""Seconds that the controller may take to begin an answer: some of its calls end when a job does."""


class Options(Value):
    """Times in seconds, sizes in bytes.

    connect_timeout: for one instance. response_timeout: until a response begins, and between two of its parts.
    stream_timeout: the same for WebSockets and event streams. client_timeout: for a client that takes nothing, or
    sends a request too slowly. idle_timeout: of a client's connection between requests. hold_timeout: how long
    requests wait for an app that is replaced or woken. drain_timeout: for requests when a worker is replaced.
    linger_timeout: for its WebSockets and event streams. max_body: of a request. max_requests: in flight, for
    routes that name no cap, over all workers. max_waiting: requests that wait for one app, in each worker.
    keepalive: reuse connections to instances.
    trusted: networks of proxies in front, whose X-Forwarded-* headers are believed. log_size: of router.log, of
    which one older file is kept.
    """

    connect_timeout: float = 1.0
    response_timeout: float = 60.0
    stream_timeout: float = 3600.0
    client_timeout: float = 60.0
    idle_timeout: float = 75.0
    hold_timeout: float = 60.0
    drain_timeout: float = 30.0
    linger_timeout: float = 3600.0
    max_body: int = 1 << 30
    max_requests: int = 1000
    max_waiting: int = 1000
    keepalive: bool = True
    trusted: tuple[str, ...] = ()
    log_size: int = 16 << 20


def read_options(data: Mapping[str, Any]) -> Options:
    """Raises ConfigError, naming the setting."""
    unknown = set(data) - set(Options.__slots__)  # type: ignore[attr-defined]
    if unknown:
        raise ConfigError(f"plugins.proxy.{min(unknown)}: there is no such setting")
    try:
        return from_data(Options, dict(data))
    except msgspec.ValidationError as error:
        raise ConfigError(f"plugins.proxy: {error}") from None


def raise_file_limit() -> int:
    """Lets this process open as many files as it may; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
