"""The contract of what starts instances."""

from __future__ import annotations

import http.client
import io
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from mini_core.errors import NotFound
from mini_core.interfaces import Runtime
from mini_core.testing.helpers import RecordingJob, until
from mini_core.types import (
    Endpoint,
    Image,
    InstanceSpec,
    InstanceStatus,
    Plan,
    Secret,
    Volume,
    replace,
)

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
        assert wanted.endpoint is not None
        if (found := runtime.listening(wanted.id)) is not None:
            assert wanted.endpoint.port in [item.port for item in found]
        runtime.remove(wanted.id)
        assert not runtime.listening(wanted.id)

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
