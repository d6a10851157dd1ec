"""The API as the world reaches it: through the real router, over TCP."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_kit import Platform

from mini_core import frames
from mini_core.api import RestoreEvent
from mini_core.client.address import parse_address
from mini_core.client.http import Client
from mini_core.hosts import platform_hosts
from mini_core.server import doctor, ports
from mini_core.settings import Settings
from mini_core.types import Endpoint, RouterSettings, RouteTable
from mini_proxy.router import ProxyRouter


@pytest.fixture(scope="module")
def port() -> int:
    return ports.choose_port(["127.0.0.1"], range(20400, 20500))


@pytest.fixture
def address(platform: Platform, port: int) -> Iterator[tuple[str, int]]:
    router = ProxyRouter()
    controller = str(platform.paths.controller_socket)
    router.start(
        RouterSettings(
            binds=(Endpoint(host="127.0.0.1", port=port),),
            state=str(platform.paths.run / "router"),
            controller=controller,
            platform=platform.controller.platform,
            workers=1,
        )
    )
    router.apply(RouteTable(generation=1, hosts=platform_hosts("localhost"), controller=controller))
    yield "127.0.0.1", port
    router.stop()


def test_calls_uploads_streams_and_commands_pass_the_router(platform: Platform, address: tuple[str, int]) -> None:
    key = {"Authorization": "Bearer mini_admin"}
    connection = http.client.HTTPConnection(*address, timeout=10)

    connection.request("GET", "/v1/status", headers={**key, "Host": "localhost:8080"})
    assert json.load(connection.getresponse())["url"] == "http://localhost:8080"

    source = bytes(range(256)) * 4000
    connection.request("POST", "/v1/apps/blog/deploys", source, {**key, "Content-Type": "application/gzip"})
    assert connection.getresponse().read()
    assert platform.controller.sources == [source]

    connection.request("POST", "/v1/internal/wake", b'{"app": "blog"}', {**key, "Content-Type": "application/json"})
    refused = connection.getresponse()
    assert (refused.status, json.load(refused)["code"]) == (404, "not-found")

    connection.request("GET", "/v1/apps/blog/logs?follow=1", headers=key)
    stream = connection.getresponse()
    platform.controller.write_log("hello")
    assert json.loads(_line(stream))["text"] == "hello"
    stream.close()
    connection.close()

    assert run(address, key["Authorization"], ["sh", "-c", "cat; exit 4"], b"typed") == (b"typed", 4)
    checks = doctor.router(Settings(bind=("127.0.0.1",), port=address[1]), platform.controller.platform)
    assert [check.state for check in checks] == ["ok"]


def test_a_large_backup_passes_the_router_in_pieces(
    platform: Platform, address: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mini_core.client.http.PIECE", 100_000)
    client = Client(parse_address(f"http://127.0.0.1:{address[1]}"), key="mini_admin")
    (tmp_path / "backup").write_bytes(b"mini " + bytes(250_000))
    seen: list[int] = []
    with (tmp_path / "backup").open("rb") as file:
        (event,) = client.send("/v1/restore", file, "application/x-tar", RestoreEvent, seen.append, replace=True)
    assert event.text == "mini  250000 True True"
    assert seen == [100_000, 200_000, 250_005]


def _line(stream: http.client.HTTPResponse) -> bytes:
    while not (line := stream.readline()).strip():
        assert line, "the stream ended"
    return line


def run(address: tuple[str, int], key: str, command: list[str], typed: bytes) -> tuple[bytes, int]:
    body = json.dumps({"command": command}).encode()
    head = (
        f"POST /v1/apps/blog/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nConnection: Upgrade\r\n"
        f"Upgrade: mini-stream\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(address, 10) as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        connection.sendall(frames.pack(frames.STDIN, typed) + frames.pack(frames.STDIN))
        output = b""
        for stream, data in frames.unpack(connection.recv):
            if stream == frames.EXIT:
                return output, json.loads(data)["code"]
            output += data
    raise AssertionError("no exit code")
