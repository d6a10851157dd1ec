"""What lasts: event streams, WebSockets, large bodies, slow and vanishing clients."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
import websockets.sync.server

from mini_core.types import Target

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = sock.recv(65536)
        assert piece, f"the end came before {end!r}: {data!r}"
        data += piece
    return data


class Events:
    """An app whose streams send what `send` is given, and see when their client goes."""

    def __init__(self) -> None:
        self.socks: list[socket.socket] = []
        self.ended = threading.Event()

    def __call__(self, request: Any) -> None:
        request.sock.sendall(EVENTS)
        self.socks.append(request.sock)
        while request.sock.recv(1024):
            pass
        self.ended.set()

    def send(self, data: bytes) -> None:
        for sock in self.socks:
            sock.sendall(data)


def test_each_event_arrives_when_it_is_sent(shared: Any, app: Any, until: Any) -> None:
    events = Events()
    shared.serve(app(handler=events))
    with shared.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        assert b"text/event-stream" in read_until(sock, b"\r\n\r\n")
        until(lambda: events.socks)
        for number in range(3):
            start = time.monotonic()
            events.send(b"data: %d\n\n" % number)
            assert b"data: %d" % number in read_until(sock, b"\r\n")
            assert time.monotonic() - start < 0.5


def test_an_event_stream_outlives_the_time_limit_of_other_responses(shared: Any, app: Any, until: Any) -> None:
    events = Events()
    shared.serve(app(handler=events))
    with shared.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        read_until(sock, b"\r\n\r\n")
        until(lambda: events.socks)
        time.sleep(2.0)  # response_timeout is 1.5
        events.send(b"data: still here\n\n")
        assert b"still here" in read_until(sock, b"\r\n")


def test_many_streams_of_one_app_make_no_other_wait(shared: Any, app: Any, until: Any) -> None:
    from mini_core.types import Route

    events, other = Events(), app("other")
    streaming = app(handler=events)
    shared.apply(
        Route(host="app.localhost", app="app", targets=(streaming.target,)),
        Route(host="other.localhost", app="other", targets=(other.target,)),
    )
    socks = [shared.connect() for _ in range(60)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
    until(lambda: len(events.socks) == 60)
    start = time.monotonic()
    assert shared.ask(host="other.localhost").body == b"other"
    assert time.monotonic() - start < 0.5
    for sock in socks:
        sock.close()


def test_a_slow_app_makes_no_other_wait(shared: Any, app: Any, respond: Any, until: Any) -> None:
    from mini_core.types import Route

    release = threading.Event()

    def slow(request: Any) -> Any:
        release.wait(1.0)
        return respond("slow")

    one, other = app("slow", slow), app("other")
    shared.apply(
        Route(host="app.localhost", app="slow", targets=(one.target,)),
        Route(host="other.localhost", app="other", targets=(other.target,)),
    )
    socks = [shared.connect() for _ in range(40)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
    until(lambda: len(one.requests) == 40)
    start = time.monotonic()
    assert shared.ask(host="other.localhost").body == b"other"
    assert time.monotonic() - start < 0.5
    release.set()
    for sock in socks:
        assert read_until(sock, b"slow").startswith(b"HTTP/1.1 200")
        sock.close()


def test_the_app_learns_that_its_client_has_gone(shared: Any, app: Any, until: Any) -> None:
    events = Events()
    one = app(handler=events)
    shared.serve(one)
    sock = shared.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
    read_until(sock, b"\r\n\r\n")
    sock.close()
    assert events.ended.wait(5)
    until(lambda: all(item["streams"] == 0 for item in shared.router.status()["workers"]))


def test_a_client_that_goes_before_the_answer_frees_the_instance(shared: Any, app: Any, until: Any) -> None:
    gone = threading.Event()

    def wait_for_end(request: Any) -> None:
        request.sock.recv(1024)
        gone.set()

    one = app(handler=wait_for_end)
    shared.serve(one)
    sock = shared.connect()
    sock.sendall(b"GET /left HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
    until(lambda: shared.router.in_flight(one.target) == 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    sock.close()
    assert gone.wait(5)
    until(lambda: shared.router.in_flight(one.target) == 0)
    until(lambda: '"path":"/left","status":499' in shared.log_lines())


# --- WebSocket


@pytest.fixture
def chat() -> Iterator[Target]:
    """A WebSocket server that sends every message back."""

    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with websockets.sync.server.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Target(instance="chat", host="127.0.0.1", port=server.socket.getsockname()[1])
        server.shutdown()
        thread.join()


def test_websockets_carry_text_and_large_binary_messages(shared: Any, chat: Target) -> None:
    from mini_core.types import Route

    shared.apply(Route(host="app.localhost", app="chat", targets=(chat,)))
    with shared.connect() as sock:
        with websockets.sync.client.connect("ws://app.localhost/room", sock=sock, max_size=None) as client:
            client.send("hello")
            assert client.recv(timeout=5) == "hello"
            large = os.urandom(1 << 20)
            client.send(large)
            assert client.recv(timeout=10) == large
        assert client.close_code == 1000, "the closing handshake goes through too"


def test_a_websocket_is_not_counted_by_a_drain_but_is_cut_on_demand(shared: Any, chat: Target) -> None:
    from mini_core.types import Route

    shared.apply(Route(host="app.localhost", app="chat", targets=(chat,)))
    with websockets.sync.client.connect("ws://app.localhost/", sock=shared.connect()) as client:
        client.send("hello")
        assert client.recv(timeout=5) == "hello"
        assert shared.router.in_flight(chat) == 0
        shared.apply()
        assert shared.router.drain(chat, 0.1) is True
        client.send("still connected")
        assert client.recv(timeout=5) == "still connected"
        shared.router.cut(chat)
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            client.recv(timeout=5)


def test_what_a_client_sends_ahead_of_the_upgrade_reaches_the_app(shared: Any, app: Any) -> None:
    def echo(request: Any) -> None:
        time.sleep(0.05)
        request.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := request.sock.recv(1024):
            request.sock.sendall(data.upper())

    one = app()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(1)
            echo(type("R", (), {"sock": sock}))

    thread = threading.Thread(target=serve)
    thread.start()
    one.target = Target(instance="raw", host="127.0.0.1", port=listener.getsockname()[1])
    shared.serve(one)
    with shared.connect() as sock:
        sock.sendall(UPGRADE + b"early ")
        time.sleep(0.02)
        sock.sendall(b"bird")
        assert read_until(sock, b"EARLY BIRD").startswith(b"HTTP/1.1 101 ")
    thread.join()
    listener.close()


def test_an_app_may_decline_an_upgrade(shared: Any, app: Any) -> None:
    one = app()
    shared.serve(one)
    with shared.connect() as sock:
        sock.sendall(UPGRADE)
        assert read_until(sock, b"app").startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"GET /next HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
        read_until(sock, b"app")
    ahead = b"GET /ahead HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n"
    assert shared.raw(UPGRADE + ahead).count(b"HTTP/1.1 200 OK") == 2
    assert one.requests[0].header("upgrade") == "websocket" and one.requests[0].header("connection") == "Upgrade"


def test_a_websocket_waits_for_a_side_that_does_not_read(shared: Any, app: Any) -> None:
    """And goes on when it does; meanwhile little is kept."""
    size = 12 << 20
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[int] = []

    def serve() -> None:
        with listener.accept()[0] as sock:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            time.sleep(0.5)
            count = 0
            while count < size:
                count += len(sock.recv(1 << 20))
            got.append(count)
            sock.sendall(b"all of it")

    thread = threading.Thread(target=serve)
    thread.start()
    one = app()
    one.target = Target(instance="raw", host="127.0.0.1", port=listener.getsockname()[1])
    shared.serve(one)
    with shared.connect() as sock:
        sock.sendall(UPGRADE)
        read_until(sock, b"\r\n\r\n")
        sock.sendall(bytes(size))
        assert read_until(sock, b"all of it") == b"all of it"
    thread.join()
    listener.close()
    assert got == [size]


# --- size


def peak_memory(pid: int) -> int:
    """Of a process so far, in bytes (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_large_bodies_are_never_held_in_memory(fresh: Any, app: Any) -> None:
    size = 100 << 20
    taken = threading.Event()
    count = 0

    def swallow(sock: socket.socket) -> None:
        nonlocal count
        while count < size:
            count += len(sock.recv(1 << 20))
        taken.set()

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as sock:
            while sock.recv(1, socket.MSG_PEEK) and b"\r\n\r\n" not in (head := sock.recv(65536, socket.MSG_PEEK)):
                pass
            sock.recv(head.index(b"\r\n\r\n") + 4)
            swallow(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            piece = bytes(1 << 20)
            for _ in range(100):
                sock.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    running, one = fresh(workers=1), app()
    one.target = Target(instance="big", host="127.0.0.1", port=listener.getsockname()[1])
    running.serve(one)
    before = peak_memory(running.workers()[0])
    with running.connect(timeout=60) as sock:
        sock.sendall(f"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        piece = bytes(1 << 20)
        for _ in range(100):
            sock.sendall(piece)
        assert taken.wait(60)
        time.sleep(0.3)  # the client is slow to read: the router must not read ahead without limit
        got = 0
        head = sock.recv(65536)
        got += len(head.partition(b"\r\n\r\n")[2])
        while got < size:
            got += len(sock.recv(1 << 20))
    thread.join()
    listener.close()
    assert got == size
    assert peak_memory(running.workers()[0]) - before < 16 << 20
    assert not list((running.state / "spool").iterdir())


def test_a_slow_reader_makes_no_other_wait(shared: Any, app: Any, respond: Any) -> None:
    big = app("big", lambda request: respond(bytes(8 << 20) if request.target == "/big" else "small"))
    shared.serve(big)
    with shared.connect() as slow:
        slow.sendall(b"GET /big HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        slow.recv(1000)
        for _ in range(10):
            assert shared.ask().body == b"small"
        rest = 0
        while rest < (8 << 20) - 1000:
            rest += len(slow.recv(1 << 20))
