"""Instances outlive the controller, lose no line, and leave nothing behind."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from mini_core.errors import NotFound, StartError
from mini_core.interfaces import LINES_LOST
from mini_core.testing import RecordingJob, free_port, until
from mini_core.types import Image, InstanceSpec, Limits, Plan, Secret, Volume, encode, replace
from mini_process import doctor, proc
from mini_process import runtime as runtime_module
from mini_process.doctor import check_strays
from mini_process.folders import InstanceFolder
from mini_process.layout import Layout
from mini_process.runtime import ProcessRuntime

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")

SpecFor = Callable[..., InstanceSpec]


@pytest.fixture
def spec_for(image: Image) -> SpecFor:
    """An instance that runs a Python script."""

    def make(script: str, *arguments: str, **changes: object) -> InstanceSpec:
        spec = InstanceSpec(
            id=f"blog-{uuid.uuid4().hex[:8]}",
            app="blog",
            release=3,
            process="web",
            image=image,
            plan=Plan(buildpack="test"),
            command=("python3", "-u", "-c", textwrap.dedent(script), *arguments),
            env={"GREETING": Secret("hello")},
        )
        return replace(spec, **changes)

    return make


def start(runtime: ProcessRuntime, spec: InstanceSpec) -> None:
    runtime.start(spec, RecordingJob())


def texts(runtime: ProcessRuntime, spec: InstanceSpec) -> list[str]:
    return [line.text for line in runtime.logs(spec.id)]


def said(runtime: ProcessRuntime, spec: InstanceSpec, text: str) -> None:
    until(lambda: text in texts(runtime, spec), what=f"the line {text!r}")


def pids_of(spec: InstanceSpec) -> list[int]:
    return proc.pids_with_environment(f"MINI_INSTANCE={spec.id}")


def shim_of(layout: Layout, spec: InstanceSpec) -> int:
    state = InstanceFolder(layout.instances / spec.id).state()
    assert state
    return state.shim


CONTROLLER = """
    import sys, time
    from pathlib import Path
    from mini_core.testing import RecordingJob
    from mini_core.types import InstanceSpec, decode
    from mini_process.layout import Layout
    from mini_process.runtime import ProcessRuntime
    data, root, cache, verb = sys.argv[1:]
    runtime = ProcessRuntime(Layout(platform="p", data=Path(data), root=Path(root), cache=Path(cache)))
    held = getattr(runtime, verb)(decode(InstanceSpec, sys.stdin.read()), RecordingJob())
    print("done", flush=True)
    time.sleep(60)
"""


def as_killed_controller(layout: Layout, spec: InstanceSpec, verb: str) -> None:
    """Starts or attaches in a process of its own, which is then killed. The spec must have no secrets."""
    arguments = [str(layout.data), str(layout.root), str(layout.cache), verb]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CONTROLLER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(encode(spec))
        process.stdin.close()
        assert process.stdout.readline() == b"done\n"
        process.kill()


COUNTER = """
    import time
    for number in range(100000):
        print(number)
        time.sleep(0.02)
