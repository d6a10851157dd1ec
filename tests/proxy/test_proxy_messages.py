"""HTTP messages as bytes, without sockets: what is read does not depend on how it was cut into pieces."""

from __future__ import annotations

import pytest
from waitress.adjustments import Adjustments

from mini_proxy.http1 import BadMessage, ChunkedDecoder, split_fields
from mini_proxy.request import Request
from mini_proxy.response import Head, client_head

CHUNKED = b"5\r\nhello\r\n7;name=value\r\n, world\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("size", range(1, len(CHUNKED) + 1))
def test_a_chunked_body_is_the_same_however_it_arrives(size: int) -> None:
    decoder, body, used = ChunkedDecoder(), b"", 0
    data = CHUNKED + b"GET /next"
    for at in range(0, len(data), size):
        pieces, count = decoder.feed(data[at : at + size])
        body += b"".join(pieces)
        used += count
    assert (body, decoder.done, used) == (b"hello, world", True, len(CHUNKED))


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b"-1\r\n",
        b" 5\r\n",
        b"\r\n",
        b"5\nhello",
        b"5\r\nhelloX\r\n",
        b"5;\x00\r\n",
        b"f" * 16 + b"\r\n",
        b"0" * 5000,
    ],
)
def test_chunks_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        ChunkedDecoder().feed(data)


@pytest.mark.parametrize("size", range(1, 90))
def test_a_request_is_the_same_however_it_arrives(size: int) -> None:
    data = b"POST /a?b HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 5\r\nX-A: 1\r\nx-a:2\r\n\r\nhello"
    request = Request(Adjustments(), lambda request: None)
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        while piece:
            piece = piece[request.received(piece) :]
    assert request.completed and request.error is None
    assert (request.method, request.target, request.host) == (b"POST", b"/a?b", b"a.localhost")
    assert [line for _, _, line in request.fields][2:] == [b"X-A: 1", b"x-a:2"]
    assert request.get_body_stream().getvalue() == b"hello"


def test_header_lines_keep_their_order_and_case() -> None:
    block = b"B: 1\r\na:  2 \r\nB:\r\n"
    assert split_fields(block) == [(b"b", b"1", b"B: 1"), (b"a", b"2", b"a:  2 "), (b"b", b"", b"B:")]


@pytest.mark.parametrize(
    ("head", "method", "version", "expected"),
    [
        (b"Content-Length: 3\r\n", b"GET", "1.1", (b"Content-Length: 3", False, False)),
        (b"Transfer-Encoding: chunked\r\n", b"GET", "1.1", (b"Transfer-Encoding: chunked", True, False)),
        (b"Transfer-Encoding: chunked\r\n", b"GET", "1.0", (b"Connection: close", False, True)),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"GET", "1.1", (b"chunked", True, False)),
        (b"", b"GET", "1.1", (b"Transfer-Encoding: chunked", True, False)),
        (b"", b"GET", "1.0", (b"Connection: close", False, True)),
        (b"Content-Length: 3\r\n", b"HEAD", "1.1", (b"Content-Length: 3", False, False)),
        (b"Content-Length: 3\r\n", b"GET", "1.0", (b"Connection: keep-alive", False, False)),
    ],
)
def test_a_body_is_framed_as_the_client_understands(
    head: bytes, method: bytes, version: str, expected: tuple[bytes, bool, bool]
) -> None:
    block, chunked, close = client_head(
        Head(b"HTTP/1.1 200 OK\r\n" + head), method=method, version=version, close=False
    )
    assert expected[0] in block and (chunked, close) == expected[1:]
    assert block.count(b"Content-Length") + block.count(b"Transfer-Encoding") <= 1


def test_a_response_says_when_its_connection_can_be_used_again() -> None:
    assert Head(b"HTTP/1.1 200 OK\r\n").persistent
    assert not Head(b"HTTP/1.1 200 OK\r\nConnection: Close\r\n").persistent
    assert not Head(b"HTTP/1.0 200 OK\r\n").persistent
    assert Head(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n").persistent


def test_the_plugin_checks_what_it_builds_on() -> None:
    from mini_proxy import ProxyPlugin

    checks = [check for run in ProxyPlugin().mini_doctor() for check in run()]
    assert {check.name for check in checks} == {"router: waitress", "router: open files"}
    assert checks[0].state == "ok"
