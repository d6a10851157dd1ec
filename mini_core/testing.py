"""The kit for plugin authors: contract tests for everything that a plugin can provide.

Subclass the contract in your tests and define the fixtures that it names; pytest collects the rest:

    from mini_core.testing import BuildpackContract

    class TestPhp(BuildpackContract):
        @pytest.fixture
        def buildpack(self):
            return PhpBuildpack()

        @pytest.fixture
        def recognised(self):
            return {"index.php": "<?php echo 'hi';"}

mini's own plugins pass the same contracts.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import os
import socket
import sys
import tarfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mini_core.errors import BuildError, Cancelled, MiniError, NotFound
from mini_core.interfaces import Builder, Buildpack, BuildRequest, Job, LogSink, Router, Runtime
from mini_core.sources import FolderSource, MemorySource, TarSource
from mini_core.types import (
    BuildSettings,
    Endpoint,
    Image,
    InstanceSpec,
    InstanceStatus,
    LogLine,
    Offer,
    Plan,
    Route,
    RouterSettings,
    RouteTable,
    Secret,
    Step,
    Target,
    Volume,
    decode,
    encode,
)

Files = Mapping[str, str]


class RecordingJob(Job):
    """A job that keeps what is said to it. seconds: until its deadline."""

    def __init__(self, seconds: float = 120.0) -> None:
        self.deadline = time.monotonic() + seconds
        self.cancelled = threading.Event()
        self.lines: list[tuple[str, str]] = []

    def emit(self, line: str, *, kind: str = "output") -> None:
        self.lines.append((kind, line))

    def check(self) -> None:
        if self.cancelled.is_set() or time.monotonic() > self.deadline:
            raise Cancelled("cancelled")

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


def until(condition: Callable[[], Any], *, seconds: float = 20.0, what: str = "the condition") -> Any:
    """The first true answer of `condition`, asked often. Fails after `seconds`: for states without an event."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


def write_files(folder: Path, files: Files) -> Path:
    """Writes path → text below the folder."""
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), "utf-8")
    return folder


def tar_of(files: Files, target: Path) -> Path:
    """A tar.gz of path → text."""
    with tarfile.open(target, "w:gz") as tar:
        for name, text in files.items():
            data = textwrap.dedent(text).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- purity ----------------------------------------------------------------------------------------------------

_forbidding = threading.local()
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IMPURE = {"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind"}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not getattr(_forbidding, "on", False):
        return
    if event in _IMPURE or event in {"os.remove", "os.mkdir", "os.rename", "shutil.rmtree"}:
        raise AssertionError(f"{event}{arguments!r}: not while detecting")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
        raise AssertionError(f"opened {arguments[0]} for writing: not while detecting")


_audit_installed = False


@contextlib.contextmanager
def pure() -> Iterator[None]:
    """Fails at any process, connection or write that this thread makes inside it."""
    global _audit_installed
    if not _audit_installed:
        sys.addaudithook(_audit)
        _audit_installed = True
    _forbidding.on = True
    try:
        yield
    finally:
        _forbidding.on = False


# --- buildpack -------------------------------------------------------------------------------------------------


