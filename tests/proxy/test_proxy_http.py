"""HTTP through the router: what arrives at the app, and what comes back."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n"


def test_an_app_gets_the_request_as_it_was_sent(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    shared.raw(
        b"PATCH /a%2Fb/../c?q=1&q=%20 HTTP/1.1\r\nHost: App.localhost:8080\r\nX-One: 1\r\nx-two:  2 \r\nX-One: 3\r\n"
        b"Cookie: a=b; c=d\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    )
    got = one.requests[0]
    assert (got.method, got.target, got.version, got.body) == ("PATCH", "/a%2Fb/../c?q=1&q=%20", "HTTP/1.1", b"body")
    assert got.header("host") == "App.localhost:8080"
    sent = [(name, value) for name, value in got.headers if name in ("X-One", "x-two", "Cookie")]
    assert sent == [("X-One", "1"), ("x-two", "2"), ("X-One", "3"), ("Cookie", "a=b; c=d")]


def test_an_app_learns_who_asks_and_cannot_be_told_otherwise(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    shared.ask(
        host="app.localhost:8080",
        X_Forwarded_For="6.6.6.6",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="evil",
        Forwarded="for=6.6.6.6",
        X_Real_IP="6.6.6.6",
        X_Request_Id="short",
        Proxy="http://evil",
    )
    got = one.requests[0]
    assert got.header("x-forwarded-for") == "127.0.0.1"
    assert got.header("x-forwarded-proto") == "http"
    assert got.header("x-forwarded-host") == "app.localhost:8080"
    assert got.header("x-forwarded-port") == "8080"
    assert got.header("forwarded") == 'for=127.0.0.1;host="app.localhost:8080";proto=http'
    assert got.header("x-real-ip") is None and got.header("proxy") is None
    assert len(got.header("x-request-id")) == 20


def test_a_trusted_proxy_in_front_is_believed(fresh: Any, app: Any) -> None:
    one, running = app(), fresh(workers=1, trusted=["127.0.0.0/8"])
    running.serve(one)
    running.ask(X_Forwarded_For="1.2.3.4", X_Forwarded_Proto="https", X_Request_Id="0123456789abcdef-1")
    got = one.requests[0]
    assert got.header("x-forwarded-for") == "1.2.3.4, 127.0.0.1"
    assert (got.header("x-forwarded-proto"), got.header("x-forwarded-port")) == ("https", "443")
    assert got.header("x-request-id") == "0123456789abcdef-1"


def test_what_concerns_one_connection_is_not_passed_on(shared: Any, app: Any, respond: Any) -> None:
    one = app(
        handler=lambda request: respond(
            "x", "Connection: X-Private, close", "X-Private: 1", "Keep-Alive: timeout=5", "X-Public: 2", "Upgrade: h2c"
        )
    )
    shared.serve(one)
    answer = shared.raw(
        b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n"
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nX_Under_Score: 1\r\nX-Kept: 1\r\n\r\n"
    ).lower()
    names = {name.lower() for name, _ in one.requests[0].headers}
    assert not names & {"connection", "x-hop", "te", "keep-alive", "proxy-connection", "upgrade", "x_under_score"}
    assert "x-kept" in names
    assert b"x-public: 2" in answer
    assert not any(name in answer for name in (b"x-private", b"keep-alive", b"upgrade"))
    assert answer.count(b"connection: close") == 1


def test_repeated_response_headers_stay_apart_and_in_order(shared: Any, app: Any, respond: Any) -> None:
    shared.serve(app(handler=lambda request: respond("x", "Set-Cookie: a=1", "X-A: 1", "Set-Cookie: b=2, c")))
    answer = shared.ask()
    assert [value for name, value in answer.headers if name == "Set-Cookie"] == ["a=1", "b=2, c"]


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Oh No", "201 ", "418"])
def test_every_status_comes_back_with_the_apps_own_words(shared: Any, app: Any, respond: Any, status: str) -> None:
    shared.serve(app(handler=lambda request: respond("mine", status=status)))
    first_line = shared.raw(CLOSE).partition(b"\r\n")[0]
    assert first_line.decode() == f"HTTP/1.1 {status}"


def test_head_and_not_modified_have_lengths_without_bodies(shared: Any, app: Any) -> None:
    answers = {
        "HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        "GET": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: x\r\n\r\n",
        "DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
    }
    one = app(handler=lambda request: answers[request.method])
    shared.serve(one)
    with shared.connect() as sock:
        reader = sock.makefile("rb")
        for method in ("HEAD", "GET", "DELETE", "HEAD"):
            sock.sendall(f"{method} / HTTP/1.1\r\nHost: app.localhost\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += reader.readline()
            assert (b"Content-Length: 1234" in head) is (method != "DELETE")
            assert b"Transfer-Encoding" not in head
        reader.close()
    assert one.connections == 1, "an answer without a body leaves the connection usable"


def test_chunks_from_the_app_arrive_whole_and_trailers_are_dropped(shared: Any, app: Any) -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    body += b"5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 11\r\n\r\n"
    shared.serve(app(handler=lambda request: body))
    answer = shared.ask()
    assert answer.body == b"hello world"
    assert answer.header("Transfer-Encoding") == "chunked" and answer.header("Trailer") is None
    assert b"X-Sum" not in shared.raw(CLOSE)


def test_an_http_1_0_client_gets_an_unchunked_body_and_the_end(shared: Any, app: Any) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    shared.serve(app(handler=lambda request: chunked))
    answer = shared.raw(b"GET / HTTP/1.0\r\nHost: app.localhost\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nhello") and b"Transfer-Encoding" not in answer and b"Connection: close" in answer


def test_an_http_1_0_client_may_keep_its_connection(shared: Any, app: Any) -> None:
    shared.serve(app())
    request = b"GET / HTTP/1.0\r\nHost: app.localhost\r\nConnection: keep-alive\r\n\r\n"
    with shared.connect() as sock:
        for _ in range(2):
            sock.sendall(request)
            data = b""
            while not data.endswith(b"app"):
                data += sock.recv(4096)
            assert b"Connection: keep-alive" in data


def test_an_app_that_speaks_http_1_0_ends_its_response_by_closing(shared: Any, app: Any) -> None:
    def old(request: Any) -> None:
        request.sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")

    shared.serve(app(handler=old))
    answer = shared.ask()
    assert answer.body == b"until the end" and answer.header("Transfer-Encoding") == "chunked"


def test_an_app_may_close_after_each_response(shared: Any, app: Any, respond: Any) -> None:
    def closing(request: Any) -> None:
        request.sock.sendall(respond("bye", "Connection: close"))

    one = app(handler=closing)
    shared.serve(one)
    with shared.connect() as sock:
        for _ in range(3):
            sock.sendall(GET)
            data = b""
            while not data.endswith(b"bye"):
                data += sock.recv(4096)
            assert b"Connection: close" not in data, "the client's connection is none of the app's business"
    assert one.connections == 3


def test_early_hints_are_passed_on_and_other_interim_answers_are_not(shared: Any, app: Any, respond: Any) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    shared.serve(app(handler=lambda request: interim + respond("done")))
    answer = shared.raw(CLOSE)
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK")
    assert b"100 Continue" not in answer and answer.endswith(b"done")
    assert b" 103 " not in shared.raw(b"GET / HTTP/1.0\r\nHost: app.localhost\r\n\r\n")


def test_a_client_is_told_to_continue_before_it_sends_its_body(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    with shared.connect() as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nHost: app.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert sock.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not one.requests, "the app sees nothing until the body is there"
        sock.sendall(b"body")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
    assert one.requests[0].body == b"body" and one.requests[0].header("expect") is None


def test_a_body_nobody_will_take_is_refused_before_it_is_sent(shared: Any, app: Any) -> None:
    shared.serve(app())
    head = "POST / HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    unknown = shared.raw(head.format("other.localhost", 10).encode())
    assert unknown.startswith(b"HTTP/1.1 404 ") and b"100 Continue" not in unknown
    large = shared.raw(head.format("app.localhost", 9 << 20).encode())
    assert large.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_on_still_reads_why_it_was_refused(shared: Any, app: Any) -> None:
    shared.serve(app())
    size = 20 << 20
    with shared.connect() as sock:
        sock.sendall(f"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        sock.sendall(bytes(4 << 20))
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_upload_reaches_the_app_with_its_length(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    shared.raw(
        b"POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    got = one.requests[0]
    assert (got.body, got.header("content-length")) == (b"hello world", "11")
    assert got.header("transfer-encoding") is None and got.header("x-trailer") is None


def test_an_endless_chunked_upload_is_stopped_at_the_limit(shared: Any, app: Any) -> None:
    shared.serve(app())
    with shared.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(9):
            sock.sendall(piece)
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_an_empty_body_is_still_a_body(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    shared.ask(method="POST", body=b"", Content_Length="0")
    shared.ask()
    assert [request.header("content-length") for request in one.requests] == ["0", None]


def test_requests_sent_ahead_are_answered_in_order(shared: Any, app: Any, respond: Any) -> None:
    shared.serve(app(handler=lambda request: respond(request.target)))
    requests = [f"GET /{n} HTTP/1.1\r\nHost: app.localhost\r\n\r\n" for n in range(9)]
    last = "GET /last HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n"
    answer = shared.raw("".join([*requests, last]).encode())
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [f"/{n}".encode() for n in range(9)] + [b"/last"]


def test_an_answer_before_the_body_was_taken_comes_through(shared: Any, app: Any, respond: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_early() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1024)
            sock.sendall(respond("too much", "Connection: close", status="413 Mine"))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    thread = threading.Thread(target=answer_early)
    thread.start()
    one = app()
    one.target = type(one.target)(instance="early", host="127.0.0.1", port=listener.getsockname()[1])
    shared.serve(one)
    answer = shared.ask(method="POST", body=bytes(4 << 20))
    thread.join()
    listener.close()
    assert (answer.status, answer.body) == (413, b"too much")


def test_instances_take_turns_and_share_a_path_by_its_longest_prefix(shared: Any, app: Any) -> None:
    from mini_core.types import Route

    one, two, api = app("one"), app("two"), app("api")
    shared.apply(
        Route(host="app.localhost", app="app", targets=(one.target, two.target)),
        Route(host="app.localhost", app="api", path="/api", targets=(api.target,)),
    )
    with shared.connect() as sock:
        bodies = []
        for path in ("/", "/", "/", "/", "/api", "/api/x", "/api?q", "/apix", "/x/api"):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n".encode())
            bodies.append(sock.recv(65536).partition(b"\r\n\r\n")[2].decode())
    assert sorted(bodies[:4]) == ["one", "one", "two", "two"] and bodies[0] != bodies[1]
    assert bodies[4:7] == ["api"] * 3 and "api" not in bodies[7:]


def test_every_name_of_an_app_leads_to_it(shared: Any, app: Any) -> None:
    from mini_core.types import Route

    one = app("one")
    hosts = ("one.localhost", "one.nip.io", "example.com")
    shared.apply(*(Route(host=host, app="one", targets=(one.target,)) for host in hosts))
    for name in (
        "one.localhost",
        "ONE.LOCALHOST:8080",
        "one.1.2.3.4.nip.io",
        "one.127.0.0.1.nip.io:80",
        "example.com.",
    ):
        assert shared.ask(host=name).body == b"one", name


def test_a_request_the_app_can_repeat_survives_a_stale_connection(shared: Any, app: Any, until: Any) -> None:
    one = app()
    shared.serve(one)
    for _ in range(6):  # kept connections in both workers
        shared.ask()
    for _ in range(10):
        one.close_connections()
        assert shared.ask().status == 200
        assert shared.ask(method="POST", body=b"x").status == 200


def test_a_request_that_may_not_be_repeated_is_sent_once(shared: Any, app: Any) -> None:
    one = app(handler=lambda request: None)  # takes the request and closes the connection
    shared.serve(one)
    assert shared.ask(method="POST", body=b"x").status == 502
    assert len(one.requests) == 1
    assert shared.ask().status == 502
    assert len(one.requests) == 3, "a GET is tried once more"


def test_an_instance_that_refuses_connections_is_passed_over(shared: Any, app: Any) -> None:
    dead, alive = app("dead"), app("alive")
    dead.close()
    shared.serve(dead, alive)
    answers = [shared.ask(method=method, body=b"x") for method in ("GET", "POST") for _ in range(10)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"alive")}
    refused = [item.get("refusals", {}) for item in shared.router.status()["workers"]]
    assert sum(item.get("dead", 0) for item in refused) in range(1, 13), "it is not asked every time"


def test_the_log_tells_of_requests_but_not_of_what_is_in_queries(shared: Any, app: Any, until: Any) -> None:
    shared.serve(app("web.1"), name="blog")
    shared.ask("/path?token=secret")
    line = until(lambda: next((item for item in shared.log_lines().splitlines() if "/path" in item), None))
    entry = json.loads(line)
    assert (entry["app"], entry["method"], entry["path"], entry["status"]) == ("blog", "GET", "/path", 200)
    assert (entry["instance"], entry["bytes"], entry["client"]) == ("web.1", 5, "127.0.0.1")
    assert entry["text"].startswith("GET /path 200 ") and entry["at"] > 1e9 and len(entry["id"]) == 20
    assert "secret" not in shared.log_lines()
