"""Stored lines outlive instances, stay bounded, are followed without polling, and reach sinks that may be slow."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mini_core import api
from mini_core.errors import UsageError
from mini_core.logs import AppLog, Filter, LogBook
from mini_core.redact import Redactor
from mini_core.sinks import Sink
from mini_core.testing import until
from mini_core.types import LogLine, Secret, decode
from tests.engine.conftest import Lab


def line(text: str, at: float = 1.0, process: str = "web.1") -> LogLine:
    return LogLine(at=at, app="blog", source="app", text=text, process=process, instance="i")


def texts(lines: Sequence[LogLine]) -> list[str]:
    return [item.text for item in lines]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AppLog]:
    log = AppLog(tmp_path / "blog", 64 * 1024)
    yield log
    log.close()


def test_the_tail_is_filtered_by_process_time_and_pattern(log: AppLog):
    log.append([line("one", 1.0), line("two", 2.0, "worker.1"), line("three", 3.0, "web.2"), line("four", 4.0)])
    assert texts(log.tail(2, Filter().compiled())) == ["three", "four"]
    assert texts(log.tail(9, Filter(process="web").compiled())) == ["one", "three", "four"]
    assert texts(log.tail(9, Filter(process="web.2").compiled())) == ["three"]
    assert texts(log.tail(9, Filter(since=2.5).compiled())) == ["three", "four"]
    assert texts(log.tail(9, Filter(pattern="^t").compiled())) == ["two", "three"]
    with pytest.raises(UsageError, match="--grep"):
        Filter(pattern="(").compiled()


def test_the_log_is_bounded_and_keeps_the_newest(log: AppLog, tmp_path: Path):
    for number in range(3000):
        log.append([line(f"line {number}")])
    assert sum(path.stat().st_size for path in (tmp_path / "blog").iterdir()) <= 64 * 1024
    kept = texts(log.tail(10_000, Filter().compiled()))
    assert kept[-1] == "line 2999"
    assert kept == [f"line {number}" for number in range(3000 - len(kept), 3000)]


def test_half_a_line_left_by_a_crash_costs_that_line_only(log: AppLog, tmp_path: Path):
    log.append([line("whole")])
    log.close()
    with (tmp_path / "blog" / "000001.jsonl").open("ab") as file:
        file.write(b'{"at": 1.0, "te')
    again = AppLog(tmp_path / "blog", 1 << 20)
    again.append([line("after")])
    assert texts(again.tail(9, Filter().compiled())) == ["whole", "after"]
    again.close()


def test_following_gives_each_line_once_across_segments_and_ends_with_the_log(log: AppLog, tmp_path: Path):
    log.append([line("before 1"), line("before 2")])
    seen: list[str] = []
    follower = threading.Thread(
        target=lambda: seen.extend(texts(list(log.follow(1, Filter().compiled(), lambda: False))))
    )
    follower.start()
    until(lambda: follower.is_alive() and log._added._waiters, what="the follower to wait")  # type: ignore[attr-defined]
    for number in range(400):
        log.append([line(f"line {number}")])
        if number % 50 == 0:
            time.sleep(0.01)
    until(lambda: not log.append([]) and len(list((tmp_path / "blog").iterdir())) > 1, what="a second segment")
    time.sleep(0.1)
    log.close()
    follower.join(10)
    assert seen == ["before 2", *(f"line {number}" for number in range(400))]


class SlowSink:
    name = "slow"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lines: list[str] = []

    def write(self, lines: Sequence[LogLine]) -> None:
        self.go.wait(10)
        self.lines += texts(lines)

    def close(self) -> None:
        return


def test_a_slow_sink_loses_lines_which_are_counted_and_nobody_waits(tmp_path: Path):
    slow = SlowSink()
    book = LogBook(tmp_path, 1 << 20)
    book.sinks = (Sink(slow, size=100),)
    began = time.monotonic()
    book.append("blog", [line(str(number)) for number in range(1000)])
    assert time.monotonic() - began < 2
    assert book.sinks[0].dropped > 300
    slow.go.set()
    book.close()
    gaps = [text for text in slow.lines if " dropped: the sink" in text]
    assert gaps == [f"{book.sinks[0].dropped} lines dropped: the sink slow was away, or too slow"]
    assert len(slow.lines) - 1 + book.sinks[0].dropped == 1000


def test_an_app_that_floods_a_sink_loses_its_own_lines_and_no_other_apps(tmp_path: Path):
    slow = SlowSink()
    book = LogBook(tmp_path, 1 << 20)
    book.sinks = (Sink(slow, size=100),)
    book.append("blog", [line("taken")])
    until(lambda: not book.sinks[0]._waiting, what="the sink to be busy")
    book.append("blog", [line(f"flood {number}") for number in range(1000)])
    book.append("blog", [line("x" * 16_000) for _ in range(100)])
    quiet = [LogLine(at=1.0, app="shop", source="app", text=f"quiet {number}") for number in range(40)]
    book.append("shop", quiet)
    assert book.sinks[0].problem == f"was away, or too slow: {book.sinks[0].dropped:,} lines dropped"
    slow.go.set()
    book.close()
    assert [text for text in slow.lines if text.startswith("quiet")] == texts(quiet)
    flood = [text for text in slow.lines if text.startswith("flood")]
    assert flood == [f"flood {number}" for number in range(60)]
    assert slow.lines[slow.lines.index("flood 59") + 1].startswith("1040 lines dropped: ")


def test_a_sink_that_was_away_gets_what_the_queue_kept_and_loses_only_what_it_refuses_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Sink, "FIRST_PAUSE", 0.02)

    class Broken(SlowSink):
        def write(self, lines: Sequence[LogLine]) -> None:
            if not self.go.is_set():
                raise OSError("no route to host")
            self.lines += texts(lines)

    broken = Broken()
    book = LogBook(tmp_path, 1 << 20)
    book.sinks = (Sink(broken),)
    book.append("blog", [line("kept")])
    until(lambda: book.sinks[0].problem == "no route to host", what="the report")
    broken.go.set()
    until(lambda: broken.lines == ["kept"], what="the line")
    assert (book.sinks[0].problem, book.sinks[0].dropped) == ("", 0)
    broken.go.clear()
    monkeypatch.setattr(Sink, "PATIENCE", 0.05)
    book.append("blog", [line("refused")])
    until(lambda: book.sinks[0].dropped == 1, what="the end of patience")
    broken.go.set()
    book.append("blog", [line("next")])
    until(lambda: broken.lines[-1] == "next", what="the next line")
    assert broken.lines[1:] == [f"1 line dropped: the sink {broken.name} was away, or too slow", "next"]
    book.close()


def test_lines_that_a_full_disk_costs_are_said_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    book = LogBook(tmp_path, 1 << 16)
    with monkeypatch.context() as patched:
        patched.setattr(AppLog, "append", full)
        for _ in range(5):
            book.append("blog", [line("gone"), line("gone")])
    book.append("blog", [line("kept")])
    book.append("blog", [line("kept, too")])
    assert [record.getMessage() for record in caplog.records] == [
        "log lines of blog are lost: [Errno 28] No space left on device",
        "log lines of blog are stored again; 10 were lost",
    ]
    book.close()


def test_a_very_long_line_is_cut(tmp_path: Path):
    book = LogBook(tmp_path, 1 << 20)
    book.append("blog", [line("x" * 1_000_000)])
    assert len(book.of("blog").tail(1, Filter().compiled())[0].text) < 20_000
    book.close()


def test_where_an_instances_log_goes_on_is_found_without_reading_everybody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def line(at: float, instance: str, text: str) -> LogLine:
        return LogLine(at=at, app="blog", source="app", text=text, instance=instance)

    book, decoded = LogBook(tmp_path, 1 << 16), []
    book.append("blog", [line(time.time(), "old", f"line {number} of the old one") for number in range(2_000)])
    monkeypatch.setattr("mini_core.logs.decode", lambda kind, raw: decoded.append(raw) or decode(kind, raw))
    made = time.time()
    assert book.last_of("blog", "new", made) == [] and decoded == []
    book.append("blog", [line(made, "new", "a"), line(made + 1, "new", "b"), line(made + 1, "new", "c")])
    assert [item.text for item in book.last_of("blog", "new", made)] == ["b", "c"]
    assert len(decoded) == 3
    later = time.time() + 3600  # by a clock that was set back since
    assert [item.text for item in book.last_of("blog", "new", later)] == ["b", "c"]
    book.close()


def test_lines_survive_deploys_and_a_controllers_restart_once_each(lab: Lab):
    lab.deploy(web=["greet", "COLOUR"])
    (first,) = lab.world.of("blog")
    first.write("before the restart")
    until(lambda: "before the restart" in texts(list(lab.controller.logs("blog"))), what="the line")
    lab.controller.close()
    first.write("while nobody looked")
    lab.open()
    until(lambda: "while nobody looked" in texts(list(lab.controller.logs("blog"))), what="the line")
    first.write("afterwards")
    lab.deploy(web=["serve", "other"])
    lab.at_rest()
    stored = texts(list(lab.controller.logs("blog", source="app")))
    assert stored == ["COLOUR=nothing", "before the restart", "while nobody looked", "afterwards"]


def test_the_routers_lines_are_part_of_the_apps_log(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    path = lab.paths.run / "router" / "router.log"
    with path.open("a") as file:
        file.write(json.dumps({"at": time.time(), "app": "blog", "text": "GET / 502", "cause": "refused"}) + "\n")
        file.write(json.dumps({"at": time.time(), "app": "nobody", "text": "GET / 404"}) + "\n")
    until(lambda: texts(list(lab.controller.logs("blog", source="router"))) == ["GET / 502 (refused)"], what="the line")
    path.rename(path.with_name("router.log.1"))
    path.write_text(json.dumps({"at": time.time(), "app": "blog", "text": "GET /next 200"}) + "\n")
    until(lambda: "GET /next 200" in texts(list(lab.controller.logs("blog", source="router"))), what="the next file")


def test_events_reach_plugins_at_least_once_and_in_order(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    until(lambda: "deploy.done" in [event.kind for event in lab.world.events], what="the event")
    lab.controller.close()
    lab.open()
    lab.controller.create_app(api.NewApp(name="shop"), "me", "")
    until(lambda: lab.world.events[-1].app == "shop", what="the next event")
    ids = [event.id for event in lab.world.events]
    assert ids == sorted(set(ids))


def test_masking_takes_exact_values_of_six_characters_or_more_line_by_line():
    redact = Redactor(
        [Secret("short"), Secret("longer-secret"), Secret("longer-secret-2"), Secret("first\nsecond line")]
    )
    assert redact("short longer-secret-2, longer-secret.") == "short [REDACTED], [REDACTED]."
    assert redact("xsecond linex") == "x[REDACTED]x"
    assert redact.data({"a": ["longer-secret", 3], "b": None}) == {"a": ["[REDACTED]", 3], "b": None}


def test_mini_s_own_sentences_keep_their_words_and_quote_no_secret():
    redact = Redactor([Secret("loopback"), Secret("Process"), Secret("s3cret-token")])
    assert redact.own("web.1 listens on its own loopback only: s3cret-token") == (
        "web.1 listens on its own loopback only: [REDACTED]"
    )
    assert redact("mode=loopback Process s3cret-token") == "mode=[REDACTED] [REDACTED] [REDACTED]"


def test_a_secret_in_a_requests_path_is_masked_in_the_routers_line(lab: Lab):
    lab.deploy()
    lab.set_env(HOOK="open-sesame")
    state = Path(lab.controller._parts.router_settings.state)
    state.mkdir(parents=True, exist_ok=True)
    with (state / "router.log").open("a") as file:
        file.write('{"at": 1.0, "app": "blog", "text": "GET /hooks/open-sesame 200 1ms 5B"}\n')
    until(lambda: texts(list(lab.controller.logs("blog", source="router"))), what="the line")
    assert texts(list(lab.controller.logs("blog", source="router"))) == ["GET /hooks/[REDACTED] 200 1ms 5B"]
