"""Where a server is: `local`, `http://HOST`, `https://HOST`, `ssh://USER@HOST`."""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from mini_core.errors import UsageError
from mini_core.types import Value

ADMIN_SOCKET = "/run/mini/admin.sock"
"""Where `mini server install` puts the socket that ssh:// connects to."""


class Address(Value):
    """text: its one spelling, under which keys and links are kept. socket: on the server, for ssh."""

    kind: Literal["local", "http", "ssh"]
    text: str
    host: str = "localhost"
    port: int | None = None
    tls: bool = False
    user: str = ""
    socket: str = ""

    @property
    def is_local(self) -> bool:
        return self.kind == "local"

    @property
    def exposed(self) -> bool:
        """Whether others on the way can read what is sent."""
        return self.kind == "http" and not self.tls and not _is_near(self.host)


def parse_address(text: str) -> Address:
    """Raises UsageError for anything else."""
    text = text.strip()
    if text == "local":
        return Address(kind="local", text="local")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise _wrong(text) from None
    if not host or parts.query or parts.fragment or parts.password is not None:
        raise _wrong(text)
    shown = f"[{host}]" if ":" in host else host
    if parts.scheme == "ssh":
        user = parts.username or ""
        where = f"ssh://{user + '@' if user else ''}{shown}{f':{port}' if port else ''}"
        socket = parts.path.rstrip("/")
        return Address(kind="ssh", text=where + socket, host=host, port=port, user=user, socket=socket or ADMIN_SOCKET)
    if parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.username:
        raise _wrong(text)
    tls = parts.scheme == "https"
    port = None if port == (443 if tls else 80) else port
    return Address(
        kind="http", text=f"{parts.scheme}://{shown}{f':{port}' if port else ''}", host=host, port=port, tls=tls
    )


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"Not the address of a server: {text}", hint="Write https://HOST, http://HOST, ssh://USER@HOST, or local."
    )


def _is_near(host: str) -> bool:
    """This machine, or a network that is not public."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
