"""The parts of the plugin that need no engine: versions and images, BuildKit's messages, JSON of containers, logs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mini_core.errors import PlanError
from mini_core.testing import RecordingJob
from mini_core.types import Endpoint, Image, InstanceSpec, Limits, Plan, Secret, Toolchain, Volume
from mini_docker import buildkit, containers, machine, network, protobuf
from mini_docker.failures import argument_hint, exit_code, explain, shorten
from mini_docker.images import candidates
from mini_docker.logs import lines
from mini_docker.narration import BuildkitNarrator
from mini_docker.runtime import _not_started

# --- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version", "first", "exact"),
    [
        ("python", "", "python:3.13-slim", True),
        ("python", "3.12", "python:3.12-slim", True),
        ("python", ">=3.10,<4", "python:3.13-slim", True),
        ("python", "<3.12", "python:3.11-slim", True),
        ("python", "^3.14", "python:3.15-slim", True),
        ("python", "3.11.4", "python:3.11.4-slim", True),
        ("python", "2.7", "python:2.7-slim", True),
        ("node", "", "node:24-slim", True),
        ("node", "^20", "node:20-slim", True),
        ("node", "20.x", "node:20-slim", True),
        ("node", ">=18 <23", "node:22-slim", True),
        ("node", ">=18", "node:24-slim", True),
        ("node", "lts/*", "node:24-slim", True),
        ("node", "lts/iron", "node:20-slim", True),
        ("node", "~20.9.1", "node:20.9.1-slim", True),
        ("go", "", "debian:bookworm-slim", True),
        ("debian", "trixie", "debian:trixie-slim", True),
        ("ruby", "3.4", "ruby:3.4", True),
    ],
)
def test_a_version_becomes_its_public_image(name: str, version: str, first: str, exact: bool) -> None:
    found = candidates(Toolchain(name=name, version=version), {})[0]
    assert (found.run, found.exact) == (first, exact)


def test_go_takes_the_minor_that_is_asked_for_then_newer_ones() -> None:
    found = [item.build for item in candidates(Toolchain(name="go", version="1.25.1"), {})]
    assert found == ["golang:1.25-bookworm", "golang:1.26-bookworm", "golang:1.27-bookworm"]


def test_an_exact_pin_falls_back_to_what_promises_to_be_compatible() -> None:
    python = candidates(Toolchain(name="python", version="3.11.4"), {})
    assert [(item.run, item.exact) for item in python] == [("python:3.11.4-slim", True), ("python:3.11-slim", False)]
    node = candidates(Toolchain(name="node", version="20.11.1"), {})
    assert [item.run for item in node] == ["node:20.11.1-slim", "node:20-slim"]


def test_images_that_are_there_extend_the_table() -> None:
    found = candidates(Toolchain(name="python", version=">=3.99"), {}, ["python:3.99-slim", "python:3.13-slim"])
    assert found[0].run == "python:3.99-slim"


def test_the_servers_images_override_a_toolchain_or_one_version_of_it() -> None:
    wanted = Toolchain(name="python", version="3.12")
    assert candidates(wanted, {"python:3.12": "mine:3.12"})[0].build == "mine:3.12"
    assert candidates(wanted, {"python": "mine:any"})[0].run == "mine:any"
    assert candidates(Toolchain(name="ruby", version="3"), {"ruby:3": "mine:ruby"})[0].run == "mine:ruby"


def test_a_range_that_means_nothing_is_refused() -> None:
    with pytest.raises(PlanError):
        candidates(Toolchain(name="node", version="the new one"), {})


# --- BuildKit's messages --------------------------------------------------------------------------------------------


def field(number: int, item: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(item, int):
        return varint(number << 3) + varint(item)
    return varint(number << 3 | 2) + varint(len(item)) + item


def varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def test_a_status_is_read_with_its_vertexes_output_and_progress() -> None:
    vertex = field(1, b"sha256:a") + field(2, b"sha256:input") + field(3, "[build 2/3] RUN é".encode()) + field(4, 1)
    vertex += field(5, field(1, 1795499616)) + field(6, field(1, 1795499617)) + field(7, b"exit code: 3")
    log = field(1, b"sha256:a") + field(2, field(1, 5)) + field(3, 2) + field(4, b"half a li")
    progress = field(1, b"layer") + field(2, b"sha256:a") + field(4, 300) + field(5, 70_000_000_000)
    status = buildkit.decode(field(1, vertex) + field(2, progress) + field(3, log) + field(99, b"from the future"))
    assert status.vertexes == (
        buildkit.Vertex(
            digest="sha256:a",
            name="[build 2/3] RUN é",
            cached=True,
            started=1795499616.0,
            completed=1795499617.0,
            error="exit code: 3",
        ),
    )
    assert status.output == (buildkit.Output(vertex="sha256:a", stream=2, data=b"half a li"),)
    assert (status.progress[0].current, status.progress[0].total) == (300, 70_000_000_000)


def test_fields_of_every_wire_type_are_skipped_when_unknown() -> None:
    fixed = varint(20 << 3 | 1) + bytes(8) + varint(21 << 3 | 5) + bytes(4) + field(22, 2**63)
    assert [number for number, _ in protobuf.fields(fixed)] == [20, 21, 22]
    assert buildkit.decode(fixed + field(3, field(4, b"x"))).output[0].data == b"x"


@pytest.mark.parametrize("message", [b"\x0a\x05abc", b"\x80", b"\x0b", b"\xff" * 12])
def test_what_is_cut_off_or_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(protobuf.fields(message))


def test_what_is_encoded_reads_back_and_what_is_empty_is_left_out() -> None:
    message = protobuf.encode({1: "é", 2: 0, 3: 300, 4: b"", 5: b"\0\xff", 6: 2**40})
    assert list(protobuf.fields(message)) == [(1, "é".encode()), (3, 300), (5, b"\0\xff"), (6, 2**40)]
    assert protobuf.known(message) == ({3: 300, 6: 2**40}, {1: "é".encode(), 5: b"\0\xff"})


# --- containers -----------------------------------------------------------------------------------------------------


def spec(**fields: object) -> InstanceSpec:
    given: dict[str, object] = {
        "id": "blog-1",
        "app": "blog",
        "release": 3,
        "process": "web",
        "image": Image(kind="docker", builder="docker", ref="mini/blog:1"),
        "plan": Plan(buildpack="x"),
        "env": {"PORT": Secret("8080"), "HOST": Secret("0.0.0.0"), "KEY": Secret("value")},
        "endpoint": Endpoint(host="10.200.0.2", port=8080),
    }
    return InstanceSpec(**{**given, **fields})  # type: ignore[arg-type]


def made(instance: InstanceSpec, *, published: bool = False) -> dict:
    return containers.config(instance, platform="p", network="mini-p", published=published)


def test_a_container_is_confined_and_limited_and_publishes_nothing() -> None:
    body = made(spec())
    host = body["HostConfig"]
    assert host["Init"] and host["SecurityOpt"] == ["no-new-privileges"] and host["CapDrop"] == ["ALL"]
    assert "NET_RAW" not in host["CapAdd"] and "SYS_ADMIN" not in host["CapAdd"]
    assert host["Memory"] == host["MemorySwap"] == 512 * 1024 * 1024 and host["PidsLimit"] == 1024
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}
    assert host["RestartPolicy"] == {"Name": "no"}
    assert "PortBindings" not in host
    assert body["NetworkingConfig"]["EndpointsConfig"]["mini-p"] == {"IPAMConfig": {"IPv4Address": "10.200.0.2"}}
    assert body["Labels"]["mini.platform"] == "p" and body["Labels"]["mini.endpoint"] == "10.200.0.2:8080"


def test_the_limits_and_volumes_of_a_release_are_set() -> None:
    body = made(spec(limits=Limits(memory=64 << 20, cpu=0.5, pids=10), volumes=(Volume(name="data", target="/data"),)))
    host = body["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 10)
    assert host["Mounts"][0]["Source"] == "mini-p-blog-data" and host["Mounts"][0]["Target"] == "/data"
    assert host["Mounts"][0]["VolumeOptions"]["Labels"]["mini.platform"] == "p"


def test_a_published_port_is_on_loopback_only_and_the_app_is_told_the_one_inside() -> None:
    endpoint = Endpoint(host="127.0.0.1", port=20007)
    env = {"PORT": Secret("20007"), "HOST": Secret("127.0.0.1")}
    body = made(spec(endpoint=endpoint, env=env), published=True)
    assert body["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20007"}]}
    assert sorted(body["Env"]) == ["HOST=0.0.0.0", "PORT=8080"]
    own = Image(kind="docker", builder="docker", ref="x", ports=(3000,))
    assert "3000/tcp" in made(spec(endpoint=endpoint, image=own), published=True)["HostConfig"]["PortBindings"]


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("gunicorn app:app", "exec gunicorn app:app"),
        (" python main.py > out.txt", "exec python main.py > out.txt"),
        ("exec node server.js", "exec node server.js"),
        ("cd src && gunicorn app:app", "trap 'exit $?' TERM INT\ncd src && gunicorn app:app"),
        ("WORKERS=2 gunicorn app:app", "trap 'exit $?' TERM INT\nWORKERS=2 gunicorn app:app"),
        ("exit 3", "trap 'exit $?' TERM INT\nexit 3"),
        ("kill -9 $$", "trap 'exit $?' TERM INT\nkill -9 $$"),
    ],
)
def test_sigterm_reaches_an_app_behind_a_line_of_shell(line: str, run: str) -> None:
    body = made(spec(command=("sh", "-c", line)))
    assert body["Cmd"] == ["sh", "-c", run]
    assert ("TINI_KILL_PROCESS_GROUP=1" in body["Env"]) is run.startswith("trap")


def test_the_images_own_command_is_run_where_none_is_given_and_gets_sigterm_too() -> None:
    body = made(spec())
    assert "Cmd" not in body and "Entrypoint" not in body
    shell_form = Image(kind="docker", builder="docker", ref="x", command=("/bin/sh", "-c", "node server.js"))
    assert made(spec(image=shell_form))["Entrypoint"] == ["/bin/sh", "-c", "exec node server.js"]


def inspected(**state: object) -> dict:
    given = {"Status": "exited", "ExitCode": 0, "StartedAt": "2026-11-24T05:53:37.5Z", "FinishedAt": "", **state}
    labels = {"mini.instance": "blog-1", "mini.app": "blog", "mini.release": "3", "mini.process": "web"}
    return {
        "Config": {"Labels": labels},
        "State": given,
        "RestartCount": 2,
        "HostConfig": {"RestartPolicy": {"Name": "no"}},
        "NetworkSettings": {"Networks": {"mini-1": {"IPAddress": "10.200.0.3"}}},
    }


def test_how_an_instance_ended_is_told_from_what_the_engine_says() -> None:
    killed = containers.status(inspected(ExitCode=137, OOMKilled=True, FinishedAt="2026-11-24T05:53:38.25Z"))
    assert (killed.exit_code, killed.signal, killed.oom, killed.restarts) == (137, 9, True, 2)
    assert killed.started_at and killed.ended_at and killed.ended_at - killed.started_at == 0.75
    running = containers.status(inspected(Status="running", FinishedAt="0001-01-01T00:00:00Z"))
    assert (running.state, running.exit_code, running.ended_at) == ("running", None, None)
    assert containers.status(inspected(Status="restarting", ExitCode=1)).state == "starting"
    cut_off = inspected(Status="running") | {"NetworkSettings": {"Networks": {}}}
    assert containers.status(cut_off).state == "gone"


# --- what the machine knows -----------------------------------------------------------------------------------------

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:9C4D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0200C80A:1F90 0100C80A:D431 01 00000000:00000000 00:00000000 00000000     0        0 4 1
"""
TCP6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A
   1: 00000000000000000000000001000000:1770 00000000000000000000000000000000:0000 0A
   2: 0000000000000000FFFF00000100007F:1771 00000000000000000000000000000000:0000 0A
