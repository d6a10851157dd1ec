"""The contract of what brings requests to instances."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_core.errors import MiniError
from mini_core.interfaces import Router
from mini_core.testing.helpers import free_port
from mini_core.types import (
    Endpoint,
    Route,
    RouterSettings,
    RouteTable,
    Target,
)


class Upstream:
    """An app that answers every request with its name; `/slow` streams two parts with a pause that `release` ends;
    an upgrade is answered with 101 and echoed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.release = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = Target(instance=name, host="127.0.0.1", port=self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or the thread in accept() would take one more connection
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                if b"upgrade: websocket" in head.lower():
                    connection.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                    )
                    while data := connection.recv(65536):
                        connection.sendall(data)
                    return
                self._answer(connection, head)

    def _answer(self, connection: socket.socket, head: bytes) -> None:
        body = self.name.encode()
        if b"GET /slow" not in head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
        self.release.wait(30)
        connection.sendall(b"4\r\ndone\r\n0\r\n\r\n")


class RouterContract:
    """Fixtures: `make_router` gives a new router object at each call, for the same state; `router_settings` with
    one bind on 127.0.0.1. The router is stopped afterwards."""

    @pytest.fixture
    def make_router(self) -> Callable[[], Router]:
        raise NotImplementedError("define the fixture `make_router`")

    @pytest.fixture
    def router_settings(self, tmp_path: Path) -> RouterSettings:
        state = tmp_path / "r"
        bind = Endpoint(host="127.0.0.1", port=free_port())
        return RouterSettings(binds=(bind,), state=str(state), controller=str(tmp_path / "c.sock"), platform="contract")

    @pytest.fixture
    def router(self, make_router: Callable[[], Router], router_settings: RouterSettings) -> Iterator[Router]:
        router = make_router()
        router.start(router_settings)
        yield router
        router.stop()

    @pytest.fixture
    def upstream(self) -> Iterator[Callable[[str], Upstream]]:
        made: list[Upstream] = []

        def make(name: str) -> Upstream:
            made.append(Upstream(name))
            return made[-1]

        yield make
        for item in made:
            item.close()

    @staticmethod
    def _table(generation: int, *routes: Route) -> RouteTable:
        return RouteTable(generation=generation, routes=routes, hosts=("localhost",))

    @staticmethod
    def _connect(settings: RouterSettings) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(settings.binds[0].host, settings.binds[0].port, timeout=15)

    def _get(self, settings: RouterSettings, host: str, path: str = "/") -> tuple[int, str]:
        connection = self._connect(settings)
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def test_requests_reach_the_app_of_their_host_and_no_other(
        self, router: Router, router_settings: RouterSettings, upstream: Callable[[str], Upstream]
    ) -> None:
        routes = [Route(host=f"{n}.localhost", app=n, targets=(upstream(n).target,)) for n in ("blog", "shop")]
        router.apply(self._table(1, *routes))
        assert self._get(router_settings, "blog.localhost:8080") == (200, "blog")
        assert self._get(router_settings, "SHOP.localhost.") == (200, "shop")
        for hostile in ("other.localhost", "blog.localhost.evil.com", "blog.localhost@shop", "blog.localhost/x", ".."):
            assert self._get(router_settings, hostile)[0] in (400, 404), hostile

    def test_no_answer_is_stale_once_apply_has_returned(
        self, router: Router, router_settings: RouterSettings, upstream: Callable[[str], Upstream]
    ) -> None:
        old, new = upstream("old"), upstream("new")
        for generation in range(1, 21):
            current = new if generation % 2 else old
            router.apply(self._table(generation, Route(host="a.localhost", app="a", targets=(current.target,))))
            answers = {self._get(router_settings, "a.localhost")[1] for _ in range(5)}
            assert answers == {current.name}

    def test_a_lower_generation_is_refused(
        self, router: Router, router_settings: RouterSettings, upstream: Callable[[str], Upstream]
    ) -> None:
        app = upstream("app")
        router.apply(self._table(5, Route(host="a.localhost", app="a", targets=(app.target,))))
        with contextlib.suppress(MiniError):
            router.apply(self._table(4))
        assert self._get(router_settings, "a.localhost") == (200, "app")

    def test_what_is_wrong_is_said_with_the_right_status(
        self, router: Router, router_settings: RouterSettings, upstream: Callable[[str], Upstream]
    ) -> None:
        gone = upstream("gone")
        gone.close()
        routes = (
            Route(host="none.localhost", app="none"),
            Route(host="gone.localhost", app="gone", targets=(gone.target,)),
            Route(host="closed.localhost", app="closed", state="maintenance", targets=(gone.target,)),
        )
        router.apply(self._table(1, *routes))
        hosts = ("unknown.localhost", "none.localhost", "gone.localhost", "closed.localhost")
        assert [self._get(router_settings, host)[0] for host in hosts] == [404, 503, 502, 503]

    def test_a_response_is_streamed_counted_and_drained(
        self, router: Router, router_settings: RouterSettings, upstream: Callable[[str], Upstream]
    ) -> None:
        app = upstream("app")
        router.apply(self._table(1, Route(host="a.localhost", app="a", targets=(app.target,))))
        connection = self._connect(router_settings)
        connection.request("GET", "/slow", headers={"Host": "a.localhost"})
        answer = connection.getresponse()
        assert answer.read(3) == b"app", "the first part must come before the response has ended"
        assert router.in_flight(app.target) in (1, None)
        router.apply(self._table(2))
        assert router.drain(app.target, 0.3) is False
        app.release.set()
        assert answer.read() == b"done"
        assert router.drain(app.target, 10) is True
        connection.close()

    def test_an_upgraded_connection_carries_bytes_both_ways(
        self, router: Router, router_settings: RouterSettings, upstream: Callable[[str], Upstream]
    ) -> None:
        app = upstream("app")
        router.apply(self._table(1, Route(host="a.localhost", app="a", targets=(app.target,))))
        bind = router_settings.binds[0]
        with socket.create_connection((bind.host, bind.port), timeout=15) as client:
            client.sendall(
                b"GET /chat HTTP/1.1\r\nHost: a.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            reader = client.makefile("rb")
            assert b" 101 " in reader.readline()
            while reader.readline().strip():
                pass
            client.sendall(b"ping")
            assert reader.read(4) == b"ping"
            reader.close()

    def test_a_new_controller_adopts_the_router_that_runs(
        self,
        router: Router,
        make_router: Callable[[], Router],
        router_settings: RouterSettings,
        upstream: Callable[[str], Upstream],
    ) -> None:
        app = upstream("app")
        router.apply(self._table(1, Route(host="a.localhost", app="a", targets=(app.target,))))
        router.close()
        assert self._get(router_settings, "a.localhost") == (200, "app")
        other = make_router()
        other.start(router_settings)
        assert other.status().get("generation") == 1
        other.apply(self._table(2))
        assert self._get(router_settings, "a.localhost")[0] == 404
