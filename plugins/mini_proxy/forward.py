"""What an instance is told of a request: its header, less what concerns the client's connection only, and who asks.

Nothing that a client says of itself is believed, unless its address is one of a proxy in front (`trusted`). There is
no `Via`: it would make servers such as nginx stop compressing.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
from collections.abc import Iterable

from mini_core.hosts import split_port
from mini_proxy.http1 import HOP_BY_HOP
from mini_proxy.request import Request

FORWARDED = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-scheme",
        b"x-real-ip",
    )
)
_DROPPED = HOP_BY_HOP | FORWARDED | {b"host", b"content-length", b"expect", b"x-request-id", b"proxy"}
_KEPT_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"host"))
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{16,128}")


class Client:
    """Whoever is at the other end of a connection. address: without a zone or an IPv4-mapped prefix. local: it
    comes from this machine. trusted: it is a proxy in front."""

    def __init__(self, address: str, trusted: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        plain = address.partition("%")[0]
        parsed = ipaddress.ip_address(plain)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        self.address = str(parsed)
        self.local = parsed.is_loopback
        self.trusted = any(parsed in network for network in trusted)
        self._cache: tuple[bytes, bytes] = (b"\0", b"")

    def headers(self, request: Request) -> bytes:
        """X-Forwarded-* and Forwarded (RFC 7239) for a request of this client."""
        if self.trusted:
            return self._relayed(request)
        host, lines = self._cache
        if host != request.host:
            lines = _forwarded(self.address, request.host.decode("latin-1"))
            self._cache = (request.host, lines)
        return lines

    def _relayed(self, request: Request) -> bytes:
        """What a proxy in front said, and itself added."""

        def said(name: bytes) -> str:
            return request.field(name).decode("latin-1")

        return _forwarded(
            self.address,
            said(b"x-forwarded-host") or request.host.decode("latin-1"),
            proto="https" if said(b"x-forwarded-proto").lower() == "https" else "http",
            before=said(b"x-forwarded-for"),
            port=said(b"x-forwarded-port"),
        )


def _forwarded(address: str, host: str, *, proto: str = "http", before: str = "", port: str = "") -> bytes:
    node = f'"[{address}]"' if ":" in address else address
    lines = (
        f"X-Forwarded-For: {before}, {address}" if before else f"X-Forwarded-For: {address}",
        f"X-Forwarded-Proto: {proto}",
        f"X-Forwarded-Host: {host}",
        f"X-Forwarded-Port: {port or split_port(host)[1] or ('443' if proto == 'https' else '80')}",
        f'Forwarded: for={node};host="{host}";proto={proto}',
    )
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


class RequestIds:
    """Ids that say which worker gave them, and no more. A client's own is kept where it looks like one."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex().encode()
        self._counter = itertools.count(1)

    def of(self, request: Request) -> bytes:
        for name, value, _ in request.fields:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return value
        return b"%b%08x" % (self._prefix, next(self._counter))


def forward_head(request: Request, client: Client, request_id: bytes) -> bytes:
    """The request's header as an instance gets it, to its empty line."""
    parts = [b"%b %b HTTP/1.1\r\nHost: %b" % (request.method, request.target, request.host)]
    parts += [line for name, _, line in request.fields if name not in _DROPPED and b"_" not in name]
    if not _KEPT_OPTIONS.issuperset(request.connection_options):
        named = set(request.connection_options) - _KEPT_OPTIONS
        parts = [parts[0], *(line for line in parts[1:] if line.partition(b":")[0].lower() not in named)]
    if request.sized:
        parts.append(b"Content-Length: %d" % request.body_size)
    if request.upgrade:
        parts.append(b"Connection: Upgrade\r\nUpgrade: " + request.upgrade)
    return b"%b\r\n%bX-Request-Id: %b\r\n\r\n" % (b"\r\n".join(parts), client.headers(request), request_id)
