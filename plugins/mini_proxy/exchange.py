"""One request on its way to an instance, and the response on its way back.

    connecting → sending → head → body → over
                                └→ tunnel → over      (a WebSocket, once the instance has answered 101)

Runs in the worker's loop: nothing here waits. A request counts as in flight from the moment its instance is chosen
until the instance has answered whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_proxy.forward import forward_head
from mini_proxy.http1 import BadMessage, ChunkedDecoder, chunk
from mini_proxy.problems import Problem
from mini_proxy.response import MAX_HEAD, Head, client_head
from mini_proxy.upstream import READ, Backend, Upstream

if TYPE_CHECKING:
    from mini_proxy.channel import Channel
    from mini_proxy.proxy import Proxy
    from mini_proxy.request import Request
    from mini_proxy.table import App

HIGH_WATER = 262144
"""Bytes waiting for the client above which nothing more is read from the instance."""
FOREVER = float("inf")


class Exchange:
    def __init__(self, proxy: Proxy, channel: Channel, request: Request, app: App, backends: list[Backend]) -> None:
        """backends: all that may serve the request, in the order in which to try them."""
        self.proxy, self.channel, self.request, self.app = proxy, channel, request, app
        self.id = proxy.ids.of(request)
        self.status, self.bytes = 0, 0
        self.backend: Backend | None = None
        self.upstream: Upstream | None = None
        self.deadline = FOREVER
        self.state = "connecting"
        self.stream = False
        self._untried = list(backends)
        self._retried = False
        self._buffer = b""
        self._head: Head | None = None
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self._chunked = self._close = False

    # --- towards the instance

    def start(self) -> None:
        """Takes the next instance that may serve the request."""
        self.backend = self._untried.pop(0)
        self.backend.requests.add(self)
        self._attempt(
            fresh=not (self.request.idempotent and self.proxy.options.keepalive) or bool(self.request.upgrade)
        )

    def _attempt(self, *, fresh: bool) -> None:
        assert self.backend is not None
        idle = None if fresh else self.backend.take_idle()
        if idle is not None:
            self.upstream = idle
            idle.user = self
            self.connected()
            return
        self.state = "connecting"
        self.deadline = self.proxy.now() + self.proxy.options.connect_timeout
        try:
            self.upstream = Upstream(self.proxy.loop, self.backend)
        except OSError as error:  # no descriptors left
            self.fail(Problem.died(f"no connection to {self.backend.target.instance}: {error}"))
            return
        self.upstream.connect(self)

    def connected(self) -> None:
        assert self.upstream is not None
        self.state = "head"
        self.deadline = self.proxy.now() + self.response_timeout
        self._buffer = b""
        body = self.request.body_rcv
        head = forward_head(self.request, self.channel.client, self.id)
        if body is None or not self.request.body_size:
            self.upstream.send(head)
            return
        file = body.getfile()
        file.seek(0)
        self.upstream.send(head, lambda: file.read(READ))

    def connect_failed(self, reason: str) -> None:
        """Nothing was sent yet, so that any request may try the next instance."""
        assert self.backend is not None
        self.backend.refused()
        cause = f"{self.backend.target.instance} ({_address(self.backend)}): {reason}"
        self._drop_upstream()
        self._leave_backend()
        if self._untried:
            self.start()
        elif self.app.is_platform:
            self.fail(Problem.controller_away(cause))
        else:
            self.fail(Problem.died(cause))

    def sent(self) -> None:
        self.deadline = self.proxy.now() + self.response_timeout
        if self.state == "tunnel":
            self.proxy.loop.refresh(self.channel)  # which is not read from while this side is congested

    @property
    def response_timeout(self) -> float:
        if self.stream:
            return self.proxy.options.stream_timeout
        return self.app.response_timeout

    # --- from the instance

    def received(self, data: bytes) -> None:
        if self.state == "head":
            self._buffer = data = self._buffer + data if self._buffer else data
            self._take_head(data)
        elif self.state == "body":
            self.deadline = self.proxy.now() + self.response_timeout
            self._take_body(data)
        elif self.state == "tunnel":
            self.deadline = self.proxy.now() + self.response_timeout
            self.bytes += len(data)
            self._push(data)

    def _take_head(self, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                if len(data) > MAX_HEAD:
                    self.fail(Problem.broken(f"{self._name} sent a header of more than {MAX_HEAD} bytes"))
                return
            try:
                head = Head(data[: end + 2])
            except BadMessage as error:
                self.fail(Problem.broken(f"{self._name} answered with something that is not HTTP/1.1: {error}"))
                return
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                break
            if head.status == 103 and self.request.version == "1.1":
                self._push(b"HTTP/1.1 " + head.line + head.fields + b"\r\n\r\n")
        self._buffer = b""
        self._head = head
        if head.status == 101:
            self._start_tunnel(head, data)
        else:
            self._start_body(head, data)

    def _start_body(self, head: Head, data: bytes) -> None:
        request = self.request
        self.status = head.status
        close = request.connection_close or self.channel.going
        block, self._chunked, self._close = client_head(
            head, method=request.method, version=request.version, close=close
        )
        if head.stream:
            self._become_stream()
        if head.bodiless(request.method) or head.length == 0:
            self._push(block)
            self._complete(clean=not data)
            return
        self.state = "body"
        self._left = head.length if head.length is not None else -1
        self._decoder = ChunkedDecoder() if head.chunked else None
        self._take_body(data, block)

    def _take_body(self, data: bytes, block: bytes = b"") -> None:
        """Passes on what arrived, behind the response's header if that was not sent yet."""
        done = clean = False
        try:
            if self._decoder is not None:
                pieces, used = self._decoder.feed(data)
                done, clean = self._decoder.done, used == len(data)
                data = b"".join(pieces)
            elif self._left >= 0:
                clean = len(data) <= self._left
                data = data if clean else data[: self._left]
                self._left -= len(data)
                done = self._left == 0
        except BadMessage:
            self._abort("broken chunks")
            return
        self.bytes += len(data)
        if self._chunked:
            data = block + (chunk(data) if data else b"") + (b"0\r\n\r\n" if done else b"")
        elif block:
            data = block + data
        if data:
            self._push(data)
        if done:
            self._complete(clean=clean)

    def ended(self, reason: str) -> None:
        """The instance closed its end."""
        if self.state == "head":
            self._ended_before_response(reason)
        elif self.state == "body" and self._left < 0 and self._decoder is None and not reason:
            if self._chunked:
                self._push(b"0\r\n\r\n")
            self._complete(clean=False)
        elif self.state == "tunnel":
            self._over()
            self.channel.finish(close=True)
        else:
            self._abort(reason or "the instance closed the connection in the middle of its response")

    def _ended_before_response(self, reason: str) -> None:
        assert self.upstream is not None
        reused = self.upstream.reused
        if self.request.idempotent and not self._retried and not self._buffer:
            self._retried = True
            self._drop_upstream()
            if reused or not self._untried:
                self._attempt(fresh=True)
            else:
                self._leave_backend()
                self.start()
            return
        what = "in the middle of its header" if self._buffer else "without an answer"
        self.fail(Problem.died(f"{self._name} closed the connection {what}" + (f": {reason}" if reason else "")))

    # --- tunnels and streams

    def _start_tunnel(self, head: Head, data: bytes) -> None:
        if not self.request.upgrade:
            self.fail(Problem.broken(f"{self._name} switched protocols without being asked"))
            return
        self.status, self.state = 101, "tunnel"
        self._become_stream()
        extra = b"\r\nConnection: Upgrade\r\nUpgrade: " + (head.upgrade or self.request.upgrade)
        self._push(b"HTTP/1.1 " + head.line + head.fields + extra + b"\r\n\r\n" + data)
        rest, self.request.rest = bytes(self.request.rest), bytearray()
        if rest and self.state == "tunnel":
            self.from_client(rest)
        self.proxy.loop.refresh(self.channel)

    def from_client(self, data: bytes) -> None:
        assert self.upstream is not None
        self.deadline = self.proxy.now() + self.response_timeout
        self.upstream.send(data)

    @property
    def congested(self) -> bool:
        """The instance does not take what the client sends through a tunnel."""
        return self.upstream is not None and self.upstream.backlog > HIGH_WATER

    def _become_stream(self) -> None:
        """Goes on for as long as somebody listens: no longer what a drain or the cap of requests is about."""
        assert self.backend is not None
        self.stream = True
        self.channel.keep_alive()
        self.backend.requests.discard(self)
        self.backend.streams.add(self)
        self.proxy.leave(self.app, self)
        self.app.streams.add(self)
        self.deadline = self.proxy.now() + self.response_timeout
        self.proxy.left(self.backend)

    # --- towards the client

    def _push(self, data: bytes) -> None:
        self.channel.push(data)
        if self.channel.total_outbufs_len > HIGH_WATER and self.upstream is not None:
            self.deadline = FOREVER  # the client's own time-out holds now
            self.upstream.pause()

    def client_drained(self) -> None:
        if self.upstream is not None and self.channel.total_outbufs_len <= HIGH_WATER // 2:
            if self.deadline == FOREVER:
                self.deadline = self.proxy.now() + self.response_timeout
            self.upstream.resume()

    def client_gone(self) -> None:
        if self.state != "over":
            self.status = self.status or 499
            self._over()

    # --- ends

    def _complete(self, *, clean: bool) -> None:
        upstream, head = self.upstream, self._head
        if self.state == "over" or upstream is None:
            return
        unfinished = upstream.sending or upstream.broken
        if clean and head is not None and head.persistent and not unfinished and self.proxy.options.keepalive:
            self.upstream = None
            upstream.release()
        self._over()
        self.channel.finish(close=self._close)

    def _abort(self, cause: str) -> None:
        """The response broke off, and the client can be told only by the end of its connection."""
        self._over(cause=f"{self._name}: {cause}")
        self.channel.finish(close=True)

    def fail(self, problem: Problem) -> None:
        """No response has begun: the client gets a page."""
        if self.state == "over":
            return
        self.status = problem.status
        self._over(cause=problem.cause)
        self.channel.answer(problem, self.id)

    def timed_out(self) -> None:
        if self.state == "connecting":
            self.connect_failed("no answer to a connection attempt")
        elif self.state == "head":
            seconds = f"{self.response_timeout:g} s"
            self.fail(Problem.timed_out(f"{self._name} sent nothing for {seconds}"))
        elif self.state == "tunnel":
            self._over()
            self.channel.finish(close=True)
        else:
            self._abort(f"nothing more for {self.response_timeout:g} s")

    def cut(self) -> None:
        if self.state in ("body", "tunnel"):
            self._abort("cut: the instance is being stopped")
        else:
            self.fail(Problem.died(f"{self._name} is being stopped"))

    def _over(self, cause: str = "") -> None:
        if self.state == "over":
            return
        self.state = "over"
        instance = self.backend.target.instance if self.backend else ""
        self._drop_upstream()
        self._leave_backend()
        self.proxy.leave(self.app, self)
        self.app.streams.discard(self)
        self.channel.exchange = None
        client = self.channel.client.address
        self.proxy.log.request(self.request, client, self.app.name, self.status, self.bytes, self.id, instance, cause)

    def _drop_upstream(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None

    def _leave_backend(self) -> None:
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.requests.discard(self)
            backend.streams.discard(self)
            self.proxy.left(backend)

    @property
    def _name(self) -> str:
        return self.backend.target.instance if self.backend else "the instance"


def _address(backend: Backend) -> str:
    target = backend.target
    return f"{target.host}:{target.port}" if target.port else target.host
