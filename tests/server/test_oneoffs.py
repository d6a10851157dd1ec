"""Commands with their streams over an upgraded connection."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from server_kit import Platform, alive, until

from mini_core import api, frames
from mini_core.interfaces import OneOff


def request_to_run(platform: Platform, command: list[str], **more: Any) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(platform.paths.controller_socket))
    body = json.dumps({"command": command, **more}).encode()
    head = (
        "POST /v1/apps/blog/run HTTP/1.1\r\nHost: x\r\nX-API-Key: mini_blog\r\nConnection: Upgrade\r\n"
        f"Upgrade: mini-stream\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


class Session:
    """The client's end."""

    def __init__(self, platform: Platform, command: list[str], **more: Any) -> None:
        self.socket = request_to_run(platform, command, **more)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")

    def send(self, stream: int, data: bytes = b"") -> None:
        self.socket.sendall(frames.pack(stream, data))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        return frames.unpack(self.socket.recv)

    def rest(self) -> tuple[dict[int, bytes], int]:
        """All output by stream, and the exit code."""
        output: dict[int, bytes] = {}
        for stream, data in self.frames():
            if stream == frames.EXIT:
                self.socket.close()
                return output, json.loads(data)["code"]
            output[stream] = output.get(stream, b"") + data
        raise AssertionError("no exit code")


def test_output_streams_and_exit_code_come_through(platform: Platform) -> None:
    session = Session(platform, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert session.rest() == ({frames.STDOUT: b"out\n", frames.STDERR: b"err\n"}, 7)


def test_input_reaches_the_command_as_it_is_sent(platform: Platform) -> None:
    session = Session(platform, ["cat"])
    received = session.frames()
    for line in (b"one\n", b"two\n"):
        session.send(frames.STDIN, line)
        assert next(received) == (frames.STDOUT, line)
    session.send(frames.STDIN)
    assert session.rest() == ({}, 0)


def test_a_megabyte_goes_both_ways(platform: Platform) -> None:
    data = bytes(range(256)) * 10_000
    session = Session(platform, ["sh", "-c", "cat > /dev/null; head -c 2560000 /dev/zero"])
    session.send(frames.STDIN, data)
    session.send(frames.STDIN)
    output, code = session.rest()
    assert (len(output[frames.STDOUT]), code) == (2_560_000, 0)


def test_a_signal_ends_it_with_128_and_its_number(platform: Platform) -> None:
    session = Session(platform, ["sleep", "60"])
    session.send(frames.RESIZE, b'{"rows": 10, "columns": 20}')
    session.send(frames.SIGNAL, json.dumps({"number": int(signal.SIGTERM)}).encode())
    assert session.rest() == ({}, 143)


def test_a_client_that_leaves_ends_the_command(platform: Platform) -> None:
    session = Session(platform, ["sh", "-c", "echo $$; exec sleep 60"])
    _, data = next(session.frames())
    session.socket.close()
    until(lambda: not alive(int(data)))


def test_a_client_that_leaves_while_its_command_is_being_started_ends_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, left, made = threading.Event(), threading.Event(), []
    run = platform.controller.run

    def slow(app: str, request: api.OneOffRequest, actor: str) -> OneOff:
        asked.set()
        assert left.wait(10)
        made.append(run(app, request, actor))
        return made[0]

    monkeypatch.setattr(platform.controller, "run", slow)
    client = request_to_run(platform, ["sleep", "60"])
    assert asked.wait(10)
    client.close()
    servers = platform.server._servers
    until(lambda: not any(item.connected for server in servers for item in server.active_channels.values()))
    left.set()
    until(lambda: made and made[0]._process.poll() is not None)


def test_the_environment_is_passed_and_a_command_that_goes_on_by_itself_has_a_name(platform: Platform) -> None:
    session = Session(platform, ["sh", "-c", "echo $WHO"], env={"WHO": "me"})
    assert session.rest() == ({frames.STDOUT: b"me\n"}, 0)
    answer = platform.key.send("POST", "/v1/apps/blog/runs", {"command": ["true"]})
    assert (answer.status, answer.json()["name"]) == (200, "run.1")
    assert platform.key.request("DELETE", "/v1/apps/blog/runs/run.1").status == 204
    assert platform.client("mini_blog").send("POST", "/v1/apps/shop/runs", {"command": ["true"]}).status == 403


def test_without_an_upgrade_nothing_is_started(platform: Platform) -> None:
    answer = platform.key.send("POST", "/v1/apps/blog/run", {"command": ["true"]})
    assert (answer.status, answer.json()["code"]) == (400, "upgrade-required")
    assert platform.client("mini_blog").send("POST", "/v1/apps/shop/run", {"command": ["true"]}).status == 403


def test_frames_that_are_cut_or_too_long_are_refused() -> None:
    def receive_from(data: bytes) -> Any:
        parts = iter([data[:3], data[3:]])
        return lambda _: next(parts, b"")

    assert list(frames.unpack(receive_from(frames.pack(1, b"ab") + frames.pack(3)))) == [(1, b"ab"), (3, b"")]
    with pytest.raises(frames.FrameError, match="ended inside"):
        list(frames.unpack(receive_from(frames.pack(1, b"abcdef")[:-1])))
    with pytest.raises(frames.FrameError, match="4294967295 bytes"):
        list(frames.unpack(receive_from(b"\x01\xff\xff\xff\xff")))
