"""Requests that no instance answers now: they wait, or are told why not."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from mini_core.types import Route, Target


def asking(shared: Any, count: int = 1, **fields: Any) -> tuple[list[threading.Thread], list[Any]]:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(shared.ask(**fields))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def waiting(shared: Any) -> int:
    return sum(item["waiting"] for item in shared.router.status()["workers"])


def test_requests_wait_while_an_app_is_held(shared: Any, app: Any, until: Any) -> None:
    one, other = app("one"), app("other")
    held = Route(host="app.localhost", app="app", targets=(one.target,), state="hold")
    beside = Route(host="other.localhost", app="other", targets=(other.target,))
    shared.apply(held, beside)
    threads, answers = asking(shared, 30)
    until(lambda: waiting(shared) == 30)
    assert not one.requests and shared.ask(host="other.localhost").body == b"other"
    shared.apply(held, beside)  # a table that changes nothing for them
    assert waiting(shared) == 30
    shared.serve(one)
    for thread in threads:
        thread.join()
    assert [answer.body for answer in answers] == [b"one"] * 30


def test_a_connection_that_got_a_page_can_wait_afterwards(shared: Any, app: Any, until: Any) -> None:
    one = app("one")
    held = Route(host="app.localhost", app="app", targets=(one.target,), state="hold")
    shared.apply(held)
    with shared.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: no.localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 404")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
        until(lambda: waiting(shared) == 1)
        shared.apply(held)
        shared.serve(one)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.endswith(b"one")


def test_no_more_requests_wait_than_may(fresh: Any, app: Any, until: Any) -> None:
    running, one = fresh(workers=1, max_waiting=3), app("one")
    running.serve(one, state="hold")
    threads, answers = asking(running, 3)
    until(lambda: waiting(running) == 3)
    assert running.ask().status == 503
    running.serve(one)
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 3


def test_waiting_ends_with_503(shared: Any, app: Any) -> None:
    shared.serve(app(), state="hold")
    start = time.monotonic()
    answer = shared.ask()
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert 2.5 < time.monotonic() - start < 5  # hold_timeout is 3


def test_a_client_that_stops_waiting_is_forgotten(shared: Any, app: Any, until: Any) -> None:
    one = app()
    shared.serve(one, state="hold")
    sock = shared.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
    until(lambda: waiting(shared) == 1)
    sock.close()
    until(lambda: waiting(shared) == 0)
    shared.serve(one)
    assert shared.ask().status == 200
    assert len(one.requests) == 1


def test_a_sleeping_app_is_woken_once_and_all_who_wait_are_served(shared: Any, app: Any, respond: Any) -> None:
    one = app("awake")

    def wake(request: Any) -> bytes:
        assert (request.method, request.target) == ("POST", "/v1/internal/wake")
        assert request.header("x-forwarded-for") is None and json.loads(request.body) == {"app": "app"}
        time.sleep(0.3)
        shared.serve(one)
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    from pathlib import Path

    controller = app("controller", wake, unix=Path(shared.settings.controller))
    try:
        shared.serve(one, state="asleep")
        threads, answers = asking(shared, 20)
        for thread in threads:
            thread.join()
        assert [answer.body for answer in answers] == [b"awake"] * 20
        assert 1 <= len(controller.requests) <= 2, "once for each worker at most"
    finally:
        Path(shared.settings.controller).unlink()


def test_an_app_that_cannot_be_woken_says_so_at_once(shared: Any, app: Any, respond: Any) -> None:
    from pathlib import Path

    problem = respond(json.dumps({"title": "It exits with status 1."}), status="422 Unprocessable")
    app("controller", lambda request: problem, unix=Path(shared.settings.controller))
    try:
        shared.serve(app(), state="asleep")
        answer = shared.ask()
        assert answer.status == 503 and b"It exits with status 1." in answer.body
    finally:
        Path(shared.settings.controller).unlink()


def test_an_app_under_maintenance_says_when_to_come_back(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one, state="maintenance")
    answer = shared.ask()
    assert (answer.status, answer.header("Retry-After")) == (503, "60") and b"maintenance" in answer.body
    assert not one.requests


def test_no_more_requests_are_in_flight_than_a_route_allows(shared: Any, app: Any, respond: Any, until: Any) -> None:
    release = threading.Event()

    def slow(request: Any) -> Any:
        release.wait(1.2)
        return respond("slow")

    one, other = app("one", slow), app("other")
    shared.apply(
        Route(host="app.localhost", app="app", targets=(one.target,), max_requests=5),
        Route(host="other.localhost", app="other", targets=(other.target,)),
    )
    threads, answers = asking(shared, 5)
    until(lambda: len(one.requests) == 5)
    refused = [shared.ask() for _ in range(6)]
    assert {(answer.status, answer.header("Retry-After")) for answer in refused} == {(503, "1")}
    assert shared.ask(host="other.localhost").status == 200
    release.set()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 5
    assert shared.ask().status == 200
    assert len(one.requests) == 6


def test_an_app_that_does_not_answer_in_time_is_given_up(shared: Any, app: Any) -> None:
    one = app(handler=lambda request: request.sock.recv(10) and None)
    shared.serve(one)
    start = time.monotonic()
    answer = shared.ask()
    assert answer.status == 504 and b"timeout" in answer.body
    assert 1.2 < time.monotonic() - start < 3


def test_an_address_that_answers_nothing_is_left_after_the_connect_timeout(shared: Any, app: Any) -> None:
    import socket

    alive = app("alive")
    with socket.socket() as silent:  # its queue is full: further connections get no answer
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
            fillers.append(filler)
        void = Target(instance="void", host="127.0.0.1", port=silent.getsockname()[1])
        shared.apply(Route(host="app.localhost", app="app", targets=(void, alive.target)))
        start = time.monotonic()
        answers = [shared.ask().body for _ in range(4)]
        assert answers == [b"alive"] * 4 and time.monotonic() - start < 2.5
        for filler in fillers:
            filler.close()


def test_before_the_first_table_the_router_says_that_it_starts(fresh: Any) -> None:
    answer = fresh(workers=1).ask()
    assert (answer.status, answer.header("Retry-After")) == (503, "1") and b"router-starting" in answer.body


def test_while_the_controller_is_away_its_hosts_say_so_to_programs(shared: Any) -> None:
    shared.apply()
    answer = shared.ask("/v1/apps", host="localhost", Accept="text/html")
    assert (answer.status, answer.header("Content-Type")) == (503, "application/problem+json")
    assert answer.header("Retry-After") == "1"
    assert json.loads(answer.body)["code"] == "controller-away"


def test_a_page_is_html_for_people_and_json_for_programs(shared: Any) -> None:
    shared.apply()
    page = shared.ask(host="nobody.localhost", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.status == 404 and page.header("Content-Type") == "text/html; charset=utf-8"
    assert page.header("X-Request-Id").encode() in page.body
    assert shared.ask(host="nobody.localhost").header("Content-Type").startswith("text/html")
    data = shared.ask(host="nobody.localhost", Accept="application/json")
    assert data.header("Content-Type") == "application/problem+json"
    document = json.loads(data.body)
    assert (document["status"], document["code"]) == (404, "unknown-host")
    assert document["request_id"] == data.header("X-Request-Id")
    head = shared.ask(host="nobody.localhost", method="HEAD")
    assert head.status == 404 and head.body == b"" and int(head.header("Content-Length")) > 100


def test_the_cause_is_for_this_machine_alone(shared: Any) -> None:
    dead = Target(instance="blog.web.1", host="127.0.0.1", port=1)
    shared.apply(Route(host="app.localhost", app="app", targets=(dead,)))
    assert b"blog.web.1 (127.0.0.1:1): Connection refused" in shared.ask().body
    relayed = shared.ask(X_Forwarded_For="1.2.3.4")
    assert relayed.status == 502 and b"blog.web.1" not in relayed.body and b"127.0.0.1" not in relayed.body


@pytest.mark.parametrize("host", ["<script>alert(1)</script>", '"><img>'])
def test_nothing_that_a_client_sends_becomes_markup(shared: Any, host: str) -> None:
    answer = shared.raw(f"GET /<script> HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert b"<script>" not in answer and b"<img>" not in answer


def test_a_page_leaves_the_connection_usable(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    with shared.connect() as sock:
        for host, status in (("no.localhost", b"404"), ("app.localhost", b"200"), ("no.localhost", b"404")):
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = sock.recv(65536)
            assert head[9:12] == status
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = head.partition(b"\r\n\r\n")[2]
            while len(body) < length:
                body += sock.recv(65536)


def test_the_last_request_of_each_app_is_known(shared: Any, app: Any) -> None:
    shared.serve(app(), name="visited")
    began = time.monotonic()
    shared.ask()
    assert 0 <= shared.router.activity()["visited"] <= time.monotonic() - began
    assert "never" not in shared.router.activity()