class BuildpackContract:
    """Fixtures: `buildpack`, and `recognised`, the files (path → text) of an app that it takes."""

    @pytest.fixture
    def buildpack(self) -> Buildpack:
        raise NotImplementedError("define the fixture `buildpack`")

    @pytest.fixture
    def recognised(self) -> Files:
        raise NotImplementedError("define the fixture `recognised`")

    @staticmethod
    def _offer(buildpack: Buildpack, source: Any) -> Offer:
        offer = buildpack.detect(source, BuildSettings())
        assert offer is not None, f"{buildpack.name} does not recognise the example"
        return offer

    def test_it_has_a_name_and_says_what_it_looks_for(self, buildpack: Buildpack) -> None:
        assert buildpack.name == buildpack.name.lower().strip()
        assert buildpack.description

    def test_the_plan_is_the_same_from_memory_folder_and_tar_and_the_second_time(
        self, buildpack: Buildpack, recognised: Files, tmp_path: Path
    ) -> None:
        files = {name: textwrap.dedent(text).encode() for name, text in recognised.items()}
        memory = MemorySource(files)
        folder = FolderSource(write_files(tmp_path / "app", recognised))
        with TarSource(tar_of(recognised, tmp_path / "app.tar.gz")) as tar:
            offers = [self._offer(buildpack, source) for source in (memory, folder, tar, memory)]
        assert all(offer == offers[0] for offer in offers)

    def test_detection_opens_no_connection_starts_no_process_and_writes_nothing(
        self, buildpack: Buildpack, recognised: Files
    ) -> None:
        source = MemorySource({name: textwrap.dedent(text).encode() for name, text in recognised.items()})
        self._offer(buildpack, source)  # imports that happen at first use are done now
        with pure():
            self._offer(buildpack, source)

    def test_an_empty_source_and_a_stranger_are_left_to_others(self, buildpack: Buildpack) -> None:
        assert buildpack.detect(MemorySource({}), BuildSettings()) is None
        assert buildpack.detect(MemorySource({"notes.txt": b"nothing to run"}), BuildSettings()) is None

    def test_the_plan_is_data_that_survives_storage_and_names_no_absolute_path(
        self, buildpack: Buildpack, recognised: Files
    ) -> None:
        source = MemorySource({name: textwrap.dedent(text).encode() for name, text in recognised.items()})
        plan = self._offer(buildpack, source).plan
        assert decode(Plan, encode(plan)) == plan
        assert plan.buildpack == buildpack.name
        paths = [*plan.artifacts, *plan.bin, *itertools.chain(*(step.files for step in plan.steps))]
        assert not [path for path in paths if path.startswith("/") or ".." in path.split("/")]
        assert plan.processes or plan.static or plan.dockerfile or plan.warnings
        assert all(step.argv and step.name for step in plan.steps)


# --- builder ---------------------------------------------------------------------------------------------------