"""


def test_listening_sockets_are_read_and_the_engines_own_resolver_is_left_out() -> None:
    found = [str(item) for item in machine.parse((TCP, TCP6))]
    assert found == ["[::]:80", "127.0.0.1:3000", "[::1]:6000", "127.0.0.1:6001", "0.0.0.0:8080"]


def test_what_is_not_known_is_none() -> None:
    assert machine.listening(0) is None
    assert machine.Usage().of(0) == (None, None)


def test_subnets_are_looked_for_where_an_address_was_and_then_where_the_platform_points() -> None:
    first, *rest = network._candidates("platform", "10.200.3.7")
    assert str(first) == "10.200.0.0/20"
    assert len(set(rest)) == 1024 and all(item.prefixlen == 20 for item in rest)
    assert next(network._candidates("a", "")) != next(network._candidates("b", ""))


# --- logs -----------------------------------------------------------------------------------------------------------


FRAMES = (
    ("stdout", b"2026-11-24T05:53:37.5Z one\n"),
    ("stderr", b"2026-11-24T05:53:37.500000001Z oh\r\n"),
    ("stdout", b"2026-11-24T05:53:38Z a long li"),
    ("stderr", b"2026-11-24T05:53:38.1Z between\n"),
    ("stdout", b"2026-11-24T05:53:38.2Z ne\n"),
    ("stdout", b"2026-11-24T05:53:39Z no end"),
)


def test_lines_are_put_together_from_frames_with_their_times() -> None:
    found = list(lines(iter(FRAMES), tty=False))
    assert [(line.stream, line.text) for line in found] == [
        ("stdout", "one"),
        ("stderr", "oh"),
        ("stderr", "between"),
        ("stdout", "a long line"),
        ("stdout", "no end"),
    ]
    assert [line.mark for line in found] == sorted(line.mark for line in found)
    assert found[0].mark < found[1].mark and found[1].at - found[0].at < 1e-6


def test_a_terminals_lines_come_in_any_parts() -> None:
    data = b"2026-11-24T05:53:37.5Z one\r\n2026-11-24T05:53:38Z two\r\n"
    parts = iter([("stdout", data[:7]), ("stdout", data[7:40]), ("stdout", data[40:])])
    assert [line.text for line in lines(parts, tty=True)] == ["one", "two"]


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("Error: pg_config executable not found.", "missing-library"),
        ("src/x.c:3:10: fatal error: Python.h: No such file or directory", "missing-library"),
        ("error: command 'gcc' failed: No such file or directory: gcc not found", "missing-compiler"),
        ("npm ERR! `npm ci` can only install packages when your package.json and package-lock.json are in sync",
         "stale-lock"),
        ("$ yarn install --frozen-lockfile", "build"),
        ("error Your lockfile needs to be updated, but yarn was run with `--frozen-lockfile`.", "stale-lock"),
        ("ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with \"frozen-lockfile\"", "stale-lock"),
        ("pyproject.toml changed significantly since poetry.lock was last generated", "stale-lock"),
        ("FATAL ERROR: Ineffective mark-compacts near heap limit JavaScript heap out of memory", "out-of-memory"),
        ("executor failed running [/bin/sh -c x]: exit code: 137", "out-of-memory"),
        ('error app@1.0.0: The engine "node" is incompatible with this module.', "engine-mismatch"),
        ("go: go.mod requires go >= 1.30 (running go 1.27.0; GOTOOLCHAIN=local)", "engine-mismatch"),
        ("getaddrinfo EAI_AGAIN registry.npmjs.org", "network"),
        ("ERROR: No matching distribution found for flsk==9", "unknown-dependency"),
        (" ERR_PNPM_FETCH_404  GET https://registry.npmjs.org/x/-/x-1.tgz: Not Found - 404", "unknown-dependency"),
        ("E: Unable to locate package libnope", "unknown-package"),
        ("failed to create endpoint x on network bridge: could not find bridge docker0", "engine-network"),
        ("write /x: no space left on device", "disk-full"),
        ("ModuleNotFoundError: No module named 'django'", "missing-module"),
        ("/bin/sh: 1: hugo: not found", "missing-command"),
        ("cat: /run/secrets/NPM_TOKEN: No such file or directory", "missing-secret"),
        ("pull access denied, repository does not exist or may require authorization", "unknown-image"),
        ("something else entirely", "build"),
    ],
)  # fmt: skip
def test_common_causes_are_named(line: str, code: str) -> None:
    found = explain(["some output", line, "more"])
    assert (found.code, found.line) == (code, None if code == "build" else 1)
    assert found.hint and "{" not in found.hint


def test_what_cannot_be_found_without_a_network_is_not_said_not_to_exist() -> None:
    apt = [
        "W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Could not connect",
        "W: Some index files failed to download. They have been ignored, or old ones used instead.",
        "E: Unable to locate package build-essential",
    ]
    pip = [
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<HTTPSConnection object>: "
        "Failed to establish a new connection: [Errno 111] Connection refused')': /simple/flask/",
        "ERROR: Could not find a version that satisfies the requirement flask (from versions: none)",
        "ERROR: No matching distribution found for flask",
    ]
    assert (explain(apt).code, explain(pip).code) == ("network", "network")


def test_the_hint_names_what_is_missing() -> None:
    assert "libnope" in explain(["E: Unable to locate package libnope"]).hint
    assert "cairo.h" in explain(["fatal error: cairo.h: No such file or directory"]).hint


def test_a_build_argument_without_a_value_is_named_where_the_failed_step_uses_it() -> None:
    dockerfile = "FROM x\nARG GIVEN\nARG WITH=1\nARG TOKEN\nRUN use ${TOKEN}"
    assert argument_hint("RUN use ${TOKEN}", dockerfile, {"GIVEN": "1"}).startswith("ARG TOKEN has no value")
    assert argument_hint("RUN use $GIVEN $WITH $TOKENS", dockerfile, {"GIVEN": "1"}) == ""


def test_a_buildkit_error_is_shown_without_its_wrapping() -> None:
    narrator = BuildkitNarrator(RecordingJob(), None, lambda _: None)
    wrapped = (
        "failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 2"
    )
    narrator.take({"error": wrapped})
    failure = narrator.failure()
    assert failure and (failure.message, failure.code) == ("dockerfile parse error line 2", "dockerfile")


def test_an_image_without_a_command_says_what_to_add() -> None:
    error = _not_started("blog-v1-web-1", SimpleNamespace(explanation="No command specified"))
    assert (error.code, error.hint) == ("no-command", "Add a CMD, or a Procfile: web: COMMAND")


def test_the_telling_line_is_kept_though_a_tool_prints_its_manual_after_it() -> None:
    lines = [*map(str, range(50)), "no space left on device", *map(str, range(200))]
    cause = explain(lines)
    shown = shorten(lines, cause.line, 40)
    assert len(shown) == 40 and shown[0] == "no space left on device" and shown[-1] == "199"
    assert shorten(lines[-10:], None, 40) == lines[-10:]


def test_an_exit_code_is_read_from_every_engines_wording() -> None:
    assert exit_code("executor failed running [/bin/sh -c x]: exit code: 3") == 3
    assert exit_code('process "/bin/sh -c x" did not complete successfully: exit code: 12') == 12
    assert exit_code("The command '/bin/sh -c x' returned a non-zero code: 7") == 7
    assert exit_code("dockerfile parse error") is None


def test_more_cpu_than_there_is_says_how_much_there_is() -> None:
    text = "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
    error = _not_started("blog-v1-web-1", SimpleNamespace(explanation=text))
    assert (error.message, error.hint) == ("the machine has 2 CPU cores, and more were asked for", "mini scale --cpu 2")
