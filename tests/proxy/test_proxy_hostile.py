"""Requests that mean to be misread: none reaches an app that is not its host's, or the controller."""

from __future__ import annotations

from typing import Any

import pytest

from mini_core.types import Route

OK = b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n"

HOSTS = [
    "other.localhost",
    "app.localhost.evil.com",
    "evil-app.localhost",
    "app.localhost@victim.localhost",
    "app.localhost, victim.localhost",
    "app.localhost/victim.localhost",
    "app.localhost:80:80",
    "app.localhost:x",
    "app.localhost:999999",
    "app..localhost",
    ".app.localhost",
    "app.localhost..",
    "app%2elocalhost",
    "app\x00.localhost",
    "app.localhost\x0b",
    "app.localhost victim",
    "[::1",
    "[app.localhost]",
    "",
    ":80",
    "*",
    "http://app.localhost",
    "ａｐｐ.localhost",
]


@pytest.mark.parametrize("host", HOSTS, ids=range(len(HOSTS)))
def test_a_host_that_is_not_the_apps_finds_nothing(shared: Any, app: Any, host: str) -> None:
    one, victim = app("one"), app("victim")
    shared.apply(
        Route(host="app.localhost", app="one", targets=(one.target,)),
        Route(host="victim.localhost", app="victim", targets=(victim.target,)),
    )
    answer = shared.raw(b"GET / HTTP/1.1\r\nHost: " + host.encode("utf-8") + b"\r\nConnection: close\r\n\r\n")
    assert answer[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.0 400"), answer
    assert not one.requests and not victim.requests


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: app.localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "length and coding": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "two equal lengths": POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": POST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "signed length": POST + b"Content-Length: +4\r\n\r\nabcd",
    "negative length": POST + b"Content-Length: -4\r\n\r\n",
    "hexadecimal length": POST + b"Content-Length: 0x4\r\n\r\nabcd",
    "coding twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding with a tab": POST + b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded line": GET + b"X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n",
    "folded first line": b"GET / HTTP/1.1\r\n X-A: 1\r\nHost: app.localhost\r\n\r\n",
    "bare line feed": GET + b"X-A: 1\nX-B: 2\r\n\r\n",
    "bare carriage return": GET + b"X-A: 1\rX-B: 2\r\n\r\n",
    "null": GET + b"X-A: \x00\r\n\r\n",
    "two hosts": GET + b"Host: victim.localhost\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "target of another host": b"GET http://victim.localhost/ HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "target with a user": b"GET http://app.localhost@victim.localhost/ HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "target without a slash": b"GET victim HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "target with a fragment": b"GET /#/../x HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "star": b"GET * HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "connect": b"CONNECT victim.localhost:80 HTTP/1.1\r\nHost: victim.localhost:80\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "spaces": b"GET  / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "other expectation": GET + b"Expect: 200-maybe\r\n\r\n",
    "bad chunk": CHUNKED + b"\r\nxyz\r\n",
    "chunk without end": CHUNKED + b"\r\n2\r\nabcdef\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"\r\n+2\r\nab\r\n0\r\n\r\n",
    "chunk ended by a line feed": CHUNKED + b"\r\n2\nab\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_two_parsers_could_read_differently_is_refused(shared: Any, app: Any, name: str) -> None:
    one, victim = app("one"), app("victim")
    shared.apply(
        Route(host="app.localhost", app="one", targets=(one.target,)),
        Route(host="victim.localhost", app="victim", targets=(victim.target,)),
    )
    answer = shared.raw(AMBIGUOUS[name] + SMUGGLED)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 50", b"HTTP/1.0 50")), answer
    assert answer.count(b"HTTP/1.") == 1, "the connection ends, and nothing behind the request is read"
    assert not one.requests and not victim.requests


def test_a_target_that_repeats_its_host_is_a_path_for_the_app(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    end = b"Host: app.localhost\r\nConnection: close\r\n\r\n"
    assert shared.raw(b"GET http://app.localhost/x?y HTTP/1.1\r\n" + end).startswith(b"HTTP/1.1 200")
    assert shared.raw(b"GET http://APP.localhost?y HTTP/1.1\r\n" + end).startswith(b"HTTP/1.1 200")
    assert shared.raw(b"OPTIONS * HTTP/1.1\r\n" + end).startswith(b"HTTP/1.1 200")
    assert [request.target for request in one.requests] == ["/x?y", "/?y", "*"]


def test_a_header_that_never_ends_is_refused(shared: Any, app: Any) -> None:
    shared.serve(app())
    answer = shared.raw(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nX: " + b"x" * 70000)
    assert answer.startswith(b"HTTP/1.0 431")


def test_another_protocol_than_websocket_is_not_switched_to(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    answer = shared.raw(
        b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: x\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert one.requests[0].header("upgrade") is None and one.requests[0].header("http2-settings") is None


BROKEN = {
    "not HTTP": b"hello\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "strange coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n b\r\n\r\n",
    "injected": b"HTTP/1.1 200 OK\r\nX-A: 1\rSet-Cookie: a\r\n\r\n",
    "switched unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_no_http_is_not_passed_on(shared: Any, app: Any, name: str) -> None:
    shared.serve(app(handler=lambda request: BROKEN[name]))
    answer = shared.ask(method="POST", body=b"x")
    assert answer.status == 502 and b"bad-response" in answer.body


def test_bytes_behind_a_response_reach_nobody(shared: Any, app: Any, respond: Any) -> None:
    one = app(handler=lambda request: respond("ok") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    shared.serve(one)
    for _ in range(5):
        assert shared.ask().body == b"ok"


@pytest.mark.parametrize("part", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
def test_a_response_that_breaks_off_is_seen_to_break_off(shared: Any, app: Any, part: bytes) -> None:
    import http.client

    def half(request: Any) -> None:
        request.sock.sendall(b"HTTP/1.1 200 OK\r\n" + part)

    shared.serve(app(handler=half))
    with pytest.raises(http.client.IncompleteRead):
        shared.ask()


def test_the_controller_is_reached_under_its_own_hosts_only(shared: Any, app: Any, tmp_path: Any) -> None:
    controller, one = app("controller", unix=tmp_path / "c.sock"), app("one")
    route = Route(host="app.localhost", app="one", targets=(one.target,))
    shared.apply(route, hosts=("localhost", "ip", "mini.localhost"), controller=str(tmp_path / "c.sock"))
    for host in ("localhost:8080", "127.0.0.1", "[::1]:80", "1.2.3.4", "MINI.localhost"):
        assert shared.ask(host=host).body == b"controller", host
    assert shared.raw(b"GET / HTTP/1.0\r\n\r\n").endswith(b"controller"), "HTTP/1.0 needs no Host"
    for host in ("controller", "localhost.evil.com", "evil.localhost", "mini.localhost.evil", "localhost.localhost"):
        assert shared.ask(host=host).status in (400, 404), host
    assert all(request.header("x-forwarded-for") == "127.0.0.1" for request in controller.requests)
    assert len(controller.requests) == 6
