"""Instances on a real engine."""

from __future__ import annotations

import http.client
import itertools
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mini_core.errors import Conflict, NotFound, StartError
from mini_core.interfaces import LINES_LOST
from mini_core.testing import RecordingJob, until
from mini_core.types import Endpoint, Health, Image, InstanceSpec, Limits, Plan, Secret, Volume, replace
from mini_docker.runtime import DockerRuntime

from .conftest import DockerPlatform

pytestmark = pytest.mark.docker

MB = 1024 * 1024


@pytest.fixture
def run(platform: DockerPlatform, python_image: Image):
    """Starts `python3 -c SCRIPT` (or the command given) and removes it afterwards."""
    made: list[str] = []

    def start(*command: str, script: str = "", **fields) -> InstanceSpec:
        words = command or ("python3", "-u", "-c", script)
        spec = platform.spec(fields.pop("image", python_image), *words, **{"web": False, **fields})
        made.append(spec.id)
        return platform.start(spec)

    yield start
    for instance in made:
        platform.engine.api.remove_container(instance, force=True) if platform.runtime.status(instance) else None


def said(platform: DockerPlatform, spec: InstanceSpec) -> list[str]:
    return [line.text for line in platform.runtime.logs(spec.id)]


def test_an_instance_that_takes_too_much_memory_is_told_so(platform: DockerPlatform, run) -> None:
    spec = run(script="x = bytearray(10**9)", limits=Limits(memory=32 * MB))
    status = platform.runtime.wait(spec.id, 20)
    assert status and (status.oom, status.exit_code, status.signal) == (True, 137, 9)


def test_its_own_loopback_is_told_from_an_address_that_can_be_reached(platform: DockerPlatform, run) -> None:
    spec = run(script="import socket,time; s=socket.create_server(('127.0.0.1', 3000)); time.sleep(60)", web=True)
    seen = until(lambda: platform.runtime.listening(spec.id), what="the socket")
    assert seen == (Endpoint(host="127.0.0.1", port=3000),)


def test_ports_can_be_asked_for_inside_where_this_machine_cannot_look(platform: DockerPlatform, run) -> None:
    spec = run(script="import socket,time; s=socket.create_server(('', 3001)); time.sleep(60)", web=True)
    container = platform.engine.api.inspect_container(spec.id)["Id"]
    until(lambda: platform.runtime._ask_inside(container), what="the socket")
    assert platform.runtime._ask_inside(container) == (Endpoint(host="0.0.0.0", port=3001),)


def test_a_worker_has_no_address_of_its_own_and_says_what_it_uses(platform: DockerPlatform, run) -> None:
    spec = run(script="import time\nwhile True: sum(range(10**5))")
    platform.runtime.status(spec.id)
    status = until(
        lambda: (s := platform.runtime.status(spec.id)) and (s.cpu or 0) > 0.1 and s, what="the CPU that it takes"
    )
    assert status.endpoint is None and status.state == "running"
    assert platform.runtime.listening(spec.id) == ()
    assert 1 * MB < status.memory < 100 * MB and status.cpu < 2.5


