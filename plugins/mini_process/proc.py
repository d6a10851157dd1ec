"""What the system says about processes: their tree, memory, CPU time and listening sockets. Linux; elsewhere little."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

from mini_core.types import Endpoint, Value
from mini_process.shim import numbers_in_proc, pids_with_environment, resident

LINUX = sys.platform.startswith("linux")
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)


class Process(Value):
    """A line of /proc/PID/stat (proc(5)). ticks: of CPU time, user and system."""

    pid: int
    parent: int
    session: int
    zombie: bool
    ticks: int


class Snapshot:
    """All processes at one moment; what is asked of it afterwards costs little."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.processes = {item.pid: item for pid in numbers_in_proc() if (item := _read(pid))}
        self._below: dict[int, list[int]] = {}
        for item in self.processes.values():
            self._below.setdefault(item.parent, []).append(item.pid)
            self._below.setdefault(item.session, []).append(item.pid)

    def tree(self, root: int) -> tuple[Process, ...]:
        """The process, its descendants and everything in its session, without zombies."""
        found, waiting = set(), [root]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting.extend(self._below.get(pid, ()))
        there = (self.processes[pid] for pid in sorted(found) if pid in self.processes)
        return tuple(item for item in there if not item.zombie)


def memory(processes: Collection[Process]) -> int | None:
    """Resident memory in bytes; shared pages count once for each process."""
    return sum(resident(item.pid) for item in processes) if LINUX else None


def cpu_seconds(processes: Collection[Process]) -> float | None:
    return sum(item.ticks for item in processes) / os.sysconf("SC_CLK_TCK") if LINUX else None


def listening(processes: Collection[Process]) -> tuple[Endpoint, ...] | None:
    """Addresses that the processes listen on, by their sockets' inodes; None where that can't be told."""
    if not LINUX:
        return None
    inodes = {inode for item in processes for inode in _socket_inodes(item.pid)}
    found = (endpoint for inode, endpoint in _listeners() if inode in inodes)
    return tuple(sorted(set(found), key=lambda item: (item.port, item.host)))


def _listeners() -> list[tuple[str, Endpoint]]:
    """(socket inode, address) of everything that listens on TCP in this network namespace."""
    found = []
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text("ascii").splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN:
                    found.append((columns[9], _endpoint(columns[1])))
    return found


def kill_leftovers(instance: str, group: int | None) -> bool:
    """Ends what an instance whose shim is gone left behind: by process group, where it is still the instance's, and
    by MINI_INSTANCE in the environment. Returns whether there was anything."""
    entry = f"MINI_INSTANCE={instance}"
    pids = pids_with_environment(entry)
    found = bool(pids)
    if group in pids or (group and not LINUX):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
            found = True
    deadline = time.monotonic() + 2
    while pids and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        pids = pids_with_environment(entry)
    return found


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty where that can't be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    entries = (os.fsdecode(entry).partition("=") for entry in data.split(b"\0") if b"=" in entry)
    return {name: text for name, _, text in entries}


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    columns = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and parentheses
    return Process(
        pid=pid,
        parent=int(columns[1]),
        session=int(columns[3]),
        zombie=columns[0] in (b"Z", b"X"),
        ticks=int(columns[11]) + int(columns[12]),
    )


def _socket_inodes(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                target = str(Path(entry.path).readlink())
                if target.startswith("socket:["):
                    found.append(target[8:-1])
    return found


def _endpoint(column: str) -> Endpoint:
    """ "0100007F:1F90" → 127.0.0.1:8080: the address in hexadecimal, 32-bit words in the machine's byte order."""
    address, _, port = column.partition(":")
    words = [int(address[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(address), 8)]
    ip = ipaddress.ip_address(b"".join(words))
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return Endpoint(host=str(ip), port=int(port, 16))
