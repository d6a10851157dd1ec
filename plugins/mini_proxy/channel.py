"""waitress, with its extension points used: connections of clients and the sockets that accept them.

waitress accepts, reads requests (spooling bodies to disk), writes what is buffered and closes what is idle. What it
hands to a thread for a WSGI application is here handed to `Proxy.begin` in the loop; only the router's own pages,
which Flask makes, go to waitress's threads.
"""

from __future__ import annotations

import contextlib
import functools
import socket as sockets
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from mini_proxy.forward import FORWARDED, Client
from mini_proxy.loop import BROKEN, IN, OUT, Loop
from mini_proxy.problems import Problem
from mini_proxy.request import Request

if TYPE_CHECKING:
    from mini_proxy.exchange import Exchange
    from mini_proxy.proxy import Proxy

LINGER = 2.0
"""Seconds for which an answered client may go on sending a body that nobody reads: closing at once would reset the
connection and take the answer with it."""


class PageTask(WSGITask):
    """Answers with a page of the router's own."""

    def get_environment(self) -> dict[str, Any]:
        channel = cast(Channel, self.channel)
        request = cast(Request, self.request)
        request.fill_headers()
        if channel.going or request.connection_close:
            request.headers["CONNECTION"] = "close"
        environ = super().get_environment()
        relayed = any(name in FORWARDED for name, _, _ in request.fields)
        environ["mini.problem"] = channel.problem
        environ["mini.request_id"] = channel.problem_id
        environ["mini.local"] = channel.client.local and not relayed
        return environ


class Channel(HTTPChannel):
    """A client's connection."""

    task_class = PageTask
    server: Server
    # waitress's own, which its type stubs lack or have otherwise
    _flush_exception: Any
    _flush_some: Any
    requests: list[Request]
    request: Request | None
    outbufs: list[OverflowableBuffer]
    requests_lock: threading.Lock
    socket: sockets.socket | None
    _fileno: int | None

    def __init__(self, server: Server, sock: sockets.socket, addr: Any, adj: Adjustments, map: Any) -> None:  # noqa: A002
        self.exchange: Exchange | None = None
        self.problem: Problem | None = None
        self.problem_id = ""
        self.lingering_until = 0.0
        self._unread = False
        self.client = Client(addr[0], server.proxy.trusted)
        super().__init__(server, sock, addr, adj, map=map)

    @property
    def last_activity(self) -> float:
        """waitress's own measure, which a clock that is set would spoil: when it is written, so is `active_at`."""
        return self.active_at

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self.active_at = time.monotonic()

    def parser_class(self, adj: Adjustments) -> Request:  # type: ignore[override]
        return Request(adj, self.server.proxy.admit)

    @property
    def going(self) -> bool:
        """This worker is going: no further request on this connection."""
        return self.server.proxy.closing

    @property
    def local_host(self) -> bytes:
        """What a request that names no host was sent to (HTTP/1.0)."""
        host = str(self.server.effective_host)
        return (f"[{host}]" if ":" in host else host).encode()

    # --- events, in the loop

    def on_event(self, flags: int) -> None:
        if flags & (IN | BROKEN):
            self._read(broken=bool(flags & BROKEN and not flags & IN))
        if flags & OUT and self.socket is not None:
            self.handle_write()
            if self.exchange is not None:
                self.exchange.client_drained()
        if self.socket is not None:
            self.server.loop.refresh(self)

    def _read(self, *, broken: bool) -> None:
        if self.socket is None:
            return
        try:
            data = b"" if broken else self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.handle_close()
            return
        if self.lingering_until:
            return
        self.active_at = time.monotonic()
        last = self.requests[-1] if self.requests else None
        if last is None:
            self.received(data)
        elif self.exchange is not None and self.exchange.state == "tunnel":
            self.exchange.from_client(data)
        elif last.upgrade:
            last.rest += data
        elif not last.last:
            self.received(data)

    def readable(self) -> bool:
        if self.lingering_until:
            return True
        if self.will_close or self.close_when_flushed:
            return False
        exchange = self.exchange
        if exchange is not None and exchange.state == "tunnel":
            return not exchange.congested
        if self.requests and len(self.requests[-1].rest) > self.adj.recv_bytes:
            return False
        # While a request is served the client is listened to all the same, so that we see it go.
        return len(self.requests) <= 1

    def handle_write(self) -> None:
        if self._unread and self.close_when_flushed and not self.will_close:
            self._flush_exception(self._flush_some)
            if not self.total_outbufs_len and self.socket is not None:
                self._linger()
                return
        super().handle_write()

    def _linger(self) -> None:
        """Ends our half of the connection and waits for the client to end its own, as it may still be sending."""
        assert self.socket is not None
        self.close_when_flushed = False
        self.lingering_until = time.monotonic() + LINGER
        with contextlib.suppress(OSError):
            self.socket.shutdown(sockets.SHUT_WR)

    def writable(self) -> bool:
        return bool(not self.lingering_until and super().writable())

    def handle_close(self) -> None:
        exchange, self.exchange = self.exchange, None
        self.server.proxy.unpark(self)
        super().handle_close()
        if exchange is not None:
            exchange.client_gone()
        if not self.server.has_page(self):
            for request in (*self.requests, *filter(None, (self.request,))):
                request.close()
            self.requests = []

    # --- answering

    def push(self, data: bytes) -> None:
        """Sends to the client, keeping what it does not take at once."""
        if self.socket is None:
            return
        with self.outbuf_lock:
            if not self.total_outbufs_len:
                try:
                    sent = self.socket.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self.server.loop.ready.append(self.handle_close)
                    return
                if sent == len(data):
                    return
                data = data[sent:]
            self.outbufs[-1].append(data)
            self.total_outbufs_len += len(data)
        self.active_at = time.monotonic()
        self.server.loop.refresh(self)

    def finish(self, *, close: bool) -> None:
        """The response is complete: on to the next request, or to the end of the connection."""
        if self.socket is None or not self.requests:
            return
        self.active_at = time.monotonic()
        self.problem = None
        rest = bytes(self.requests[0].rest)
        with self.requests_lock:
            self.requests[0].close()
            if close:
                self.close_when_flushed = True
                self._unread = bool(rest)
                self.requests = []
            else:
                self.requests.pop(0)
                if self.requests:
                    self.server.add_task(self)
                elif self.request is not None and self.request.expect_continue and not self.sent_continue:
                    self.send_continue()
        if rest and not close:  # sent behind a request for an upgrade that the app declined
            self.received(rest)
        self.server.loop.refresh(self)

    def keep_alive(self) -> None:
        """Has the system find out whether the client is still there: nothing else may happen for a long time."""
        if self.socket is not None:
            with contextlib.suppress(OSError, AttributeError):
                self.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
                self.socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE, 60)

    def answer(self, problem: Problem, request_id: bytes) -> None:
        """With a page, made in one of waitress's threads."""
        if self.socket is None:
            return
        self.problem, self.problem_id = problem, request_id.decode("ascii")
        self._unread = self.requests[0].cut_short
        self.server.run_page(self)

    def refuse(self) -> None:
        """With waitress's own words on what is wrong with the request."""
        self._unread = True
        self.server.run_page(self)


