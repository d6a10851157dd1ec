"""Listening sockets: bound, handed over by systemd, or inherited; and who else holds an address."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from mini_core.errors import Unavailable
from mini_core.types import Endpoint

BACKLOG = 2048
_FIRST_FD = 3
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind_all(binds: Iterable[Endpoint]) -> list[socket.socket]:
    """Raises Unavailable, naming the address and, where it can be seen, who holds it. IPv6 addresses are left out on
    a machine without IPv6."""
    made: list[socket.socket] = []
    try:
        for bind in binds:
            try:
                made.append(_bind(bind))
            except OSError as error:
                if ":" in bind.host and error.errno in _NO_IPV6:
                    continue
                raise _refusal(bind, error) from error
    except BaseException:
        for sock in made:
            sock.close()
        raise
    if not made:
        raise Unavailable("The router has no address to listen on.", code="no-address")
    return made


def _bind(bind: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((bind.host, bind.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _refusal(bind: Endpoint, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE:
        holder = who_listens(bind.port)
        return Unavailable(
            f"{bind} is in use" + (f" by {holder}" if holder else "") + ".",
            hint="Stop it, or choose another port: mini up --port N",
            code="port-in-use",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unavailable(
            f"{bind} cannot be used: ports below 1024 need privileges.",
            hint="Choose another port: mini up --port 8080",
            code="port-denied",
        )
    return Unavailable(f"{bind} cannot be used: {error.strerror}.", code="address-unusable")


def who_listens(port: int) -> str:
    """ "nginx (pid 812)" for the process that listens on the TCP port, "" where that cannot be seen (Linux)."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_link(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def handed_over(environ: Mapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd passes on (sd_listen_fds(3)); none where this process was not meant."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    return inherited(range(_FIRST_FD, _FIRST_FD + count))


def inherited(fds: Iterable[int]) -> list[socket.socket]:
    """Sockets from descriptors, which are not passed on to further processes unless asked."""
    sockets = []
    for fd in fds:
        os.set_inheritable(fd, False)
        sockets.append(socket.socket(fileno=fd))
    return sockets


def endpoint_of(sock: socket.socket) -> Endpoint:
    name = sock.getsockname()
    return Endpoint(host=name[0], port=name[1])