class BuilderContract:
    """Fixtures: `builder`; `plan`, which it can carry out for `files` (path → text), with at least one step that
    runs in the whole source, and a `python3` on PATH while it builds."""

    @pytest.fixture
    def builder(self) -> Builder:
        raise NotImplementedError("define the fixture `builder`")

    @pytest.fixture
    def plan(self) -> Plan:
        raise NotImplementedError("define the fixture `plan`")

    @pytest.fixture
    def files(self) -> Files:
        raise NotImplementedError("define the fixture `files`")

    @pytest.fixture
    def request_for(self, files: Files, tmp_path: Path) -> Callable[..., BuildRequest]:
        def make(plan: Plan, **env: str) -> BuildRequest:
            name = uuid.uuid4().hex[:8]
            source = write_files(tmp_path / name, files)
            secrets = {key: Secret(text) for key, text in env.items()}
            labels = {"mini.platform": "contract", "mini.app": "contract"}
            return BuildRequest(id=name, app="contract", plan=plan, source=source, build_env=secrets, labels=labels)

        return make

    def test_a_build_gives_an_image_that_exists_until_it_is_removed(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        image = builder.build(request_for(plan), RecordingJob())
        assert image.kind == builder.produces
        assert image.builder == builder.name
        assert builder.exists(image)
        builder.remove(image)
        assert not builder.exists(image)
        builder.remove(image)

    def test_an_exported_image_comes_back_as_one_of_its_own(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        image = builder.build(request_for(plan), RecordingJob())
        copy = builder.import_(image, builder.export(image), app="contract-copy")
        try:
            assert copy.ref != image.ref
            builder.remove(image)
            assert builder.exists(copy)
            with pytest.raises(NotFound):
                list(builder.export(image))
        finally:
            builder.remove(copy)
        assert not builder.exists(copy)

    def test_a_failing_step_is_named_with_its_last_lines(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        script = "import sys; print('about to fail'); sys.exit(3)"
        broken = replace(plan, steps=(*plan.steps, Step(name="compile", argv=("python3", "-c", script))))
        with pytest.raises(BuildError) as caught:
            builder.build(request_for(broken), RecordingJob())
        assert caught.value.step == "compile"
        assert any("about to fail" in line for line in caught.value.tail)
        assert caught.value.hint

    def test_output_reaches_the_user_line_by_line_while_the_step_still_runs(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        script = "import time; print('first', flush=True); time.sleep(60)"
        slow = replace(plan, steps=(*plan.steps, Step(name="slow", argv=("python3", "-c", script))))
        job = RecordingJob()
        threading.Thread(target=self._cancel_once_seen, args=(job, "first"), daemon=True).start()
        with pytest.raises((Cancelled, BuildError)):
            builder.build(request_for(slow), job)
        assert job.cancelled.is_set(), "the line never came"

    def test_a_cancelled_build_stops_within_five_seconds(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        script = "import time; print('first', flush=True); time.sleep(60)"
        slow = replace(plan, steps=(*plan.steps, Step(name="slow", argv=("python3", "-c", script))))
        job = RecordingJob()
        cancelled_at: list[float] = []

        def cancel() -> None:
            self._cancel_once_seen(job, "first")
            cancelled_at.append(time.monotonic())

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        with pytest.raises(Cancelled):
            builder.build(request_for(slow), job)
        thread.join()
        assert time.monotonic() - cancelled_at[0] < 5

    @staticmethod
    def _cancel_once_seen(job: RecordingJob, text: str) -> None:
        until(lambda: any(line.strip() == text for _, line in list(job.lines)), seconds=60, what=text)
        job.cancelled.set()


# --- runtime ---------------------------------------------------------------------------------------------------

SERVER = """
import http.server, os, signal, sys, time
if len(sys.argv) > 1 and sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), os._exit(7)))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("GREETING", "hello").encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((os.environ.get("HOST", ""), int(os.environ["PORT"])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


class RuntimeContract:
    """Fixtures: `make_runtime`, which gives a new runtime object for the same platform at each call and cleans the
    platform up afterwards; `image`, with a `python3` on PATH."""

    @pytest.fixture
    def make_runtime(self) -> Callable[[], Runtime]:
        raise NotImplementedError("define the fixture `make_runtime`")

    @pytest.fixture
    def image(self) -> Image:
        raise NotImplementedError("define the fixture `image`")

    @pytest.fixture
    def runtime(self, make_runtime: Callable[[], Runtime]) -> Runtime:
        return make_runtime()

    @pytest.fixture
    def spec(self, runtime: Runtime, image: Image) -> Iterator[Callable[..., InstanceSpec]]:
        made: list[str] = []

        def make(*arguments: str, script: str = SERVER, **env: str) -> InstanceSpec:
            endpoint = runtime.allocate(())
            host = endpoint.host if endpoint.host.startswith("127.") else "0.0.0.0"
            made.append(f"contract-{uuid.uuid4().hex[:8]}")
            variables = {"PORT": str(endpoint.port), "HOST": host, **env}
            return InstanceSpec(
                id=made[-1],
                app="contract",
                release=1,
                process="web",
                image=image,
                plan=Plan(buildpack="contract"),
                command=("python3", "-c", script, *arguments),
                env={name: Secret(text) for name, text in variables.items()},
                endpoint=endpoint,
                labels={"mini.app": "contract", "mini.release": "1", "mini.process": "web", "mini.instance": made[-1]},
            )

        yield make
        for instance in made:
            runtime.remove(instance)

    @staticmethod
    def _get(status: InstanceStatus) -> str:
        assert status.endpoint
        connection = http.client.HTTPConnection(status.endpoint.host, status.endpoint.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def _answering(self, runtime: Runtime, spec: InstanceSpec) -> InstanceStatus:
        status = runtime.start(spec, RecordingJob())
        until(lambda: self._get(status), what="an answer at the endpoint")
        return status

    @staticmethod
    def _ended(runtime: Runtime, instance: str) -> InstanceStatus:
        status = runtime.wait(instance, 20)
        assert status is not None, "it did not end"
        return status

    def test_an_instance_answers_at_its_endpoint_with_the_environment_it_was_given(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        status = self._answering(runtime, spec(GREETING="good morning"))
        assert self._get(status) == "good morning"

    def test_starting_the_same_id_again_adopts_what_runs(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        wanted = spec()
        first = self._answering(runtime, wanted)
        second = runtime.start(wanted, RecordingJob())
        assert second.started_at == first.started_at
        assert [item.id for item in runtime.list()].count(wanted.id) == 1

    def test_a_new_controller_finds_it_and_can_stop_it(
        self, make_runtime: Callable[[], Runtime], runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        wanted = spec()
        self._answering(runtime, wanted)
        other = make_runtime()
        found = {item.id: item for item in other.list()}[wanted.id]
        assert (found.app, found.release, found.process, found.state) == ("contract", 1, "web", "running")
        assert found.endpoint == wanted.endpoint
        other.stop(wanted.id, grace=10)
        assert self._ended(other, wanted.id).state == "exited"

    def test_sigterm_comes_first_and_the_exit_code_is_kept(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        wanted = spec()
        self._answering(runtime, wanted)
        runtime.stop(wanted.id, grace=10)
        assert self._ended(runtime, wanted.id).exit_code == 7
        runtime.stop(wanted.id, grace=10)

    def test_what_ignores_sigterm_is_killed_after_its_grace(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        wanted = spec("stubborn")
        self._answering(runtime, wanted)
        started = time.monotonic()
        runtime.stop(wanted.id, grace=1)
        assert self._ended(runtime, wanted.id).exit_code == 137
        assert 0.5 < time.monotonic() - started < 8

    def test_the_last_words_of_a_crashed_instance_are_readable(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        script = "import sys; print('on stdout', flush=True); sys.exit('last words')"
        wanted = spec(script=script)
        runtime.start(wanted, RecordingJob())
        assert self._ended(runtime, wanted.id).exit_code == 1
        lines = {line.text: line.stream for line in runtime.logs(wanted.id)}
        assert lines == {"on stdout": "stdout", "last words": "stderr"}

    def test_it_says_where_the_instance_listens(self, runtime: Runtime, spec: Callable[..., InstanceSpec]) -> None:
        wanted = spec()
        self._answering(runtime, wanted)
        status = runtime.status(wanted.id)
        assert status is not None and wanted.endpoint is not None
        if status.listening is not None:
            assert wanted.endpoint.port in [item.port for item in status.listening]

    def test_following_logs_gives_lines_as_they_come_and_ends_when_it_is_removed(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        wanted = spec()
        self._answering(runtime, wanted)
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(x.text for x in runtime.logs(wanted.id, follow=True)))
        thread.start()
        runtime.stop(wanted.id, grace=10)
        self._ended(runtime, wanted.id)
        until(lambda: "bye" in [x.text for x in runtime.logs(wanted.id)], what="the last line")
        runtime.remove(wanted.id)
        thread.join(20)
        assert not thread.is_alive()
        assert lines == ["ready", "bye"]

    def test_a_one_off_gets_its_input_and_passes_its_exit_code(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        if "exec" not in runtime.abilities:
            pytest.skip("this runtime runs no one-offs")
        script = "import sys; print(sys.stdin.read().upper(), end=''); sys.exit(5)"
        wanted = replace(spec(script=script), kind="oneoff", process="run", endpoint=None, stdin=True)
        command = runtime.attach(wanted, RecordingJob())
        command.write(b"quiet")
        command.close_stdin()
        output = b"".join(data for stream, data in command.output() if stream == "stdout")
        assert output == b"QUIET"
        assert command.wait() == 5
        command.close()

    def test_removing_is_idempotent_and_leaves_nothing(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        wanted = spec()
        self._answering(runtime, wanted)
        runtime.remove(wanted.id)
        runtime.remove(wanted.id)
        assert runtime.status(wanted.id) is None
        assert wanted.id not in [item.id for item in runtime.list()]

    def test_allocated_addresses_are_none_of_those_taken(self, runtime: Runtime) -> None:
        taken: set[Endpoint] = set()
        for _ in range(20):
            taken.add(runtime.allocate(taken))
        assert len(taken) == 20
        assert all(endpoint.host not in ("0.0.0.0", "::") for endpoint in taken)

    def test_a_volume_is_copied_with_its_modes_and_links_to_another_app(
        self, runtime: Runtime, spec: Callable[..., InstanceSpec]
    ) -> None:
        if "volumes" not in runtime.abilities:
            pytest.skip("this runtime has no volumes")
        script = (
            "import os; os.chdir('/app/data' if os.path.isdir('/app/data') else 'data'); os.makedirs('deep', 0o700); "
            "open('deep/file', 'w').write('kept'); os.chmod('deep/file', 0o640); os.symlink('deep/file', 'link')"
        )
        volume = Volume(name="data", target="/app/data")
        wanted = replace(spec(script=script), kind="oneoff", process="run", endpoint=None, volumes=(volume,))
        runtime.start(wanted, RecordingJob())
        ended = self._ended(runtime, wanted.id)
        assert ended.exit_code == 0, [line.text for line in runtime.logs(wanted.id)]
        try:
            runtime.import_volume("contract-copy", "data", runtime.export_volume("contract", "data"))
            entries = self._entries(runtime.export_volume("contract-copy", "data"))
            assert entries["deep/file"] == (0o640, "", b"kept")
            assert entries["deep"][0] == 0o700
            assert entries["link"][1] == "deep/file"
        finally:
            runtime.remove(wanted.id)
            runtime.destroy("contract-copy")
            runtime.remove_volume("contract", "data")
        with pytest.raises(NotFound):
            list(runtime.export_volume("contract", "data"))

    @staticmethod
    def _entries(chunks: Iterator[bytes]) -> dict[str, tuple[int, str, bytes]]:
        """Name → mode, link target, content."""
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            found = {}
            for info in tar:
                content = tar.extractfile(info) if info.isreg() else None
                name = info.name.removeprefix("./")
                found[name] = (info.mode & 0o777, info.linkname, content.read() if content else b"")
            return found

    def test_destroying_an_app_removes_all_of_it(self, runtime: Runtime, spec: Callable[..., InstanceSpec]) -> None:
        wanted = spec()
        self._answering(runtime, wanted)
        runtime.destroy("contract")
        runtime.destroy("contract")
        assert [item for item in runtime.list() if item.app == "contract"] == []


# --- router ----------------------------------------------------------------------------------------------------


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


# --- log sink --------------------------------------------------------------------------------------------------


class LogSinkContract:
    """Fixtures: `sink`, and `received`, which gives the texts that arrived where the sink writes to."""

    @pytest.fixture
    def sink(self) -> LogSink:
        raise NotImplementedError("define the fixture `sink`")

    @pytest.fixture
    def received(self) -> Callable[[], Sequence[str]]:
        raise NotImplementedError("define the fixture `received`")

    def test_every_line_of_a_batch_arrives_once_and_in_order(
        self, sink: LogSink, received: Callable[[], Sequence[str]]
    ) -> None:
        texts = [f"line {number} ä€\u2028" for number in range(50)]
        sink.write([LogLine(at=float(n), app="blog", source="app", text=text) for n, text in enumerate(texts)])
        sink.write([])
        sink.close()
        assert list(received()) == texts

    def test_closing_twice_is_no_error(self, sink: LogSink) -> None:
        sink.close()
        sink.close()


# --- clean-up --------------------------------------------------------------------------------------------------


class DestroyContract:
    """For plugins that implement `mini_app_destroy`. Fixtures: `plugin`; `create(app)`, which makes what the plugin
    keeps for an app; `leftovers(app)`, which lists it."""

    @pytest.fixture
    def plugin(self) -> Any:
        raise NotImplementedError("define the fixture `plugin`")

    @pytest.fixture
    def create(self) -> Callable[[str], None]:
        raise NotImplementedError("define the fixture `create`")

    @pytest.fixture
    def leftovers(self) -> Callable[[str], Sequence[str]]:
        raise NotImplementedError("define the fixture `leftovers`")

    def test_destroying_twice_leaves_nothing_of_the_app_and_all_of_the_others(
        self, plugin: Any, create: Callable[[str], None], leftovers: Callable[[str], Sequence[str]]
    ) -> None:
        create("blog")
        create("shop")
        plugin.mini_app_destroy(app="blog")
        plugin.mini_app_destroy(app="blog")
        assert not leftovers("blog")
        assert leftovers("shop")