class Server(TcpWSGIServer):
    """A listening socket, shared with the other workers. All are woken by a new connection and one gets it: waking
    only one (EPOLLEXCLUSIVE) gives most connections to the same."""

    channel_class = Channel
    adj: Adjustments
    effective_host: str

    def __init__(
        self, proxy: Proxy, app: Any, loop: Loop, sock: sockets.socket, dispatcher: ThreadedTaskDispatcher, adj: Any
    ) -> None:
        self.proxy, self.loop = proxy, loop
        self._pages: set[Channel] = set()
        info = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            app, cast(Any, loop), True, sock, dispatcher=dispatcher, adj=adj, sockinfo=info, bind_socket=False
        )

    def add_task(self, task: Any) -> None:
        """Called by waitress when a request is complete, from the loop or from the thread of a page before it."""
        self.loop.ready.append(functools.partial(self._begin, task))

    def _begin(self, channel: Channel) -> None:
        try:
            self.proxy.begin(channel)
        except Exception:
            channel.handle_close()
            raise

    def run_page(self, channel: Channel) -> None:
        self._pages.add(channel)
        super().add_task(cast(Any, channel))

    def has_page(self, channel: Channel) -> bool:
        return channel in self._pages

    def pull_trigger(self) -> None:
        """Called from threads that have written a page or a part of it."""
        self.loop.ready.append(self._refresh_pages)
        super().pull_trigger()

    def _refresh_pages(self) -> None:
        for channel in list(self._pages):
            if channel.socket is not None:
                self.loop.refresh(channel)
            if channel.socket is None or not channel.requests:
                self._pages.discard(channel)

    def channels(self) -> Collection[Channel]:
        return cast(dict[int, Channel], self.active_channels).values()

    def handle_accept(self) -> None:
        super().handle_accept()
        if self.in_connection_overflow:
            self.proxy.log.note("too many open connections: new ones wait")

    def maintenance(self, now: float) -> None:
        """Closes what has been idle, or does not get on, for too long. Called from time to time by waitress."""

    def sweep(self) -> None:
        options, clock = self.proxy.options, time.monotonic()
        for channel in list(self.channels()):
            idle = clock - channel.active_at
            if channel.lingering_until:
                expired = clock > channel.lingering_until
            elif channel.total_outbufs_len:
                expired = idle > options.client_timeout
            elif channel.requests:
                expired = False
            elif channel.request is not None:
                slow = not channel.request.headers_finished and clock - channel.request.started > options.client_timeout
                expired = slow or idle > options.client_timeout
            else:
                expired = idle > options.idle_timeout
            if expired:
                channel.handle_close()
        self._refresh_pages()
        self.loop.refresh(self)

    def stop_accepting(self) -> None:
        """Lets go of the listening socket; its other holders go on accepting."""
        if self.socket is not None:
            self.accepting = False
            self.del_channel()
            self.socket.close()
            self.socket = None
