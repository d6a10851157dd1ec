"""The local platform as a process: started in the background, found again, stopped, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from server_kit import Client, alive

from mini_core.errors import ConfigError, Conflict, MiniError, Unavailable
from mini_core.paths import Paths
from mini_core.server import daemon, local, ports, state
from mini_core.testing import until
from mini_core.types import replace

FAKE = (sys.executable, str(Path(__file__).parent / "fake_controller.py"))
BROKEN = (sys.executable, str(Path(__file__).parent / "broken_server.py"))


@pytest.fixture
def stopped(paths: Paths) -> Iterator[Paths]:
    """Folders in which no platform runs; whatever is started in them is ended."""
    yield paths
    if local.is_running(paths):
        local.down(paths=paths, command=FAKE)


def start(paths: Paths) -> local.Started:
    return local.ensure_running(paths, first=True, command=FAKE)


def test_it_is_started_once_in_the_background_and_answers_at_once(stopped: Paths) -> None:
    first, second = start(stopped), start(stopped)
    assert (first.new, second.new) == (True, False)
    assert first.running == second.running
    assert second.message == ""
    assert Client(stopped.admin_socket).get("/healthz").json()["status"] == "ok"
    assert first.message == (f"Local platform started (process runtime, port {first.running.port}). Stop it: mini down")
    assert os.getsid(first.running.pid) != os.getsid(0)


def test_a_server_whose_folders_are_removed_ends_and_leaves_what_is_there_now_alone(stopped: Paths) -> None:
    old = start(stopped).running
    for folder in (stopped.data, stopped.run):
        shutil.rmtree(folder, ignore_errors=True)
    new = start(stopped)
    assert new.new
    until(lambda: not alive(old.pid), what="the end of the old one")
    assert alive(new.running.pid)
    assert local.is_running(stopped)


def test_many_commands_at_once_start_one_platform(stopped: Paths) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: start(stopped), range(6)))
    assert sum(item.new for item in found) == 1
    assert len({item.running.pid for item in found}) == 1


def test_a_start_waits_for_a_process_that_is_on_its_way_up_or_down(stopped: Paths) -> None:
    with ThreadPoolExecutor(1) as pool:
        with daemon.holding(state.server_lock(stopped)):
            starting = pool.submit(start, stopped)
            assert not wait([starting], timeout=1).done
        assert starting.result().new


def test_before_the_first_deploy_other_commands_say_what_starts_it(stopped: Paths) -> None:
    with pytest.raises(Unavailable, match="No local platform yet"):
        local.ensure_running(stopped, command=FAKE)


def test_after_mini_down_only_deploy_and_up_start_it_again(stopped: Paths) -> None:
    start(stopped)
    said: list[str] = []
    assert local.down(paths=stopped, say=said.append)
    assert said == ["Stopping apps and router", "Stopped"]
    assert (stopped.data / "was-shut-down").exists()
    assert local.condition(stopped) == "down"
    with pytest.raises(Unavailable, match="stopped") as error:
        local.ensure_running(stopped, command=FAKE)
    assert error.value.hint == "Start it: mini up"
    assert start(stopped).new
    assert not local.down(paths=replace(stopped, run=stopped.run / "none"), command=FAKE)


def test_after_a_reboot_any_command_starts_it_with_the_flags_of_before(stopped: Paths) -> None:
    port = ports.choose_port(["127.0.0.1"], range(20100, 20200))
    before = local.start(stopped, {"port": port, "domain": "example.test"}, command=FAKE).running
    os.kill(before.pid, signal.SIGKILL)
    wait_for_end(stopped)
    assert local.condition(stopped) == "stopped"
    after = local.ensure_running(stopped, command=FAKE).running
    assert (after.port, after.domain) == (port, "example.test")


def wait_for_end(paths: Paths) -> None:
    with local.waiting_for(state.server_lock(paths)):
        pass


def test_sigterm_ends_the_controller_and_leaves_the_apps_alone(stopped: Paths) -> None:
    running = start(stopped).running
    os.kill(running.pid, signal.SIGTERM)
    wait_for_end(stopped)
    assert not (stopped.data / "was-shut-down").exists()
    assert not stopped.admin_socket.exists()
    assert local.condition(stopped) == "stopped"


def test_down_after_a_crash_stops_what_the_crash_left_running(stopped: Paths) -> None:
    os.kill(start(stopped).running.pid, signal.SIGKILL)
    wait_for_end(stopped)
    assert local.down(paths=stopped, command=FAKE)
    assert (stopped.data / "was-shut-down").exists()
    assert not local.down(paths=stopped, command=FAKE)  # there is nothing left to stop


def test_a_controller_that_is_stuck_is_replaced_to_stop_what_it_left(
    stopped: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ANSWER_LIMIT", 0.5)
    running = start(stopped).running
    os.kill(running.pid, signal.SIGSTOP)
    assert local.down(paths=stopped, command=FAKE)
    assert not alive(running.pid)
    assert (stopped.data / "was-shut-down").exists()


def test_purge_removes_the_apps_and_every_folder(stopped: Paths) -> None:
    start(stopped)
    said: list[str] = []
    local.down(paths=stopped, purge=True, say=said.append, command=FAKE)
    assert said[:2] == ["Removing blog", "Removing shop"]
    assert not stopped.data.exists()
    assert local.condition(stopped) == "none"


def test_a_purge_that_cannot_remove_an_app_says_so_and_keeps_what_is_known_of_it(stopped: Paths) -> None:
    start(stopped)
    (stopped.data / "shop-is-stuck").touch()
    said: list[str] = []
    with pytest.raises(Unavailable, match="could not be stopped"):
        local.down(paths=stopped, purge=True, say=said.append, command=FAKE)
    assert said[-1] == "shop is not gone yet: the engine is busy."
    assert local.is_running(stopped)


def test_a_restart_replaces_the_controllers_process_alone(stopped: Paths) -> None:
    before = start(stopped).running
    after = local.restart(stopped, command=FAKE).running
    assert before.pid != after.pid
    assert before.port == after.port
    assert not alive(before.pid)
    assert not (stopped.data / "was-shut-down").exists()


def test_a_second_controller_on_one_data_folder_refuses(stopped: Paths) -> None:
    start(stopped)
    with pytest.raises(Conflict, match="runs already"), daemon.holding(state.server_lock(stopped)):
        pass


def test_up_with_another_port_says_to_put_it_down_first(stopped: Paths) -> None:
    running = start(stopped).running
    with pytest.raises(Conflict, match=f"with port {running.port}"):
        local.up({"port": running.port + 1}, foreground=False, say=print, paths=stopped)
    said: list[str] = []
    assert local.up({"port": running.port}, foreground=False, say=said.append, paths=stopped) == 0
    assert "runs already" in said[0]


def test_a_start_that_fails_says_why(stopped: Paths) -> None:
    with pytest.raises(Unavailable) as error:
        local.ensure_running(stopped, first=True, command=BROKEN)
    assert error.value.message == "Address 127.0.0.1:80 is in use."
    assert error.value.hint == "mini up --port N"
    assert local.condition(stopped) == "stopped"


def test_a_start_that_crashes_points_to_the_log(stopped: Paths) -> None:
    stopped.logs.mkdir(parents=True)
    (stopped.logs / "platform.out").write_text("Fatal Python error: Segmentation fault\n" + "frame\n" * 50)
    crash = (sys.executable, "-c", "import os; os._exit(3)")
    with pytest.raises(Unavailable, match="ended while it started") as error:
        local.ensure_running(stopped, first=True, command=crash)
    assert str(stopped.logs / "platform.log") in error.value.hint
    assert error.value.tail == ("Fatal Python error: Segmentation fault", *["frame"] * 5)


def test_what_the_platform_logs_is_bounded_and_has_no_queries(stopped: Paths) -> None:
    start(stopped)
    Client(stopped.admin_socket).get("/v1/nope?token=sentinel-value")
    local.down(paths=stopped)
    text = (stopped.logs / "platform.log").read_text()
    assert "GET /v1/nope 404" in text
    assert "sentinel-value" not in text
    assert daemon.LOG_SIZE * (daemon.LOG_COUNT + 1) < 10_000_000


def test_in_the_foreground_ctrl_c_puts_it_down(stopped: Paths) -> None:
    code = (
        "import functools, sys; sys.path.insert(0, sys.argv[1])\n"
        "from fake_controller import open_fake\n"
        "from mini_core.server import daemon, local\n"
        "serve = functools.partial(daemon.serve, opener=open_fake)\n"
        "say = functools.partial(print, flush=True)\n"
        "sys.exit(local.up({}, foreground=True, say=say, serve=serve))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert "Stop it: Ctrl-C" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    process.stdout.close()
    assert (stopped.data / "was-shut-down").exists()


# --- ports and settings


def test_what_is_refused_since_another_runs_changes_no_settings(stopped: Paths) -> None:
    before = start(stopped), state.load_local(stopped)
    refused = subprocess.run([*FAKE, "--port", "4000"], capture_output=True, text=True, check=False)
    assert (refused.returncode, "runs already" in refused.stderr) == (1, True)
    assert (local.ensure_running(stopped).running, state.load_local(stopped)) == (before[0].running, before[1])


def test_a_port_that_was_chosen_is_kept_and_a_flag_overrides_it_once(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "choose_port", lambda binds: 8085)
    assert daemon.choose(paths, {}).port == 8085
    monkeypatch.setattr(ports, "choose_port", lambda binds: 8099)
    assert daemon.choose(paths, {}).port == 8085


def test_server_toml_is_stronger_than_the_flags_of_the_last_start(paths: Paths) -> None:
    daemon.choose(paths, {"domain": "flag.test", "port": 4000})
    assert daemon.choose(paths, {}).domain == "flag.test"
    paths.settings.parent.mkdir(parents=True)
    paths.settings.write_text('domain = "file.test"\n')
    assert daemon.choose(paths, {}).domain == "file.test"
    assert daemon.choose(paths, {}).port == 4000
    assert daemon.choose(paths, {"domain": "now.test"}).domain == "now.test"


def test_its_durations_and_sizes_may_be_written_as_people_do(paths: Paths) -> None:
    paths.settings.parent.mkdir(parents=True)
    paths.settings.write_text('idle = "30m"\ngrace = 5\ndisk_reserve = "1.5g"\n[limits]\nmemory = "1g"\ncpu = 2\n')
    settings = daemon.choose(paths, {})
    assert (settings.idle, settings.grace, settings.disk_reserve) == (1800.0, 5.0, 3 * 1024**3 // 2)
    assert (settings.limits.memory, settings.limits.cpu) == (1024**3, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('idle = "soon"', 'idle: expected seconds, or a string such as "30m", got "soon"'),
        ('upload = "much"', 'upload: expected bytes, or a string such as "1g", got "much"'),
        ('[limits]\nmemory = "much"', 'limits.memory: expected bytes, or a string such as "512m", got "much"'),
        ("limits = 3", "limits: expected"),
    ],
)
def test_what_is_wrong_in_it_is_named(paths: Paths, text: str, message: str) -> None:
    paths.settings.parent.mkdir(parents=True)
    paths.settings.write_text(text)
    with pytest.raises(ConfigError) as caught:
        daemon.choose(paths, {})
    assert caught.value.message.startswith(f"{paths.settings}: {message}")


def test_the_first_free_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not ports.is_free(["127.0.0.1"], port)
        assert ports.choose_port(["127.0.0.1"], [port, 0]) == 0
        with pytest.raises(Unavailable, match="No free port"):
            ports.choose_port(["127.0.0.1"], [port])
    assert ports.is_free(["127.0.0.1"], port)


def test_an_address_that_the_machine_lacks_is_left_out() -> None:
    assert ports.usable_binds(["127.0.0.1", "192.0.2.1"]) == ("127.0.0.1",)
    with pytest.raises(Unavailable, match=r"no address 192\.0\.2\.1"):
        ports.usable_binds(["192.0.2.1"])


def test_a_damaged_state_file_is_as_good_as_none(paths: Paths) -> None:
    paths.data.mkdir(parents=True)
    state.local_file(paths).write_text('{"flags": ')
    assert state.load_local(paths) == state.Local()


def test_the_ready_line_is_one_json_document(stopped: Paths) -> None:
    ours, theirs = os.pipe()
    process = subprocess.Popen([*FAKE, "--ready-fd", str(theirs)], pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        assert json.load(pipe)["running"]["pid"] == process.pid
    process.terminate()
    assert process.wait(10) == 0


def test_an_error_is_one_that_commands_can_print(paths: Paths) -> None:
    assert issubclass(Unavailable, MiniError)
    with pytest.raises(MiniError, match="does not answer"):
        from mini_core.server import adminclient

        adminclient.call(paths.admin_socket, "GET", "/healthz")
