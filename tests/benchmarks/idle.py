"""What `mini up` costs while nobody asks for anything: memory and processor time of its processes.

    python tests/benchmarks/idle.py [SECONDS]

Measured for SECONDS (default 30) each: an empty platform, one with 100 apps in its store, and one of which 20 run
besides (static sites, on the process runtime). Memory is the proportional share (PSS of /proc/PID/smaps_rollup): so
what processes share is counted once; processor time is in percent of one core. Needs Linux.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from mini_core.paths import find_paths  # noqa: E402
from mini_core.server import adminclient  # noqa: E402
from tests.e2e.platform import MiniPlatform, processes_of  # noqa: E402

IN_STORE, RUNNING = 100, 20
SETTLE = 8.0
"""Seconds after the last change before measuring begins."""

ROLES = (
    ("controller", "mini_core.server"),
    ("router worker", "--worker"),
    ("router master", "mini_proxy"),
    ("shim", "shim.py"),
    ("app", ""),
)


def role(line: str) -> str:
    return next(name for name, mark in ROLES if mark in line)


def memory(pid: int) -> float:
    """Megabytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor_time(pid: int) -> float:
    """Seconds since it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(title: str, home: Path, seconds: float) -> None:
    time.sleep(SETTLE)
    processes = [(pid, role(line)) for pid, line in processes_of(home)]
    before = {pid: processor_time(pid) for pid, _ in processes}
    time.sleep(seconds)
    print(f"{title}:")
    for name, _ in ROLES:
        pids = [pid for pid, what in processes if what == name]
        if pids:
            used = sum(processor_time(pid) - before[pid] for pid in pids) / seconds * 100
            megabytes = sum(map(memory, pids))
            print(f"    {name:14} {len(pids):3} processes   {megabytes:6.1f} MB   {used:5.2f} % of a core", flush=True)


def create(home: Path, name: str) -> None:
    adminclient.call(find_paths(str(home)).admin_socket, "POST", "/v1/apps", {"name": name})


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        platform = MiniPlatform(Path(temporary) / "home", "process")
        site = Path(temporary) / "site"
        site.mkdir()
        (site / "index.html").write_text("<h1>Hello</h1>\n")
        began = time.perf_counter()
        platform.up()
        print(f"mini up: {time.perf_counter() - began:.2f} s")
        try:
            measure("empty", platform.home, seconds)
            for number in range(IN_STORE - RUNNING):
                create(platform.home, f"stored-{number}")
            names = [f"site-{number}" for number in range(RUNNING)]
            for name in names:
                create(platform.home, name)
            measure(f"{IN_STORE} apps in the store", platform.home, seconds)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda name: platform.mini("deploy", str(site), name), names))
            measure(f"{RUNNING} of them running", platform.home, seconds)
            began = time.perf_counter()
            platform.mini("apps", "destroy", names[0], "--yes")
            print(f"mini apps destroy: {time.perf_counter() - began:.2f} s")
            began = time.perf_counter()
            platform.mini("down")
            print(f"mini down with {RUNNING - 1} running: {time.perf_counter() - began:.2f} s")
        finally:
            platform.mini("down", "--purge", "--yes", check=False)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
