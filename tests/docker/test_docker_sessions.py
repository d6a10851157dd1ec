"""The files and secrets that BuildKit asks for, over a real engine's session and over a socket."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded, TrailersReceived

from mini_core.errors import BuildError
from mini_core.testing import RecordingJob, until, write_files
from mini_core.types import Dockerfile, Plan, Step, replace
from mini_docker import buildkit, context, filesync, protobuf
from mini_docker.rpc import Server, unary
from mini_docker.session import session

from .conftest import FILES, PYTHON, DockerPlatform

Sources = Callable[[dict[str, str]], Path]

OWN = Plan(buildpack="dockerfile", dockerfile=Dockerfile())
BARE = replace(PYTHON, steps=(), bin=())


# --- with an engine -------------------------------------------------------------------------------------------------


def transferred(platform: DockerPlatform, source: Path) -> int:
    """Bytes that the engine says it took for the build context."""
    files = context.Files(
        entries=context.source_entries(source, ()),
        dockerfile=context.own("Dockerfile", "FROM debian:bookworm-slim\nCOPY . /app/\n"),
        secrets={},
    )
    loading, seen = set[str](), 0
    with session(platform.engine, f"{platform.id}-sent", files) as name:
        asked = {"version": "2", "remote": "client-session", "session": name, "t": f"{platform.id}:sent"}
        asked["labels"] = f'{{"mini.platform": "{platform.id}"}}'
        for item in platform.engine.stream("/build", asked, RecordingJob(60)):
            assert "error" not in item, item
            if item.get("id") == "moby.buildkit.trace":
                status = buildkit.decode(base64.b64decode(item["aux"]))
                loading |= {vertex.digest for vertex in status.vertexes if "load build context" in vertex.name}
                seen = max([seen, *(p.current for p in status.progress if p.vertex in loading)])
    return seen


@pytest.mark.docker
def test_only_what_has_changed_since_the_last_build_is_sent(platform: DockerPlatform, tmp_path: Path) -> None:
    big = random.Random(4).randbytes(3_000_000)
    write_files(tmp_path, {"app.py": "1\n", "deep/er/page.html": "<p>\n"})
    (tmp_path / "big.bin").write_bytes(big)
    assert transferred(platform, tmp_path) > len(big)
    (tmp_path / "app.py").write_text("2\n")
    assert transferred(platform, tmp_path) < 10_000
    platform.engine.api.remove_image(f"{platform.id}:sent")


@pytest.mark.docker
def test_everything_arrives_as_it_is(platform: DockerPlatform, tmp_path: Path) -> None:
    """Large files through the other side's windows, links, programs, names of any kind, empty folders."""
    data = random.Random(5).randbytes(20_000_000)
    write_files(tmp_path, {"a/b.txt": "b", "a.txt": "a", "a-b/c": "c", "é ü/ñ": "n", "zero": ""})
    (tmp_path / "empty").mkdir()
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "link").symlink_to("a/b.txt")
    (tmp_path / "run").write_text("#!/bin/sh\necho it ran\n")
    (tmp_path / "run").chmod(0o755)
    look = "sha256sum data; readlink link; cat link 'é ü/ñ'; ./run; test -d empty -a ! -s zero && echo whole"
    plan = replace(BARE, steps=(Step(name="look", argv=("sh", "-c", look), env={"RUN": platform.id}),))
    _, job = platform.build(plan, tmp_path)
    told = [line for kind, line in job.lines if kind == "output"]
    assert told == [f"{hashlib.sha256(data).hexdigest()}  data", "a/b.txt", "bnit ran", "whole"]


@pytest.mark.docker
def test_a_changed_build_variable_runs_its_steps_again(platform: DockerPlatform, make_source: Sources) -> None:
    uses = Step(name="use it", argv=("sh", "-c", "echo ${#TOKEN} letters"), env={"RUN": platform.id})
    plan = replace(BARE, steps=(uses,))
    source = make_source(FILES)
    assert "12 letters" in platform.build(plan, source, TOKEN="first-secret")[1].text()
    assert "use it (cached)" in platform.build(plan, source, TOKEN="first-secret")[1].text()
    assert "13 letters" in platform.build(plan, source, TOKEN="second-secret")[1].text()