"""


def test_killed_controller_is_not_noticed_and_the_next_one_adopts_what_runs(
    layout: Layout, make_runtime: Callable[[], ProcessRuntime], spec_for: SpecFor, tmp_path: Path
) -> None:
    spec = spec_for(COUNTER, env={})
    as_killed_controller(layout, spec, "start")
    runtime = make_runtime()
    before = runtime.status(spec.id)
    assert before and before.state == "running"
    said(runtime, spec, "40")
    assert texts(runtime, spec)[:41] == [str(number) for number in range(41)]
    adopted = runtime.start(spec, RecordingJob())
    assert (adopted.started_at, adopted.restarts) == (before.started_at, 0)


def test_killed_shim_takes_its_instance_with_it_and_another_start_begins_anew(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor
) -> None:
    spec = spec_for(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)", grace=0.2
    )
    start(runtime, spec)
    said(runtime, spec, "up")
    os.kill(shim_of(layout, spec), signal.SIGKILL)
    status = until(lambda: (s := runtime.status(spec.id)) and s.state == "exited" and s, what="the end")
    assert (status.exit_code, status.signal) == (137, 9)
    assert pids_of(spec) == []

    again = runtime.start(spec, RecordingJob())
    assert (again.state, again.restarts) == ("running", 1)
    until(lambda: texts(runtime, spec).count("up") == 2, what="the second start's line, after the first one's")


def test_how_an_instance_ended_is_kept(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    killed, failed = spec_for("import os; os.kill(os.getpid(), 9)"), spec_for("import sys; sys.exit(3)")
    missing = spec_for("", command=("no-such-command",))
    for spec in (killed, failed, missing):
        start(runtime, spec)
    ends = [runtime.wait(spec.id, 10) for spec in (killed, failed, missing)]
    assert [(end.exit_code, end.signal, end.oom) for end in ends if end] == [
        (137, 9, False),
        (3, None, False),
        (127, None, False),
    ]
    assert texts(runtime, missing) == ["cannot start no-such-command: No such file or directory"]


def test_what_left_its_group_is_ended_with_the_instance(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    script = """
        import subprocess, time
        subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.Popen(["sleep", "600"])
        print("up")
        time.sleep(600)
    """
    spec = spec_for(script)
    start(runtime, spec)
    said(runtime, spec, "up")
    assert len(pids_of(spec)) == 3
    runtime.stop(spec.id, grace=5)
    assert pids_of(spec) == []


def test_grace_is_for_the_whole_group_not_only_the_shell_in_front(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    script = """
        import signal, sys, time
        def finish(*_):
            time.sleep(0.7)
            print("finished")
            sys.exit(0)
        signal.signal(signal.SIGTERM, finish)
        print("up")
        time.sleep(600)
    """
    inner = spec_for(script)
    spec = replace(inner, command=("sh", "-c", 'python3 -u -c "$1"; true', "sh", textwrap.dedent(script)))
    start(runtime, spec)
    said(runtime, spec, "up")
    runtime.stop(spec.id, grace=5)
    assert texts(runtime, spec) == ["up", "finished"]


def test_no_line_is_lost_across_rotations_and_the_log_stays_bounded(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "LOG_SIZE", 200_000)
    script = """
        import os, sys, time
        for number in range(30000):
            os.write(1, b"%06d %s\\n" % (number, b"x" * 60))
            if number % 300 == 0:
                time.sleep(0.005)
        time.sleep(600)
    """
    spec = spec_for(script)
    start(runtime, spec)
    followed: list[str] = []
    thread = threading.Thread(target=lambda: followed.extend(x.text[:6] for x in runtime.logs(spec.id, follow=True)))
    thread.start()
    until(lambda: len(followed) == 30000, seconds=30, what="the last line")
    files = sorted((layout.instances / spec.id / "log").iterdir())
    assert len(files) == runtime_module.LOG_FILES
    assert int(files[0].name) > 1
    assert sum(file.stat().st_size for file in files) < 1_100_000
    runtime.remove(spec.id)
    thread.join(10)
    assert followed == [f"{number:06d}" for number in range(30000)]


def test_lines_that_were_rotated_away_before_they_were_read_are_said_to_be_missing(
    runtime: ProcessRuntime, spec_for: SpecFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "LOG_SIZE", 10_000)
    spec = spec_for("import sys; print('first', flush=True); sys.stdin.close()\nfor i in range(30000): print(i)")
    start(runtime, spec)
    reading = runtime.logs(spec.id, follow=True)
    assert runtime.wait(spec.id, 10)
    seen = list(itertools.takewhile(lambda line: line.text != "29999", reading))
    assert [(line.source, line.text) for line in seen if line.source != "app"] == [("platform", LINES_LOST)]
    assert next(iter(runtime.logs(spec.id, since=seen[-2].at))).source == "app"


def test_lines_without_an_end_and_endless_ones_are_kept(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("import os; os.write(2, b'a' * 40000 + b'\\n'); os.write(1, b'one\\r\\n\\xff no end')")
    start(runtime, spec)
    assert runtime.wait(spec.id, 10)
    lines = list(runtime.logs(spec.id))
    assert "".join(x.text for x in lines if x.stream == "stderr") == "a" * 40000
    assert [x.text for x in lines if x.stream == "stdout"] == ["one", "\ufffd no end"]
    assert {(x.app, x.process, x.release, x.instance) for x in lines} == {("blog", "web.1", 3, spec.id)}


def test_logs_begin_where_they_are_asked_to_and_a_follower_can_be_let_go(
    runtime: ProcessRuntime, spec_for: SpecFor
) -> None:
    spec = spec_for("import time; print('early'); time.sleep(0.3); print('late'); time.sleep(600)")
    start(runtime, spec)
    said(runtime, spec, "late")
    late = next(line for line in runtime.logs(spec.id) if line.text == "late")
    assert [line.text for line in runtime.logs(spec.id, since=late.at)] == ["late"]
    follower = runtime.logs(spec.id, follow=True)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.extend(line.text for line in follower))
    thread.start()
    until(lambda: len(seen) == 2, what="both lines")
    follower.close()  # type: ignore[attr-defined]
    thread.join(5)
    assert not thread.is_alive()


def test_an_app_that_ignores_its_port_is_found_with_the_addresses_it_listens_on(
    runtime: ProcessRuntime, spec_for: SpecFor
) -> None:
    ports = [free_port(), free_port()]
    script = f"""
        import socket, subprocess, sys, time
        all_interfaces = socket.create_server(("0.0.0.0", {ports[0]}))
        child = "import socket, time; s = socket.create_server(('::1', {ports[1]}), family=10); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", child])
        time.sleep(600)
    """
    spec = spec_for(script)
    start(runtime, spec)

    def listening() -> set[str]:
        return {str(endpoint) for endpoint in runtime.listening(spec.id) or ()}

    until(lambda: listening() == {f"0.0.0.0:{ports[0]}", f"[::1]:{ports[1]}"}, what="both listeners")


def test_memory_and_cpu_are_those_of_all_its_processes(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    script = """
        import subprocess, sys
        child = "data = bytearray(50_000_000); print('up')\\nwhile True: pass"
        subprocess.run([sys.executable, "-u", "-c", child])
    """
    spec = spec_for(script)
    start(runtime, spec)
    said(runtime, spec, "up")
    assert runtime.status(spec.id)
    status = until(lambda: (s := runtime.status(spec.id)) and s.cpu is not None and s, what="a rate")
    assert status.memory > 50_000_000
    assert 0.1 < status.cpu < 1.5


def test_more_memory_than_its_limit_ends_it_and_says_so(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("import time; data = bytearray(80_000_000); time.sleep(600)", limits=Limits(memory=60 << 20))
    start(runtime, spec)
    end = runtime.wait(spec.id, 10)
    assert end and (end.oom, end.exit_code) == (True, 137)
    assert texts(runtime, spec) == ["out of memory: more than 60 MB, killed"]


def test_a_release_command_never_runs_twice(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("print('migrated'); raise SystemExit(4)", kind="release", process="release")
    start(runtime, spec)
    first = runtime.wait(spec.id, 10)
    assert first and first.exit_code == 4
    assert runtime.start(spec, RecordingJob()) == first
    assert texts(runtime, spec) == ["migrated"]


def test_it_sees_its_own_environment_and_nothing_of_the_controllers(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTROLLER_SECRET", "sentinel-of-the-controller")
    spec = spec_for("import os; print(sorted({*os.environ} - {'PWD'}), os.getcwd()); print(os.environ['GREETING'])")
    start(runtime, spec)
    assert runtime.wait(spec.id, 10)
    app = layout.build_of(image) / "app"
    names = ["GREETING", "HOME", "LANG", "MINI_INSTANCE", "PATH", "PYTHONUNBUFFERED", "TMPDIR"]
    assert texts(runtime, spec) == [f"{names} {app}", "hello"]
    kept = b"".join(path.read_bytes() for path in (layout.instances / spec.id).iterdir() if path.is_file())
    assert b"GREETING" not in kept


def test_ports_are_free_and_in_the_range_that_systems_leave_alone(
    runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as busy:
        other = free_port()
        monkeypatch.setattr(runtime_module, "PORTS", (busy.getsockname()[1], other))
        assert runtime.allocate(()).port == other
    monkeypatch.undo()
    assert 20000 <= runtime.allocate(()).port < 32768


# --- commands with their streams


def test_a_one_off_in_a_terminal_has_one_and_passes_its_exit_code(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    script = """
        import os, sys
        print(os.isatty(0), os.get_terminal_size(), os.environ["TERM"])
        name = input("name? ")
        sys.exit(len(name))
    """
    spec = spec_for(script, kind="oneoff", process="run", tty=True)
    command = runtime.attach(spec, RecordingJob())
    command.resize(33, 99)
    command.write(b"four\n")
    output = b"".join(data for _, data in command.output()).decode()
    assert "True os.terminal_size(" in output and "xterm" in output
    assert "name? " in output
    assert command.wait() == 4
    command.close()
    status = runtime.status(spec.id)
    assert status and (status.state, status.exit_code) == ("exited", 4)


def test_ctrl_c_reaches_the_command_through_its_terminal(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("print('ready'); import time; time.sleep(600)", kind="oneoff", process="run", tty=True)
    command = runtime.attach(spec, RecordingJob())
    output = command.output()
    while b"ready" not in next(output)[1]:
        pass
    command.write(b"\x03")
    assert command.wait() == 130
    command.close()


def test_letting_go_of_a_one_off_ends_it(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("print('ready'); import time; time.sleep(600)", kind="oneoff", process="run")
    command = runtime.attach(spec, RecordingJob())
    stream, data = next(command.output())
    assert stream == "stdout" and data.startswith(b"ready")
    assert [status.state for status in runtime.list()] == ["running"]
    command.close()
    assert pids_of(spec) == []
    assert command.wait() == 143


def test_a_one_off_of_a_killed_controller_is_ended_by_the_next(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor
) -> None:
    spec = spec_for("import time; time.sleep(600)", kind="oneoff", process="run", env={})
    as_killed_controller(layout, spec, "attach")
    assert pids_of(spec)
    assert [(status.state, status.exit_code) for status in runtime.list()] == [("exited", 137)]
    assert pids_of(spec) == []


def test_a_command_beside_an_instance_has_its_environment_and_its_folder(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor, image: Image
) -> None:
    spec = spec_for("import time; print('up'); time.sleep(600)")
    start(runtime, spec)
    said(runtime, spec, "up")
    shell = ("sh", "-c", "echo $GREETING $EXTRA; pwd; cat; exit 6")
    command = runtime.exec(spec.id, shell, env={"EXTRA": Secret("more")})
    command.write(b"typed")
    command.close_stdin()
    output = b"".join(data for _, data in command.output()).decode()
    assert output == f"hello more\n{layout.build_of(image)}/app\ntyped"
    assert command.wait() == 6
    command.close()
    with pytest.raises(StartError, match="no-such: command not found"):
        runtime.exec(spec.id, ("no-such",), env={})
    runtime.stop(spec.id, grace=5)
    with pytest.raises(NotFound):
        runtime.exec(spec.id, ("true",), env={})


# --- volumes


def test_a_volume_below_the_apps_folder_outlives_instances_until_it_is_removed(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor, image: Image
) -> None:
    (layout.build_of(image) / "app" / "data").mkdir()
    (layout.build_of(image) / "app" / "data" / "seed.txt").write_text("seed")
    script = """
        import os
        print(os.environ["MINI_VOLUME_DATA"], sorted(os.listdir("data")))
        open("data/kept.txt", "a").close()
    """
    volumes = (Volume(name="data", target="/app/data"),)
    for _ in range(2):
        spec = spec_for(script, volumes=volumes)
        start(runtime, spec)
        assert runtime.wait(spec.id, 10)
        runtime.remove(spec.id)
    path = runtime.volume_path("blog", "data")
    assert path and sorted(item.name for item in path.iterdir()) == ["kept.txt", "seed.txt"]
    runtime.remove_volume("blog", "data")
    assert runtime.volume_path("blog", "data") is None


def test_a_volume_elsewhere_is_refused_with_what_to_do(runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("", volumes=(Volume(name="data", target="/data"),))
    with pytest.raises(StartError) as caught:
        start(runtime, spec)
    assert "/data" in caught.value.message
    assert "mini volumes add /app/data" in caught.value.hint
    assert runtime.list() == ()


def test_destroying_an_app_leaves_nothing_of_it(layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor) -> None:
    spec = spec_for("import time; time.sleep(600)", volumes=(Volume(name="data", target="data"),))
    start(runtime, spec)
    runtime.destroy("blog")
    assert pids_of(spec) == []
    assert [path for path in layout.root.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden"])
def test_names_are_never_paths(runtime: ProcessRuntime, name: str) -> None:
    with pytest.raises(StartError):
        runtime.remove(name)


def test_start_takes_a_moment_and_a_shim_little_memory(
    layout: Layout, runtime: ProcessRuntime, spec_for: SpecFor, record_property: Callable[[str, object], None]
) -> None:
    spec = spec_for("import time; time.sleep(600)")
    started = time.monotonic()
    start(runtime, spec)
    seconds = time.monotonic() - started
    text = Path(f"/proc/{shim_of(layout, spec)}/status").read_text()
    kilobytes = {
        line.split()[0]: int(line.split()[1]) for line in text.splitlines() if line.startswith(("VmRSS", "RssAnon"))
    }
    record_property("start_seconds", seconds)
    record_property("shim", kilobytes)
    assert seconds < 2
    assert kilobytes["RssAnon:"] < 8000


def test_doctor_names_an_instance_whose_folder_was_removed(
    runtime: ProcessRuntime, layout: Layout, spec_for: SpecFor
) -> None:
    spec = spec_for("import time; time.sleep(60)")
    start(runtime, spec)
    assert spec.id not in check_strays()[0].detail
    shutil.rmtree(layout.instances / spec.id)
    (found,) = check_strays()
    assert (found.state, spec.id in found.detail) == ("warning", True)
    (shim,) = (pid for pid, folder in doctor._strays() if folder.name == spec.id)
    assert str(shim) in found.hint.split()
    os.kill(shim, signal.SIGTERM)
    until(lambda: spec.id not in check_strays()[0].detail, what="its end")
