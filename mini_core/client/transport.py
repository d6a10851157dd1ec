"""Connections to a server: TCP, TLS, the local admin socket, a remote one through ssh."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mini_core.client.address import Address
from mini_core.errors import Unavailable

CONNECT_TIMEOUT = 10.0
TUNNEL_TIMEOUT = 60.0
"""Seconds for ssh, which may ask for a password."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def connect_tcp(address: Address, timeout: float) -> http.client.HTTPConnection:
    """Raises OSError (ssl.SSLError among them)."""
    if address.tls:
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            address.host, address.port, timeout=CONNECT_TIMEOUT, context=context
        )
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_TIMEOUT)
    _connect(connection)
    connection.timeout = timeout
    connection.sock.settimeout(timeout)
    return connection


def connect_unix(path: Path, timeout: float) -> http.client.HTTPConnection:
    """Raises OSError."""
    connection = _UnixConnection(path, timeout)
    _connect(connection)
    return connection


def _connect(connection: http.client.HTTPConnection) -> None:
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise


class Tunnel:
    """`ssh`, forwarding a socket of ours to the server's admin socket for as long as the command runs."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._folder = tempfile.TemporaryDirectory(prefix="mini-ssh-")
        self._near = Path(self._folder.name) / "s"
        self._port = _free_port() if sys.platform == "win32" else 0  # Python has no unix sockets there
        self._errors = (Path(self._folder.name) / "stderr").open("w+b")
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Raises Unavailable with what ssh said."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        deadline = time.monotonic() + TUNNEL_TIMEOUT
        while True:
            try:
                if self._port:
                    return connect_tcp(Address(kind="http", text="", host="127.0.0.1", port=self._port), timeout)
                return connect_unix(self._near, timeout)
            except OSError:
                self._check(deadline)
            time.sleep(0.05)

    def last_words(self) -> str:
        """The last line that ssh wrote, such as why the far end refused the connection."""
        self._errors.flush()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._errors.close()
        self._folder.cleanup()

    def _start(self) -> None:
        near = f"127.0.0.1:{self._port}" if self._port else str(self._near)
        command = tunnel_command(self._address, near, ask=sys.stdin.isatty())
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors
            )
        except OSError:
            raise Unavailable("ssh is not installed", hint="Install an OpenSSH client, or use https://HOST.") from None

    def _check(self, deadline: float) -> None:
        ended = self._process is not None and self._process.poll() is not None
        if ended or time.monotonic() > deadline:
            why = self.last_words() or ("it ended" if ended else "it takes too long")
            raise Unavailable(
                f"No tunnel to {self._address.text}: {why}", hint=f"Try it by hand: {' '.join(_ssh(self._address))}"
            )


def _ssh(address: Address) -> list[str]:
    port = ["-p", str(address.port)] if address.port else []
    return ["ssh", *port, f"{address.user}@{address.host}" if address.user else address.host]


def tunnel_command(address: Address, near: str, *, ask: bool) -> list[str]:
    """ask: ssh may ask for a password or whether to trust the server."""
    program, *rest = _ssh(address)
    options = ["ExitOnForwardFailure=yes", "StreamLocalBindUnlink=yes", "StreamLocalBindMask=0177"]
    options += ["ServerAliveInterval=15", *([] if ask else ["BatchMode=yes"])]
    flags = [part for option in options for part in ("-o", option)]
    return [program, "-N", "-T", *flags, "-L", f"{near}:{address.socket}", *rest]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