@pytest.mark.docker
def test_the_repositorys_own_dockerfile_may_mount_build_variables(
    platform: DockerPlatform, make_source: Sources
) -> None:
    run = f"RUN --mount=type=secret,id=TOKEN echo {platform.id}; echo $(wc -c < /run/secrets/TOKEN) letters"
    source = make_source({"Dockerfile": f"FROM debian:bookworm-slim\n{run}\n"})
    image, job = platform.build(OWN, source, TOKEN="sesame-4711")
    assert "11 letters" in job.text()
    assert "sesame" not in str(platform.engine.api.history(image.ref))
    with pytest.raises(BuildError, match=r"build variables \(OTHER\)"):
        platform.build(OWN, source, TOKEN="sesame-4711", OTHER="not mounted")


# --- the protocol by itself -----------------------------------------------------------------------------------------


class Caller:
    """The engine's side of a session."""

    def __init__(self, sock: socket.socket) -> None:
        self.http, self.sock = H2Connection(H2Configuration(header_encoding="utf-8")), sock
        self.http.initiate_connection()

    def call(self, method: str, *messages: bytes, window: int | None = None) -> tuple[list[bytes], dict[str, str]]:
        """The answers, and how the call ended. window: bytes that may be on their way."""
        if window:
            self.http.update_settings({4: window})
        stream = self.http.get_next_available_stream_id()
        names = [(":method", "POST"), (":scheme", "http"), (":authority", ""), (":path", method), ("te", "trailers")]
        self.http.send_headers(stream, names)
        for message in messages:
            self.http.send_data(stream, b"\0" + len(message).to_bytes(4) + message)
        self.http.end_stream(stream)
        data, trailers = bytearray(), {}
        for event in self._events():
            if isinstance(event, DataReceived):
                data += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                trailers = dict(event.headers)
            elif isinstance(event, StreamEnded):
                break
        return list(_messages(bytes(data))), trailers

    def _events(self) -> Iterator[Event]:
        while True:
            self.sock.sendall(self.http.data_to_send())
            yield from self.http.receive_data(self.sock.recv(65536))


def _messages(data: bytes) -> Iterator[bytes]:
    while data:
        length = int.from_bytes(data[1:5])
        yield data[5 : 5 + length]
        data = data[5 + length :]


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    entries = context.source_entries(tmp_path, ())

    def broken(message: bytes) -> bytes:
        raise KeyError(message.decode())

    ours, theirs = socket.socketpair()
    handlers = {
        "/echo": unary(lambda message: message[::-1]),
        "/broken": unary(broken),
        "/files": lambda _, messages: filesync.send(entries, messages),
    }
    thread = threading.Thread(target=Server(lambda: ours.recv(65536), ours.sendall, handlers).serve)
    thread.start()
    with ours, theirs:
        theirs.settimeout(10)
        yield Caller(theirs)
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive()
    until(lambda: not [t for t in threading.enumerate() if t.name == "buildkit-call"], what="the end of all calls")


def test_calls_are_answered_one_after_the_other(caller: Caller) -> None:
    assert caller.call("/echo", b"abc") == ([b"cba"], {"grpc-status": "0", "grpc-message": ""})
    assert caller.call("/echo", b"def")[0] == [b"fed"]


def test_what_is_not_there_or_breaks_ends_its_call_and_no_other(caller: Caller) -> None:
    assert caller.call("/nothing", b"") == ([], {"grpc-status": "12", "grpc-message": "there is no method /nothing"})
    assert caller.call("/broken", b"why")[1] == {"grpc-status": "2", "grpc-message": "'why'"}
    assert caller.call("/echo", b"abc")[0] == [b"cba"]


def test_a_file_waits_for_the_room_that_the_other_side_has(caller: Caller) -> None:
    packets, ended = caller.call("/files", protobuf.encode({1: 1}), protobuf.encode({1: 3}), window=20_000)
    assert ended["grpc-status"] == "0"
    told = [protobuf.known(packet) for packet in packets]
    assert [numbers.get(1, 0) for numbers, _ in told[:2]] == [0, 0], "the one file, and the end of the list"
    assert len(b"".join(texts.get(4, b"") for _, texts in told[2:-1])) == 300_000
    assert told[-1] == ({1: 3}, {})


def test_a_caller_that_goes_away_leaves_nothing_behind(caller: Caller) -> None:
    caller.http.update_settings({4: 10})
    stream = caller.http.get_next_available_stream_id()
    caller.http.send_headers(
        stream, [(":method", "POST"), (":scheme", "http"), (":authority", ""), (":path", "/files")]
    )
    caller.sock.sendall(caller.http.data_to_send())
    assert caller.sock.recv(10), "it has begun, and the fixture ends it"
