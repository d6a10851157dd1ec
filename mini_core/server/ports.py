"""Which addresses and which port the router listens on."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from mini_core.errors import Unavailable

PREFERRED = (80, *range(8080, 8100))
"""Ports that are tried when none was chosen, in this order."""

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def usable_binds(binds: Iterable[str]) -> tuple[str, ...]:
    """Those addresses that this machine has; `::1` is missing on some. Raises Unavailable where none is left."""
    binds = tuple(binds)
    usable = tuple(bind for bind in binds if _try(bind, 0) not in _ABSENT)
    if not usable:
        raise Unavailable(
            f"This machine has no address {' or '.join(binds)}.", hint="Choose another: mini up --bind ADDRESS"
        )
    return usable


def choose_port(binds: Iterable[str], candidates: Iterable[int] = PREFERRED) -> int:
    """The first port that is free on all the addresses. Raises Unavailable where there is none."""
    binds, candidates = tuple(binds), tuple(candidates)
    for port in candidates:
        if all(_try(bind, port) == 0 for bind in binds):
            return port
    raise Unavailable(
        f"No free port: {candidates[0]} to {candidates[-1]} are all taken.", hint="Choose another: mini up --port N"
    )


def reachable(bind: str) -> str:
    """The address to connect to, in a URL, for one that is listened on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
    return f"[{host}]" if ":" in host else host


def is_free(binds: Iterable[str], port: int) -> bool:
    return all(_try(bind, port) == 0 for bind in binds)


def _try(bind: str, port: int) -> int:
    """0, or the errno with which binding fails. Nothing listens on the port afterwards."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((bind, port))
            probe.listen(1)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
