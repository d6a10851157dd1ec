"""What this machine knows about a container's processes without asking the engine: open ports, memory, CPU.

From proc(5) and the control groups (versions 1 and 2), where the engine runs on this Linux machine and they may be
read; every function answers None where not.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from mini_core.types import Endpoint

_LISTEN = "0A"
_ENGINES_DNS = "127.0.0.11"
"""The engine's own resolver, which listens in every container on a network of one's own."""


def listening(pid: int) -> tuple[Endpoint, ...] | None:
    """Addresses that are listened on in the network namespace of a process."""
    if sys.platform != "linux" or not pid:
        return None
    try:
        tables = [Path(f"/proc/{pid}/net/{name}").read_text("ascii") for name in ("tcp", "tcp6")]
    except OSError:
        return None
    return parse(tables)


def parse(tables: Iterable[str]) -> tuple[Endpoint, ...]:
    """Listening sockets in the text of /proc/net/tcp and tcp6, by port."""
    found = set()
    for line in (line for table in tables for line in table.splitlines()):
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTEN or ":" not in fields[1]:
            continue
        address, _, port = fields[1].partition(":")
        host = _address(address)
        if host != _ENGINES_DNS:
            found.add((int(port, 16), host))
    return tuple(Endpoint(host=host, port=port) for port, host in sorted(found))


def _address(text: str) -> str:
    """Hexadecimal words of 32 bits in the machine's order, which is little-endian wherever Docker runs commonly."""
    words = [bytes.fromhex(text[index : index + 8])[::-1] for index in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


class Usage:
    """Memory (bytes) and CPU (cores, averaged over `WINDOW` seconds or more) of containers, by their init's id."""

    WINDOW = 0.5

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, float, float | None]] = {}

    def of(self, pid: int) -> tuple[int | None, float | None]:
        if sys.platform != "linux" or not pid:
            return None, None
        try:
            groups = _groups(Path(f"/proc/{pid}/cgroup").read_text("utf-8"))
        except OSError:
            return None, None
        return _memory(groups), self._cpu(pid, groups)

    def _cpu(self, pid: int, groups: dict[str, Path]) -> float | None:
        used, now = _cpu_seconds(groups), time.monotonic()
        if used is None:
            return None
        at, before, average = self._last.get(pid, (0.0, 0.0, None))
        if at and now - at < self.WINDOW:
            return average
        if len(self._last) > 10_000:
            self._last.clear()
        average = round((used - before) / (now - at), 4) if at and used >= before else None
        self._last[pid] = (now, used, average)
        return average


def _groups(text: str) -> dict[str, Path]:
    """Controller → its folder; "" is the unified hierarchy. Lines of /proc/PID/cgroup: ID:CONTROLLERS:PATH."""
    root, found = Path("/sys/fs/cgroup"), {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            found[name] = (root / name if name else root) / path.lstrip("/")
    return found


def _memory(groups: dict[str, Path]) -> int | None:
    """What the group holds, less the page cache that it can drop at once (as `docker stats` counts)."""
    old = groups.get("memory")
    usage, inactive = ("usage_in_bytes", "total_inactive_file") if old else ("current", "inactive_file")
    folder = old or groups.get("", Path("/nowhere"))
    try:
        total = int((folder / f"memory.{usage}").read_text("ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return None
    return max(total - int(stat.get(inactive, 0)), 0)


def _cpu_seconds(groups: dict[str, Path]) -> float | None:
    old = groups.get("cpuacct")
    try:
        if old:
            return int((old / "cpuacct.usage").read_text("ascii")) / 1e9
        lines = (groups[""] / "cpu.stat").read_text("ascii").splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
    except (OSError, ValueError, KeyError):
        return None
