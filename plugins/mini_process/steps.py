"""Running one step of a plan: a clean environment, output line by line, an end within 5 s of being cancelled."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mini_core.errors import BuildError
from mini_core.interfaces import Job
from mini_core.types import Step
from mini_process.hints import explain
from mini_process.proc import environment
from mini_process.shim import numbers_in_proc

TAIL, SEARCHED = 30, 200  # lines kept for the error, and those searched for its cause
LONGEST_LINE = 8192
GRACE = 2.0  # seconds from SIGTERM to SIGKILL when cancelled
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

NETWORK = (
    *(name for word in ("http_proxy", "https_proxy", "no_proxy", "all_proxy") for name in (word, word.upper())),
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_DEFAULT_TIMEOUT",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GOPRIVATE",
    "SOURCE_DATE_EPOCH",
)
"""Variables of this process that steps see: how this machine reaches the package registries, and nothing else."""


class Masked:
    """Replaces secret values of at least 6 characters in text."""

    def __init__(self, secrets: Sequence[str]) -> None:
        known = sorted({text for text in secrets if len(text) >= 6}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("[REDACTED]", text) if self._pattern else text


def run_step(step: Step, cwd: Path, env: Mapping[str, str], mask: Masked, job: Job) -> None:
    """Runs it to its end. Raises BuildError with its last lines, or Cancelled."""
    said: deque[str] = deque(maxlen=SEARCHED)
    with _start(step, cwd, env) as process:
        try:
            for line in _lines(process, job):
                said.append(mask(line))
                job.emit(said[-1])
            code = process.wait()
        except BaseException:
            _end(process, env)
            raise
        finally:
            _kill_group(process.pid, signal.SIGKILL)
    if code:
        raise _failure(step, code, tuple(said))


def _start(step: Step, cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            step.argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        reason = "command not found" if isinstance(error, FileNotFoundError) else error.strerror
        raise BuildError(
            f"{step.name}: {step.argv[0]}: {reason}",
            hint="It has to come with the app's dependencies, its toolchain, or this machine.",
            code="command-not-found",
            step=step.name,
        ) from None


def _lines(process: subprocess.Popen[bytes], job: Job) -> Iterator[str]:
    """Output lines as they come, until the command has ended. A line that a tool redraws counts as its last state."""
    assert process.stdout
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            job.check()
            ended = process.poll() is not None
            data = _read(descriptor) if selector.select(0 if ended else 0.1) else None
            if data == b"" or (ended and data is None):  # what it left in the background may hold the pipe open
                break
            *lines, rest = (rest + (data or b"")).split(b"\n")
            yield from map(_clean, lines)
            if len(rest) > LONGEST_LINE:
                yield _clean(rest)
                rest = b""
    if rest:
        yield _clean(rest)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


def _clean(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    return _ESCAPES.sub("", text.rsplit("\r", 1)[-1]).rstrip()


def _end(process: subprocess.Popen[bytes], env: Mapping[str, str]) -> None:
    """SIGTERM to the group, SIGKILL to it and to whatever left it."""
    _kill_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    _kill_group(process.pid, signal.SIGKILL)
    end_builds(env["MINI_BUILD"])


def end_builds(build: str, *, but: str = "\0") -> None:
    """Kills what runs for builds whose MINI_BUILD begins so, but not with that. Linux only."""
    for pid in numbers_in_proc():
        own = environment(pid).get("MINI_BUILD", "")
        if own.startswith(build) and not own.startswith(but):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _failure(step: Step, code: int, tail: tuple[str, ...]) -> BuildError:
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    tail = tuple(line for line in tail if not line.startswith("npm notice"))  # of newer npms: never the cause
    cause = explain(step.argv, code, tail)
    return BuildError(
        f"{step.name} failed ({how})" + (f": {cause.reason}" if cause.reason else ""),
        hint=cause.hint,
        code=cause.code,
        step=step.name,
        tail=tail[-TAIL:],
    )
