"""What an engine says while it builds, as lines for the user and the reason of a failure.

Two dialects: BuildKit's and the classic builder's. Both know which step of the plan an instruction carries out. They
take the engine's documents one by one; afterwards `image` is the image's id, or `failure()` says why not.
"""

from __future__ import annotations

import base64
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mini_core.errors import BuildError
from mini_core.interfaces import Job
from mini_docker import buildkit
from mini_docker.dockerfile import Rendered
from mini_docker.failures import exit_code, explain, shorten

TAIL = 40
"""Lines of a failed step that an error carries."""

KEPT = 500
"""Lines that are looked through for the cause."""

_METADATA = re.compile(r"^\[internal\] load metadata for (?:docker\.io/(?:library/)?)?")
_VERTEX = re.compile(r"\[\s*(?:(?P<stage>\S+)\s+)?(?P<index>\d+)/\d+\]\s+(?P<text>.*)", re.DOTALL)
_CLASSIC = re.compile(r"Step (?P<number>\d+)/\d+ : (?P<text>.*)", re.DOTALL)


class _Lines:
    """Puts lines together from any parts of them. A carriage return within a line starts it anew, as a terminal
    would show it."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit, self._part = emit, b""

    def take(self, data: bytes) -> None:
        *whole, self._part = (self._part + data).split(b"\n")
        for line in whole:
            self._say(line)

    def close(self) -> None:
        if self._part:
            self._say(self._part)
        self._part = b""

    def _say(self, line: bytes) -> None:
        self._emit(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))


class BuildkitNarrator:
    """note: is told of every step, as often as the engine says something of it."""

    def __init__(self, job: Job, rendered: Rendered | None, note: Callable[[buildkit.Vertex], None]) -> None:
        self.image = ""
        self._job, self._rendered, self._note = job, rendered, note
        self._error = ""
        self._failed: buildkit.Vertex | None = None
        self._said: set[tuple[str, bool]] = set()
        self._lines: dict[tuple[str, int], _Lines] = {}
        self._tails: dict[str, deque[str]] = {}
        self._last_progress = 0.0

    def take(self, item: Mapping[str, Any]) -> None:
        if item.get("id") == "moby.buildkit.trace":
            self._trace(buildkit.decode(base64.b64decode(item["aux"])))
        elif item.get("id") == "moby.image.id":
            self.image = str(item["aux"]["ID"])
        elif "error" in item:
            self._error = str((item.get("errorDetail") or {}).get("message") or item["error"])

    def failure(self) -> BuildError | None:
        if not self._error:
            return None
        vertex = self._failed
        step = self._title(vertex)[1] if vertex else "build"
        tail = [*self._tails.get(vertex.digest, ())] if vertex else []
        return _failure(step, self._error, tail)

    def _trace(self, status: buildkit.Status) -> None:
        for vertex in status.vertexes:
            self._vertex(vertex)
        for output in status.output:
            self._output(output)
        for progress in status.progress:
            self._progress(progress)

    def _vertex(self, vertex: buildkit.Vertex) -> None:
        self._note(vertex)
        shown, title = self._title(vertex)
        if vertex.completed:
            for (digest, _), lines in self._lines.items():
                if digest == vertex.digest:
                    lines.close()
        if vertex.error and "cancel" not in vertex.error.lower():
            self._failed = vertex
        if not shown or not (vertex.started or vertex.cached) or (vertex.digest, vertex.cached) in self._said:
            return
        if not vertex.cached or not vertex.error:
            self._said.add((vertex.digest, vertex.cached))
            self._job.emit(f"{title} (cached)" if vertex.cached else title, kind="info")

    def _title(self, vertex: buildkit.Vertex) -> tuple[bool, str]:
        """Whether a user wants to see it, and what it is called."""
        match = _VERTEX.match(vertex.name)
        if not match:
            return False, _METADATA.sub("FROM ", vertex.name)
        if self._rendered is None:
            return True, " ".join(match["text"].split())
        step = self._rendered.steps.get((match["stage"] or "", int(match["index"])))
        if step:
            return True, step
        text = " ".join(match["text"].split())
        return "apt-get install" in text, _packages(text)

    def _output(self, output: buildkit.Output) -> None:
        tail = self._tails.setdefault(output.vertex, deque(maxlen=KEPT))

        def emit(line: str) -> None:
            tail.append(line)
            self._job.emit(line)

        key = (output.vertex, output.stream)
        self._lines.setdefault(key, _Lines(emit)).take(output.data)

    def _progress(self, progress: buildkit.Progress) -> None:
        if progress.total and not progress.completed and time.monotonic() - self._last_progress > 0.2:
            self._last_progress = time.monotonic()
            done, total = progress.current / 1e6, progress.total / 1e6
            self._job.emit(f"{progress.id[:60]}: {done:.0f} of {total:.0f} MB", kind="progress")


class ClassicNarrator:
    def __init__(self, job: Job, rendered: Rendered | None) -> None:
        self.image = ""
        self._job, self._rendered = job, rendered
        self._error, self._step = "", "build"
        self._tail: deque[str] = deque(maxlen=KEPT)
        self._lines = _Lines(self._line)

    def take(self, item: Mapping[str, Any]) -> None:
        if "stream" in item:
            self._lines.take(str(item["stream"]).encode())
        elif "aux" in item and "ID" in item["aux"]:
            self.image = str(item["aux"]["ID"])
        elif "error" in item:
            self._lines.close()
            self._error = str((item.get("errorDetail") or {}).get("message") or item["error"])
        elif item.get("status"):
            text = " ".join(str(item[key]) for key in ("id", "status", "progress") if item.get(key))
            self._job.emit(text, kind="progress")

    def failure(self) -> BuildError | None:
        return _failure(self._step, self._error, [*self._tail]) if self._error else None

    def _line(self, line: str) -> None:
        match = _CLASSIC.match(line)
        if match:
            self._tail.clear()
            text = " ".join(match["text"].split())
            step = self._rendered.numbers.get(int(match["number"])) if self._rendered else text
            self._step = step or _packages(text)
            if step or "apt-get install" in text:
                self._job.emit(self._step, kind="info")
        elif line == " ---> Using cache":
            self._job.emit(f"{self._step} (cached)", kind="info")
        elif line.strip() and not re.match(
            r" ---> |Removing intermediate container |Successfully (built|tagged) ", line
        ):
            self._tail.append(line)
            self._job.emit(line)


_WRAPPING = re.compile(r"(?:failed to solve(?: with frontend [\w.]+)?: |failed to create LLB definition: )+")
"""What BuildKit puts in front of every error."""


def _packages(text: str) -> str:
    return "install system packages" if "apt-get install" in text else text


def _failure(step: str, error: str, tail: list[str]) -> BuildError:
    error = " ".join(error.split())
    status = exit_code(error)
    tail = [line for line in tail if not line.startswith("npm notice")]  # of newer npms: never the cause
    cause = explain([*tail, error])
    code, hint, tail = cause.code, cause.hint, shorten(tail, cause.line, TAIL)
    if status is None:
        return BuildError(_WRAPPING.sub("", error), step=step, tail=tail, code=code, hint=hint)
    return BuildError(f"{step} failed with exit code {status}", step=step, tail=tail, code=code, hint=hint)
