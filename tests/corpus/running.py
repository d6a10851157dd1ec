"""Run: does the app answer as expected, at whatever PORT it is given, and does it stop when asked to?"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence

import urllib3

from mini_core.types import Image, Plan, ProcessType
from tests.corpus.facts import Expectation
from tests.corpus.platform import Platform, address
from tests.corpus.verdicts import Verdict

START_SECONDS = 60.0
STOP_SECONDS = 10.0
_POLL = 0.2


def check(platform: Platform, app: str, image: Image, plan: Plan, group: Sequence[Expectation]) -> Verdict:
    """All expectations of one set-up; web apps twice, at two ports, and stopped by SIGTERM."""
    begun = time.monotonic()
    answers = [item for item in group if item.kind == "http"]
    for process in dict.fromkeys(item.text("process") for item in answers):
        wanted = [item for item in answers if item.text("process") == process]
        for _ in range(2):
            problem, log = _serves(platform, app, image, plan, process, wanted)
            if problem:
                return Verdict("fail", problem, tuple(log[-15:]), time.monotonic() - begun)
    for item in group:
        if item.kind in ("output", "process"):
            problem, log = _prints(platform, app, image, plan, item)
            if problem:
                return Verdict("fail", problem, tuple(log[-15:]), time.monotonic() - begun)
    return Verdict("pass", seconds=time.monotonic() - begun)


def comes_up(platform: Platform, app: str, image: Image, plan: Plan) -> str:
    """Why the app's first process does not come up, "" if it does."""
    process = _process(plan, "")
    with platform.started(app, image, plan, process, {}) as spec:
        deadline = time.monotonic() + 15.0
        while time.monotonic() < deadline:
            status = platform.runtime.status(spec.id)
            if status is None or status.state in ("exited", "gone"):
                return f"exited with {status.exit_code if status else 'nothing'}"
            if platform.runtime.listening(spec.id):
                return ""
            time.sleep(_POLL)
        return "does not listen"


def _serves(
    platform: Platform, app: str, image: Image, plan: Plan, process: str, wanted: Sequence[Expectation]
) -> tuple[str, list[str]]:
    """(what is wrong or "", the log)."""
    chosen = _process(plan, process)
    if chosen is None and not plan.static:
        return f"no {process or 'web'} process", []
    if chosen is not None and process and process != "web":
        chosen = ProcessType(name="web", command=chosen.command, source=chosen.source)
    with platform.started(app, image, plan, chosen, wanted[0].env) as spec:
        problem = ""
        deadline = time.monotonic() + START_SECONDS
        for item in wanted:
            problem = _until(lambda item=item: _answer(platform, spec, item), deadline)  # type: ignore[misc]
            if problem:
                break
        log = _log(platform, spec.id)
        return problem or _stops(platform, spec.id), log


def _answer(platform: Platform, spec: object, item: Expectation) -> str:
    endpoint = address(platform, spec)  # type: ignore[arg-type]
    if endpoint is None:
        status = platform.runtime.status(spec.id)  # type: ignore[attr-defined]
        return f"final: exited with {status.exit_code if status else 'nothing'} before it answered"
    headers = {"Host": item.text("host_header") or "localhost"}
    if item.data.get("auth"):
        headers["Authorization"] = "Basic " + base64.b64encode(item.text("auth").encode()).decode()
    try:
        answer = urllib3.request(
            "GET", f"http://{endpoint}{item.text('path') or '/'}", headers=headers, redirect=False, retries=False,
            timeout=10.0,
        )  # fmt: skip
    except urllib3.exceptions.HTTPError as error:
        return f"no answer at {endpoint.port}: {type(error).__name__}"
    return _compare(item, answer.status, answer.data.decode("utf-8", "replace"))


def _compare(item: Expectation, status: int, body: str) -> str:
    wanted = int(item.data.get("status") or 200)
    where = item.text("path") or "/"
    if status != wanted:
        return f"{where} answers {status}, expected {wanted}"
    exact = item.data.get("body_equals")
    if exact is not None and body.strip() != str(exact).strip():
        return f"{where} answers {body[:60]!r}, expected {str(exact)[:60]!r}"
    missing = _missing(item, "body_contains", body)
    return f"{where} lacks {missing!r}" if missing else ""


def _missing(item: Expectation, name: str, text: str) -> str:
    """The first text that is not there. What depends on the exact version may also be as the facts relax it."""
    missing = next((wanted for wanted in item.list(name) if wanted not in text), "")
    relaxed = item.list("relaxed_contains")
    if missing and relaxed:
        return next((wanted for wanted in relaxed if wanted not in text), "")
    return missing


def _prints(platform: Platform, app: str, image: Image, plan: Plan, item: Expectation) -> tuple[str, list[str]]:
    """A program that prints something, and a process that goes on running."""
    chosen = _process(plan, item.text("process"))
    if chosen is None and not plan.static:
        return f"no {item.text('process') or 'web'} process", []
    alive = float(item.data.get("alive_after_s") or 0)
    name = "output_contains" if item.kind == "process" else "contains"
    with platform.started(app, image, plan, chosen, item.env) as spec:
        begun = time.monotonic()

        def problem() -> str:
            text = "\n".join(_log(platform, spec.id))
            missing = _missing(item, name, text)
            status = platform.runtime.status(spec.id)
            ended = status is None or status.state in ("exited", "gone")
            if alive and ended:
                return f"final: exited with {status.exit_code if status else 'nothing'}, expected to go on"
            if missing and ended:
                missing = _missing(item, name, "\n".join(_log(platform, spec.id)))
                return f"final: exited without printing {missing!r}" if missing else ""
            if alive and time.monotonic() - begun < alive:
                return "not yet"
            return f"does not print {missing!r}" if missing else ""

        found = _until(problem, begun + START_SECONDS)
        return found, _log(platform, spec.id)


def _until(problem: Callable[[], str], deadline: float) -> str:
    """Asks until nothing is wrong, until it is final, or the time is up; the last answer."""
    while True:
        found = problem()
        if not found:
            return ""
        if found.startswith("final: ") or time.monotonic() > deadline:
            return found.removeprefix("final: ")
        time.sleep(_POLL)


def _stops(platform: Platform, instance: str) -> str:
    begun = time.monotonic()
    platform.runtime.stop(instance, grace=STOP_SECONDS)
    if time.monotonic() - begun > STOP_SECONDS - 0.5:
        return f"does not stop within {STOP_SECONDS:.0f} s of SIGTERM"
    return ""


def _process(plan: Plan, name: str) -> ProcessType | None:
    return plan.process(name or "web") or (None if name else next(iter(plan.processes), None))


def _log(platform: Platform, instance: str) -> list[str]:
    return [line.text for line in platform.runtime.logs(instance)]