def test_instances_cannot_reach_each_other_but_the_host_reaches_them(platform: DockerPlatform, run) -> None:
    server = run("python3", "-m", "http.server", "8080", web=True)
    assert server.endpoint
    host, port = server.endpoint.host, server.endpoint.port

    def answers() -> bool:
        try:
            connection = http.client.HTTPConnection(host, port, timeout=2)
            connection.request("HEAD", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False

    until(answers, what="an answer to the host")
    script = f"import socket\ntry: socket.create_connection(({host!r}, {port}), 1)\nexcept OSError: print('blocked')"
    neighbour = run(script=script)
    assert platform.runtime.wait(neighbour.id, 20)
    assert said(platform, neighbour) == ["blocked"]


def test_a_volume_is_writable_for_the_apps_user_and_outlives_instances(
    platform: DockerPlatform, image: Image, run
) -> None:
    mounted = (Volume(name="data", target="/data/files"),)
    writer = run("sh", "-c", "id -u > /data/files/who && ls -ld /data/files", image=image, volumes=mounted)
    assert platform.runtime.wait(writer.id, 20).exit_code == 0, said(platform, writer)
    platform.runtime.remove(writer.id)
    reader = run("cat", "/data/files/who", image=image, volumes=mounted)
    assert platform.runtime.wait(reader.id, 20)
    assert said(platform, reader) == ["10001"]
    path = platform.runtime.volume_path("blog", "data")
    assert path is None or (path / "who").read_text() == "10001\n"
    platform.runtime.remove(reader.id)
    platform.runtime.remove_volume("blog", "data")
    platform.runtime.remove_volume("blog", "data")
    assert platform.runtime.volume_path("blog", "data") is None


def test_destroying_an_app_takes_its_volumes_and_leaves_those_of_others(
    platform: DockerPlatform, python_image: Image
) -> None:
    for app in ("blog", "shop"):
        spec = platform.spec(python_image, "true", web=False, app=app, volumes=(Volume(name="d", target="/d"),))
        platform.start(spec)
    platform.runtime.destroy("blog")
    platform.runtime.destroy("blog")
    assert platform.runtime.volume_path("blog", "d") is None
    assert platform.runtime.volume_path("shop", "d") is not None
    assert [item.app for item in platform.runtime.list()] == ["shop"]
    platform.runtime.destroy("shop")


def test_a_container_that_was_made_but_not_started_is_taken_up(platform: DockerPlatform, python_image: Image) -> None:
    spec = platform.spec(python_image, "echo", "taken up", web=False)
    platform.runtime._make(spec)
    status = platform.runtime.status(spec.id)
    assert status and status.state == "starting"
    other = DockerRuntime(platform.engine, platform.id)
    other.start(spec, RecordingJob())
    assert other.wait(spec.id, 20).exit_code == 0
    other.start(spec, RecordingJob())
    assert said(platform, spec) == ["taken up"], "what has run is not run again"
    other.remove(spec.id)


def test_a_paused_container_goes_on_when_it_is_started_again_and_can_be_stopped(platform: DockerPlatform, run) -> None:
    spec = run(script="import time; time.sleep(60)")
    platform.engine.api.pause(spec.id)
    assert platform.runtime.status(spec.id).state == "paused"
    platform.start(spec)
    assert platform.runtime.status(spec.id).state == "running"
    platform.engine.api.pause(spec.id)
    platform.runtime.stop(spec.id, grace=1)
    assert platform.runtime.status(spec.id).state == "exited"


def test_many_threads_that_start_the_same_instance_make_one(platform: DockerPlatform, python_image: Image) -> None:
    spec = platform.spec(python_image, "sleep", "60")
    found: list = []
    threads = [
        threading.Thread(target=lambda: found.append(platform.runtime.start(spec, RecordingJob()))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len({status.id for status in found}) == 1
    platform.engine.api.remove_container(spec.id, force=True)


def test_what_has_the_name_and_is_anothers_is_never_touched(
    engine, platform: DockerPlatform, python_image: Image
) -> None:
    other = DockerPlatform(engine)
    spec = other.start(other.spec(python_image, "sleep", "60", web=False))
    try:
        with pytest.raises(Conflict, match="not this platform's"):
            platform.runtime.start(spec, RecordingJob())
        with pytest.raises(Conflict):
            platform.runtime.remove(spec.id)
        assert spec.id not in [item.id for item in platform.runtime.list()]
        assert other.runtime.status(spec.id).state == "running"
    finally:
        other.engine.api.remove_container(spec.id, force=True)
        other.clean()


@pytest.mark.parametrize(("command", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run_ends_with_the_shells_code_and_says_why(
    platform: DockerPlatform, run, command: str, code: int
) -> None:
    spec = run(command)
    status = platform.runtime.wait(spec.id, 20)
    assert status and status.exit_code == code
    assert command in "\n".join(said(platform, spec))


def test_an_image_that_is_gone_is_named(platform: DockerPlatform) -> None:
    with pytest.raises(StartError) as caught:
        platform.start(platform.spec(Image(kind="docker", builder="docker", ref="mini/gone:1"), web=False))
    assert caught.value.code == "image-gone"


def test_what_ended_for_want_of_memory_says_so_after_the_engine_restarted_it_too(platform: DockerPlatform, run) -> None:
    script = """if True:
        import os, time
        time.sleep(0.5)
        if not os.path.exists('/tmp/once'):
            open('/tmp/once', 'w')
            x = bytearray(10**9)
        time.sleep(60)"""
    spec = run(script=script, limits=Limits(memory=32 * MB))
    platform.runtime.supervise(spec.id)
    status = until(lambda: (s := platform.runtime.status(spec.id)) and s.restarts and s.state == "running" and s)
    assert status.oom


def test_the_engine_restarts_what_is_supervised_and_only_that(platform: DockerPlatform, run) -> None:
    spec = run(script="import time; time.sleep(0.3); print('again'); exit(3)")
    assert not platform.runtime.status(spec.id).supervised
    platform.runtime.supervise(spec.id)
    assert platform.runtime.status(spec.id).supervised
    status = until(lambda: (s := platform.runtime.status(spec.id)) and s.restarts >= 2 and s, what="two restarts")
    assert status.state in ("starting", "running")
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(x.text for x in platform.runtime.logs(spec.id, follow=True)))
    thread.start()
    until(lambda: platform.runtime.status(spec.id).restarts >= 4, what="two more")
    platform.runtime.stop(spec.id, grace=2)
    status = platform.runtime.wait(spec.id, 5)
    assert status and status.state == "exited"
    written = said(platform, spec)
    platform.runtime.remove(spec.id)
    thread.join(10)
    assert lines == written, "a follower sees every run's lines once"


@pytest.fixture
def checked_image(platform: DockerPlatform, python_image: Image) -> Iterator[Image]:
    """With a health check of its own, that succeeds once /tmp/well is there."""
    api = platform.engine.api
    made = api.create_container(python_image.ref, labels={"mini.platform": platform.id})["Id"]
    check = "HEALTHCHECK CMD test -e /tmp/well || { echo not yet; false; }"
    image = api.commit(made, repository="mini/checked", tag=platform.id, changes=[check])["Id"]
    api.remove_container(made)
    yield Image(kind="docker", builder="docker", ref=image)
    api.remove_image(f"mini/checked:{platform.id}", force=True)


def test_the_images_own_health_check_is_asked_for_at_once(platform: DockerPlatform, run, checked_image: Image) -> None:
    spec = run(script="import time; time.sleep(60)", image=checked_image, web=True)
    late = until(lambda: (s := platform.runtime.status(spec.id)) and s.health_detail and s, what="its last line")
    assert (late.health, late.health_detail) == ("starting", "not yet")
    with closing(platform.runtime.exec(spec.id, ("touch", "/tmp/well"), tty=False, env={})) as touch:
        assert touch.wait() == 0
    until(lambda: platform.runtime.status(spec.id).health == "healthy", what="its health", seconds=5)
    platform.runtime.remove(spec.id)


def test_a_health_path_is_preferred_to_the_images_own_check(
    platform: DockerPlatform, run, checked_image: Image
) -> None:
    plan = Plan(buildpack="dockerfile", health=Health(path="/up"))
    by_path = run(script="import time; time.sleep(60)", image=checked_image, web=True, plan=plan)
    worker = run(script="import time; time.sleep(60)", image=checked_image)
    assert [platform.runtime.status(spec.id).health for spec in (by_path, worker)] == ["", ""]
    for spec in (by_path, worker):
        platform.engine.api.remove_container(spec.id, force=True)


def test_sigterm_reaches_an_app_that_a_shell_started_with_others(platform: DockerPlatform, run) -> None:
    app = (
        "import signal,sys,time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print('done'), sys.exit(0)))\n"
        "print('ready'); time.sleep(60)"
    )
    spec = run("sh", "-c", f'cd /tmp && python3 -u -c "{app}"')
    until(lambda: "ready" in said(platform, spec), what="the app")
    platform.runtime.stop(spec.id, grace=10)
    assert said(platform, spec) == ["ready", "done"]
    assert platform.runtime.status(spec.id).exit_code == 0


def test_a_burst_larger_than_a_log_file_arrives_whole_once_and_in_order(platform: DockerPlatform, run) -> None:
    count = 120_000  # about 25 MB in the engine's file, which is rotated at 10
    spec = run(script=f"import time; time.sleep(1)\nfor i in range({count}): print(i, 'x' * 90)")
    seen: list[str] = []
    for line in platform.runtime.logs(spec.id, follow=True):
        seen.append(line.text.split()[0])
        if seen[-1] == str(count - 1):
            break
    assert seen == [str(number) for number in range(count)]


def test_a_reader_that_hangs_neither_blocks_the_app_nor_loses_a_line(platform: DockerPlatform, run) -> None:
    spec = run(script="import time; time.sleep(1)\nfor i in range(30000): print(i, 'x' * 50)\nprint('end')")
    reading = platform.runtime.logs(spec.id, follow=True)
    seen = [next(reading).text.split()[0]]
    assert platform.runtime.wait(spec.id, 20), "the app ends while nobody reads"
    for line in reading:
        seen.append(line.text.split()[0])
        if line.text == "end":
            break
    assert seen == [*map(str, range(30000)), "end"]


def test_lines_that_the_engine_has_thrown_away_are_said_to_be_missing(
    platform: DockerPlatform, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"Type": "json-file", "Config": {"max-size": "100k", "max-file": "2"}}
    monkeypatch.setattr("mini_docker.containers.LOGS", small)
    spec = run(script="import time; print('first'); time.sleep(1)\nfor i in range(30000): print(i)\nprint('end')")
    reading = platform.runtime.logs(spec.id, follow=True)
    assert next(reading).text == "first"
    assert platform.runtime.wait(spec.id, 20)
    missing = next(reading)
    assert (missing.source, missing.text) == ("platform", LINES_LOST)
    rest = list(itertools.takewhile(lambda line: line.text != "end", reading))
    assert {line.source for line in rest} == {"app"}


def test_a_line_of_megabytes_comes_whole_in_pieces(platform: DockerPlatform, run) -> None:
    spec = run(script="import time; time.sleep(1)\nprint('x' * 3_000_000 + 'end')")
    size = 0
    for line in platform.runtime.logs(spec.id, follow=True):
        size += len(line.text)
        if line.text.endswith("end"):
            break
    assert size == 3_000_003


def test_following_from_a_line_goes_on_behind_it(platform: DockerPlatform, run) -> None:
    spec = run(script="import time\nfor i in range(300): print(i); time.sleep(0.01)\ntime.sleep(60)")
    seen, at = [], 0.0
    for end in ("90", "180", "299"):
        for line in platform.runtime.logs(spec.id, since=at, follow=True):  # as a new controller does
            seen.append(line.text)
            at = line.at
            if line.text == end:
                break
    assert seen == [str(number) for number in range(300)]


def test_a_command_in_a_running_instance_has_streams_environment_and_an_exit_code(
    platform: DockerPlatform, run
) -> None:
    spec = run("sleep", "60")
    script = "import os,sys; print(os.environ['WHO'], sys.stdin.read()); print('oh', file=sys.stderr); sys.exit(4)"
    command = platform.runtime.exec(spec.id, ("python3", "-c", script), env={"WHO": Secret("me")})
    command.write(b"input")
    command.close_stdin()
    output = list(command.output())
    assert b"".join(data for stream, data in output if stream == "stdout") == b"me input\n"
    assert b"".join(data for stream, data in output if stream == "stderr") == b"oh\n"
    assert command.wait() == 4
    command.close()
    platform.runtime.stop(spec.id, grace=1)
    with pytest.raises(Conflict, match="not running"):
        platform.runtime.exec(spec.id, ("true",), env={})
    with pytest.raises(NotFound):
        platform.runtime.exec("nobody", ("true",), env={})


def test_a_command_can_be_signalled_and_ends_when_it_is_let_go(platform: DockerPlatform, run) -> None:
    spec = run("sleep", "60")
    command = platform.runtime.exec(spec.id, ("sleep", "55"), env={})
    until(lambda: platform.engine.api.exec_inspect(command._id)["Pid"], what="the command")
    command.signal(signal.SIGINT)
    assert command.wait() == 130
    command.close()
    left = platform.runtime.exec(spec.id, ("sleep", "54"), env={})
    left.close()
    assert left.wait() == 137


def test_a_one_off_with_a_terminal_sees_its_size_and_is_gone_afterwards(platform: DockerPlatform, image: Image) -> None:
    script = "read line; stty size; echo got $line; test -t 0"
    spec = platform.spec(image, "sh", "-c", script, web=False, kind="oneoff", tty=True, stdin=True)
    command = platform.runtime.attach(spec, RecordingJob())
    command.resize(33, 101)
    command.write(b"hi\n")
    output = b"".join(data for _, data in command.output())
    assert b"33 101" in output and b"got hi" in output
    assert command.wait() == 0
    command.close()
    assert platform.runtime.status(spec.id) is None


def test_the_platforms_network_comes_back_where_it_was(engine, python_image: Image) -> None:
    one = DockerPlatform(engine)
    try:
        spec = one.start(one.spec(python_image, "sleep", "60"))
        before = engine.api.inspect_network(f"mini-{one.id}")
        assert before["Options"]["com.docker.network.bridge.enable_icc"] == "false"
        one.engine.api.remove_container(spec.id, force=True)
        one.runtime.shutdown()
        assert not engine.api.networks(filters=engine.own(one.id))
        one.start(spec)
        after = engine.api.inspect_network(f"mini-{one.id}")
        assert before["IPAM"]["Config"] == after["IPAM"]["Config"]
        strange = replace(spec, id=f"{spec.id}-b", endpoint=Endpoint(host="10.1.2.3", port=8080))
        with pytest.raises(StartError) as caught:
            one.start(strange)
        assert caught.value.code == "address-gone"
        one.engine.api.remove_container(spec.id, force=True)
    finally:
        one.clean()


def test_no_container_of_ours_publishes_a_port_to_the_world(platform: DockerPlatform, python_image: Image) -> None:
    published = DockerRuntime(platform.engine, platform.id, {"addresses": "published"})
    endpoint = published.allocate(())
    spec = platform.spec(python_image, "python3", "-m", "http.server", "8080", endpoint=endpoint)
    published.start(spec, RecordingJob())
    ports = platform.engine.api.inspect_container(spec.id)["NetworkSettings"]["Ports"]
    assert ports == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(endpoint.port)}]}
    seen = until(lambda: published.listening(spec.id), what="the socket")
    assert [item.port for item in seen] == [endpoint.port]
    platform.engine.api.remove_container(spec.id, force=True)


def test_doctor_tells_the_engine_its_disk_limits_and_images(engine) -> None:
    from mini_docker.checks import Checks

    checks = {check.name: check for check in Checks(engine, {})()}
    names = {"network", "disk", "build cache", "limits", "strays", "base images"}
    assert set(checks) == {"docker", *(f"docker {name}" for name in names)}
    assert re.search(r"engine \d+\.\d+", checks["docker"].detail)
    assert all(check.hint for check in checks.values() if check.state not in ("ok", "skipped"))


def test_doctor_names_the_instances_of_a_platform_whose_folder_is_gone(
    platform: DockerPlatform, python_image: Image
) -> None:
    from mini_docker.checks import Checks

    def strays(home: str, platform_now: str, data: Path) -> str:
        labels = {"mini.platform": platform.id, "mini.home": home}
        made = platform.engine.api.create_container(python_image.ref, labels=labels)["Id"]
        try:
            checks = Checks(platform.engine, {}, platform=platform_now, data=data)()
        finally:
            platform.engine.api.remove_container(made)
        return next(check.hint for check in checks if check.name == "docker strays")

    here, there, elsewhere = socket.gethostname(), platform.folder, platform.folder / "nowhere"
    wanted = f"docker rm -f $(docker ps -aq --filter label=mini.platform={platform.id}) && docker network rm mini-"
    assert wanted in strays(f"{here}:{elsewhere}", "another", there), "its folder was removed"
    assert wanted in strays(f"{here}:{there}", "another", there), "its folder is another's now"
    assert wanted not in strays(f"{here}:{there}", "another", elsewhere), "its folder is there"
    assert wanted not in strays(f"{here}:{there}", platform.id, there), "it is this one"
    assert wanted not in strays(f"not-{here}:{elsewhere}", "another", there), "another machine's"
