"""The HTTP API over real sockets and the real HTTP server."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from server_kit import Client, Platform, until

from mini_core.server import auth, operations, streams
from mini_core.server.operation import Operation
from mini_core.types import replace

GZIP = "application/gzip"


# --- who may


@pytest.mark.parametrize("url", ["/healthz", "/v1/openapi.json", "/", "/x/notes/", "/x/notes/index.html"])
def test_health_document_and_pages_are_open(platform: Platform, url: str) -> None:
    assert platform.client().get(url).status == 200


def url_of(operation: Operation) -> str:
    return re.sub(r"<int:\w+>", "1", re.sub(r"<\w+>", "blog", operation.path))


@pytest.mark.parametrize(
    "operation",
    [item for item in operations.OPERATIONS if item.access not in ("open", "internal")],
    ids=lambda item: f"{item.method} {item.path}",
)
def test_everything_else_needs_a_key(platform: Platform, operation: Operation) -> None:
    answer = platform.client().request(operation.method, url_of(operation))
    assert answer.status == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer mini_admin"}, {"X-API-Key": "mini_admin"}])
def test_a_key_travels_in_either_header(platform: Platform, headers: dict[str, str]) -> None:
    assert Client(platform.paths.controller_socket, headers).get("/v1/status").status == 200


def test_a_wrong_key_is_refused_and_never_logged(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    assert platform.client("mini_sentinel_key").get("/v1/status").status == 401
    assert platform.key.get("/v1/status").status == 200
    until(lambda: "GET /v1/status 200" in caplog.text)
    assert "GET /v1/status 401" in caplog.text
    assert "mini_sentinel_key" not in caplog.text
    assert "mini_admin" not in caplog.text


def test_many_wrong_keys_from_one_address_are_put_off_but_a_right_one_passes(platform: Platform) -> None:
    def attempt(address: str) -> int:
        return platform.client("wrong").get("/v1/status", X_Forwarded_For=address).status

    seen = [attempt("1.2.3.4") for _ in range(22)]
    assert seen == [401] * 20 + [429] * 2
    assert attempt("1.2.3.5") == 401
    assert platform.key.get("/v1/status", X_Forwarded_For="1.2.3.4").status == 200


def test_failed_attempts_are_forgotten_after_a_minute() -> None:
    now = [0.0]
    attempts = auth.Attempts(limit=1, clock=lambda: now[0])
    attempts.failed("a")
    with pytest.raises(auth.TooManyRequests):
        attempts.failed("a")
    now[0] = 61.0
    attempts.failed("a")


def test_a_key_of_one_app_reaches_that_app_only(platform: Platform) -> None:
    assert platform.blog.get("/v1/apps/blog/env").status == 200
    refused = platform.blog.get("/v1/apps/shop/env")
    assert (refused.status, refused.json()["code"]) == (403, "forbidden")
    assert platform.blog.get("/v1/keys").status == 403
    assert platform.blog.get("/v1/doctor").status == 403
    assert platform.blog.send("POST", "/v1/apps", {"name": "other"}).status == 403
    assert platform.blog.send("POST", "/v1/apps/blog/rename", {"name": "other"}).status == 403


def test_a_key_of_one_app_sees_nothing_of_others(platform: Platform) -> None:
    platform.key.request("POST", "/v1/apps/shop/deploys", b"source", Content_Type=GZIP)
    assert [app["name"] for app in platform.blog.get("/v1/apps").json()] == ["blog"]
    assert [app["name"] for app in platform.blog.get("/v1/status").json()["apps"]] == ["blog"]
    assert platform.blog.get("/v1/deploys").json() == []
    assert platform.blog.get("/v1/deploys/1").status == 403
    assert platform.blog.get("/v1/deploys/1/events").status == 403
    assert platform.blog.get("/v1/events").lines()[0]["app"] == "blog"
    assert platform.blog.get("/v1/events?app=shop").status == 403


def test_the_admin_socket_needs_no_key_and_is_the_owners(platform: Platform) -> None:
    assert platform.admin.get("/v1/keys").status == 200
    assert platform.paths.admin_socket.stat().st_mode & 0o777 == 0o600
    assert platform.admin.send("PATCH", "/v1/apps/blog/env", {"set": {"A": "1"}}).json()["actor"] == "local"


def test_the_waker_is_for_the_router_only(platform: Platform) -> None:
    wake = b'{"app": "blog"}'
    inside = platform.client().request("POST", "/v1/internal/wake", wake, Content_Type="application/json")
    outside = platform.key.request(
        "POST", "/v1/internal/wake", wake, Content_Type="application/json", X_Forwarded_For="1.2.3.4"
    )
    assert (inside.status, outside.status) == (204, 404)


# --- what is sent


def test_a_source_arrives_whole_and_nothing_is_left_behind(platform: Platform) -> None:
    source = bytes(range(256)) * 4000
    options = {"env": {"A": "ä"}, "timeout": 60}
    answer = platform.key.request(
        "POST", "/v1/apps/blog/deploys", source, Content_Type=GZIP, Mini_Deploy=json.dumps(options)
    )
    assert answer.status == 202
    assert answer.json()["actor"] == "admin"
    assert platform.controller.sources == [source]
    assert platform.controller.options[0].env == {"A": "ä"}
    assert list((platform.paths.data / "uploads").iterdir()) == []


def test_a_plan_is_made_from_a_source_that_is_removed_afterwards(platform: Platform) -> None:
    answer = platform.key.request("POST", "/v1/plan", b"source", Content_Type=GZIP)
    assert answer.json()["plan"]["buildpack"] == "python"
    assert list((platform.paths.data / "uploads").iterdir()) == []


def test_an_upload_that_would_fill_the_disk_is_refused_before_it_is_read(platform: Platform) -> None:
    platform.controller.settings = replace(platform.controller.settings, disk_reserve=1 << 60)
    head = (
        "POST /v1/apps/blog/deploys HTTP/1.1\r\nHost: x\r\nX-API-Key: mini_admin\r\n"
        f"Content-Type: {GZIP}\r\nContent-Length: 900000\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(platform.paths.controller_socket))
        connection.sendall(head.encode())
        with http.client.HTTPResponse(connection) as response:
            response.begin()
            problem = json.loads(response.read())
    assert (response.status, problem["code"]) == (503, "disk-full")
    assert response.headers["Mini-Version"]  # the client tells the platform's answer from a proxy's by it
    assert re.search(r"free at .*, 1\.8 MB are needed for what is sent, .* must stay free", problem["title"])
    assert platform.key.get("/v1/status").status == 200


def test_an_upload_cut_off_leaves_nothing_behind(platform: Platform) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(platform.paths.controller_socket))
    head = (
        "POST /v1/apps/blog/deploys HTTP/1.1\r\nHost: x\r\nX-API-Key: mini_admin\r\n"
        f"Content-Type: {GZIP}\r\nContent-Length: 900000\r\n\r\n"
    )
    connection.sendall(head.encode() + b"x" * 700_000)
    connection.close()
    assert platform.key.get("/v1/status").status == 200
    uploads = platform.paths.data / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []
    assert platform.controller.sources == []


def test_a_source_over_the_limit_is_refused(platform: Platform) -> None:
    connection = platform.key.open("POST", "/v1/apps/blog/deploys", None, Content_Type=GZIP, Content_Length="3000000")
    response = connection.getresponse()
    problem = json.loads(response.read())
    assert (response.status, problem["code"]) == (413, "too-large")
    assert problem["title"] == "The source is too large: this server takes 2.0 MB."
    connection.close()


def test_a_large_body_without_a_right_key_is_refused_unread(platform: Platform) -> None:
    for key in ("", "wrong"):
        client = platform.client(key)
        connection = client.open("POST", "/v1/apps/blog/deploys", None, Content_Type=GZIP, Content_Length="1500000")
        response = connection.getresponse()  # though no byte of the body was sent
        assert response.status == 401
        assert json.loads(response.read())["code"] == "denied"
        connection.close()


@pytest.mark.parametrize(
    ("method", "url", "body", "kind", "status", "said"),
    [
        ("PATCH", "/v1/apps/blog/env", b"A=1", "text/plain", 415, "Expected application/json, got text/plain"),
        ("PATCH", "/v1/apps/blog/env", b"{", "application/json", 400, "body: not JSON"),
        ("PATCH", "/v1/apps/blog/env", b'{"set": {"A": 3}}', "application/json", 422, "expected `str`, got `int`"),
        ("POST", "/v1/apps/blog/deploys", b"x", "text/html", 415, "as application/gzip"),
        ("GET", "/v1/deploys?limit=many", None, "", 400, "query: expected `int`"),
        ("GET", "/v1/deploys/99", None, "", 404, "No deploy 99."),
        ("GET", "/v1/nope", None, "", 404, "No such address: /v1/nope"),
        ("PUT", "/v1/apps", None, "", 405, "PUT is not possible here"),
        ("DELETE", "/v1/apps/blog/volumes", None, "", 400, "missing required field `target`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    platform: Platform, method: str, url: str, body: bytes | None, kind: str, status: int, said: str
) -> None:
    answer = platform.key.request(method, url, body, **({"Content_Type": kind} if kind else {}))
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert said in answer.json()["title"]
    assert answer.json()["status"] == status


def test_a_bad_option_of_a_deploy_names_itself(platform: Platform) -> None:
    answer = platform.key.request(
        "POST", "/v1/apps/blog/deploys", b"x", Content_Type=GZIP, Mini_Deploy='{"timeout": "soon"}'
    )
    assert answer.status == 422
    assert answer.json()["title"] == "Mini-Deploy: expected `float`, got `str` at `timeout`"


def test_a_bug_shows_a_number_and_its_traceback_is_in_the_log_alone(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    answer = platform.key.request("POST", "/v1/apps/blog/restart")
    number = re.fullmatch(r"Internal error (\w+)\.", answer.json()["title"])
    assert answer.status == 500
    assert number
    assert "ZeroDivisionError" not in answer.body.decode()
    assert number[1] in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_request_with_an_origin_gets_no_permission_for_browsers(platform: Platform) -> None:
    answer = platform.key.get("/v1/status", Origin="http://evil.localhost")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


# --- what is answered


def test_the_environment_is_masked_unless_revealed(platform: Platform) -> None:
    assert set(platform.key.get("/v1/apps/blog/env").json().values()) == {"********"}
    assert platform.key.get("/v1/apps/blog/env?reveal=1").json()["SECRET"] == "s3cr3t-value"
    for url in ("/v1/apps/blog/releases", "/v1/apps/blog/releases/1"):
        assert b"s3cr3t" not in platform.key.get(url).body


def test_a_change_that_changes_nothing_answers_204(platform: Platform) -> None:
    assert platform.key.send("PATCH", "/v1/apps/blog/env", {"set": {"DEBUG": "0"}}).status == 204
    assert platform.key.send("PATCH", "/v1/apps/blog/env", {"set": {"DEBUG": "1"}}).status == 202


def test_urls_derive_from_what_the_client_used(platform: Platform) -> None:
    platform.key.get("/v1/status", X_Forwarded_Proto="https")
    platform.admin.get("/v1/status")
    platform.admin.get("/v1/status", Mini_Base_Url="http://1.2.3.4")
    assert platform.controller.base_urls == ["https://mini.test", "", "http://1.2.3.4"]


def test_a_plugins_endpoint_gets_who_asks_and_what_they_sent(platform: Platform) -> None:
    answer = platform.blog.send("POST", "/v1/x/notes/echo/first", {"a": [1]})
    assert answer.json() == {"actor": "ci", "app": "blog", "name": "first", "body": {"a": [1]}}
    assert platform.client().send("POST", "/v1/x/notes/echo/first", {}).status == 401


def test_a_plugins_endpoint_may_stream_and_a_bad_one_harms_no_other(platform: Platform) -> None:
    assert platform.key.get("/v1/x/notes/count").lines() == [1, 2, 3]
    assert platform.key.get("/v1/x/notes/coffee").status == 404
    assert platform.client().get("/x/notes/none.html").status == 404


# --- streams


def test_a_deploys_log_is_streamed_to_its_end(platform: Platform) -> None:
    platform.key.request("POST", "/v1/apps/blog/deploys", b"source", Content_Type=GZIP)
    answer = platform.key.get("/v1/deploys/1/events?after=1&follow=1")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert [line["seq"] for line in answer.lines()] == [2, 3]


def test_log_lines_arrive_as_they_are_written(platform: Platform) -> None:
    connection = platform.key.open("GET", "/v1/apps/blog/logs?follow=1")
    response = connection.getresponse()
    assert response.readline() == b"\n"
    for text in ("one", "two"):
        platform.controller.write_log(text)
        assert json.loads(response.readline())["text"] == text
    connection.close()
    response.close()


def test_a_follower_of_a_quiet_app_who_leaves_frees_its_place(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "POLL", 0.05)
    opened = [platform.key.open("GET", "/v1/apps/blog/logs?follow=1") for _ in range(32)]
    responses = [connection.getresponse() for connection in opened]
    full = platform.key.get("/v1/apps/blog/logs?follow=1")
    assert (full.status, full.headers["Retry-After"]) == (503, "2")
    assert platform.key.get("/v1/status").status == 200  # short calls still find a thread
    for connection, response in zip(opened, responses, strict=True):
        response.close()
        connection.close()
    until(lambda: platform.key.get("/v1/apps/blog/logs").status == 200)

    def readers() -> int:
        platform.controller.write_log("wakes the readers")
        return platform.controller.streaming

    until(lambda: readers() == 0)


def test_a_quiet_stream_shows_that_it_is_alive(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POLL", 0.02)
    monkeypatch.setattr(streams, "BEAT", 0.05)
    connection = platform.key.open("GET", "/v1/apps/blog/logs?follow=1")
    response = connection.getresponse()
    assert [response.readline(), response.readline()] == [b"\n", b"\n"]
    response.close()
    connection.close()


def test_an_error_before_the_first_line_is_a_status(platform: Platform) -> None:
    assert platform.key.get("/v1/apps/none/logs").status == 404


def test_short_calls_are_answered_while_others_wait(platform: Platform) -> None:
    threads = [threading.Thread(target=platform.key.get, args=("/v1/status",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(platform.controller.base_urls) == 20


# --- the document


def test_the_document_describes_exactly_what_is_served(platform: Platform) -> None:
    document = platform.client().get("/v1/openapi.json").json()
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    served = {
        (operation.method, re.sub(r"<(?:int:)?(\w+)>", r"{\1}", operation.path))
        for operation in operations.OPERATIONS
        if operation.access != "internal"
    }
    assert documented == served | {("POST", "/v1/x/notes/echo/{name}"), ("GET", "/v1/x/notes/count")}
    names = [item["operationId"] for methods in document["paths"].values() for item in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_of_the_document_leads_somewhere(platform: Platform) -> None:
    text = platform.client().get("/v1/openapi.json").body.decode()
    schemas = json.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(schemas)
    assert schemas["DeployInfo"]["properties"]["id"] == {"type": "integer"}
    assert not [name for name in schemas if "." in name]  # two types of one name


def test_the_docs_of_the_api_name_no_internal_address(platform: Platform) -> None:
    assert "/v1/internal" not in platform.client().get("/v1/openapi.json").body.decode()


def test_sockets_are_gone_after_the_server(platform: Platform) -> None:
    platform.server.close()
    assert [Path(path).exists() for path in (platform.paths.admin_socket, platform.paths.controller_socket)] == [
        False,
        False,
    ]
