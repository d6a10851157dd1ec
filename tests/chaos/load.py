"""A steady load from vegeta, a load generator in a process of its own, which counts what failed."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST = "900s"
"""No attack lasts longer, whatever happens to the test."""


@dataclass
class Load:
    """What the generator saw. `requests` by stream; `failures` are requests without the app's own 200."""

    requests: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    latencies: dict[str, dict[str, float]] = field(default_factory=dict)
    lost: list[tuple[float, float, str]] = field(default_factory=list)
    """Of each failed request: when it began and ended, in seconds since the epoch, and why it failed."""

    @property
    def total(self) -> int:
        return sum(self.requests.values())

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def lost_outside(self, moments: Sequence[float]) -> list[tuple[float, float, str]]:
        """The failed requests that were under way at none of these moments."""
        return [item for item in self.lost if not any(item[0] <= moment <= item[1] for moment in moments)]

    def summary(self) -> str:
        rows = [
            f"{name}: {self.requests[name]} requests, {self.failures[name]} failed, "
            f"p50 {self.latencies[name]['50th'] / 1e6:.1f} ms, p99 {self.latencies[name]['99th'] / 1e6:.1f} ms"
            for name in self.requests
        ]
        return "; ".join(rows + self.errors[:5])


@contextmanager
def steady_load(folder: Path, port: int, host: str, *, rate: int = 200, slow_path: str = "") -> Iterator[Load]:
    """Half of `rate` requests/s over kept connections, half on a new one each; with slow_path two a second of those
    too. The figures are complete once the block has ended."""
    streams = {"kept": (rate // 2, "/", ["-keepalive=true"]), "fresh": (rate // 2, "/", ["-keepalive=false"])}
    if slow_path:
        streams["slow"] = (2, slow_path, ["-keepalive=true"])
    load, running = Load(), {}
    for name, (per_second, path, flags) in streams.items():
        running[name] = _start(folder / f"{name}.bin", f"http://127.0.0.1:{port}{path}", host, per_second, flags)
    try:
        yield load
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for name, process in running.items():
            process.wait(90)
            _count(load, name, _report(folder / f"{name}.bin"))
            load.lost += _lost(folder / f"{name}.bin")


def _start(output: Path, url: str, host: str, rate: int, flags: list[str]) -> subprocess.Popen[bytes]:
    command = ["vegeta", "attack", f"-rate={rate}", f"-duration={LONGEST}", "-timeout=60s", f"-output={output}", *flags]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin
    process.stdin.write(f"GET {url}\nHost: {host}\n".encode())
    process.stdin.close()
    return process


def _report(output: Path) -> Any:
    done = subprocess.run(["vegeta", "report", "-type=json", str(output)], capture_output=True, check=True)
    return json.loads(done.stdout)


def _lost(output: Path) -> list[tuple[float, float, str]]:
    done = subprocess.run(["vegeta", "encode", "-to=csv", str(output)], capture_output=True, check=True, text=True)
    rows = [row for row in csv.reader(done.stdout.splitlines()) if row[1] != "200"]
    return [(int(row[0]) / 1e9, (int(row[0]) + int(row[2])) / 1e9, f"{row[1]} {row[5]}") for row in rows]


def _count(load: Load, name: str, report: Any) -> None:
    good = report["status_codes"].get("200", 0)
    load.requests[name] = report["requests"]
    load.failures[name] = report["requests"] - good
    load.latencies[name] = report["latencies"]
    load.errors += report["errors"] or []
    load.errors += [f"{count} × {code}" for code, count in report["status_codes"].items() if code != "200"]
