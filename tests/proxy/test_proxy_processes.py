"""The router's processes: what they survive, and that nothing is dropped meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
import websockets.sync.server

from mini_core.errors import Conflict, Unavailable
from mini_core.types import Endpoint, Route, RouteTable, Target, replace
from mini_proxy.listen import who_listens
from mini_proxy.router import ProxyRouter


def test_no_request_fails_while_instances_are_replaced(fresh: Any, app: Any, load: Any, until: Any) -> None:
    running = fresh()
    current = app("0")
    running.serve(current)
    with load(running.port) as clients:
        for number in range(1, 11):
            new = app(str(number))
            running.serve(new)
            assert running.router.drain(current.target, 10) is True
            current.close()
            current = new
            clients.wait_for(40)
    assert not clients.failures
    assert set(clients.answers) == {str(number).encode() for number in range(11)}


def test_a_drain_waits_for_what_is_in_flight_in_every_worker(fresh: Any, app: Any, respond: Any, until: Any) -> None:
    release = threading.Event()

    def slow(request: Any) -> Any:
        release.wait(10)
        return respond("done")

    running, old, new = fresh(), app("old", slow), app("new")
    running.serve(old)
    socks = [running.connect() for _ in range(10)]
    for sock in socks:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 0\r\n\r\n")
    until(lambda: running.router.in_flight(old.target) == 10)
    running.serve(new)
    start = time.monotonic()
    assert running.router.drain(old.target, 0.3) is False
    assert 0.25 < time.monotonic() - start < 2
    threading.Timer(0.3, release.set).start()
    assert running.router.drain(old.target, 10) is True
    assert running.router.in_flight(old.target) == 0
    for sock in socks:
        assert sock.recv(4096).endswith(b"done")
        sock.close()


@pytest.mark.parametrize("killed", [False, True], ids=["its master lives", "its master is killed"])
def test_a_router_whose_folder_is_removed_serves_what_is_in_flight_and_leaves_its_place_to_another(
    fresh: Any, app: Any, respond: Any, kill: Any, alive: Any, until: Any, killed: bool
) -> None:
    release = threading.Event()

    def slow(request: Any) -> Any:
        release.wait(10)
        return respond("done")

    running, old = fresh(), app("old", slow)
    running.serve(old)
    about = running.router.status()
    with running.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        until(lambda: old.requests)
        shutil.rmtree(running.state)
        if killed:
            kill(about["pid"])
        until(lambda: not who_listens(running.port), what="the end of listening")
        release.set()
        assert sock.recv(4096).endswith(b"done")
    until(lambda: not any(alive(pid) for pid in (about["pid"], *(item["pid"] for item in about["workers"]))))
    assert not running.state.exists(), "nobody makes it anew"
    running.router.start(running.settings)
    running.serve(app("new"))
    assert running.ask().body == b"new"


def test_nobody_tidies_up_the_folder_of_a_router_that_runs(fresh: Any) -> None:
    folder = os.open(fresh().state, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as systemd-tmpfiles asks
    os.close(folder)


def test_a_platform_that_was_replaced_cannot_change_the_routes_of_the_one_that_is_there(fresh: Any, app: Any) -> None:
    running = fresh()
    running.serve(app("new"))
    replaced = ProxyRouter()
    replaced.start(running.settings)
    running.router.start(replace(running.settings, platform="another"))
    with pytest.raises(Unavailable, match="it serves another platform"):
        replaced.apply(RouteTable(generation=99, routes=()))
    running.serve(app("newer"))
    assert running.ask().body == b"newer"


def test_a_worker_that_is_killed_is_replaced(fresh: Any, app: Any, load: Any, kill: Any, until: Any) -> None:
    running = fresh()
    running.serve(app())
    old = running.workers()
    with load(running.port, pause=0.02) as clients:
        clients.wait_for(20)
        kill(old[0])
        until(lambda: len(running.workers()) == 2 and old[0] not in running.workers())
        clients.wait_for(50)
    lost = len(clients.failures)
    assert lost <= 6, "only what the killed worker held: one request a client at most"
    assert running.router.status()["restarts"] == 1
    running.serve(app("later"))
    assert {running.ask().body for _ in range(20)} == {b"later"}


def test_a_master_that_is_killed_is_replaced_by_its_workers_and_nothing_is_lost(
    fresh: Any, app: Any, load: Any, kill: Any, until: Any
) -> None:
    running = fresh()
    current = app("0")
    running.serve(current)
    workers = sorted(running.workers())
    with load(running.port) as clients:
        for number in (1, 2):
            master = running.router.status()["pid"]
            clients.wait_for(50)
            kill(master)
            clients.wait_for(50)
            about = until(lambda old=master: (found := running.router.status())["pid"] != old and found)
            assert about["generation"] == number
            until(lambda: sorted(running.workers()) == workers)
            new = app(str(number))
            running.serve(new)
            assert running.router.drain(current.target, 10) is True
            current.close()
            current = new
        clients.wait_for(50)
    assert not clients.failures


def test_the_whole_router_may_die_and_comes_back_with_its_routes(fresh: Any, app: Any, kill: Any, until: Any) -> None:
    running = fresh(workers=1)
    running.serve(app())
    about = running.router.status()
    os.kill(about["pid"], signal.SIGSTOP)  # or it would start workers again
    for worker in about["workers"]:
        kill(worker["pid"])
    kill(about["pid"])
    running.router.start(running.settings)
    assert running.ask().body == b"app"


def test_new_code_is_put_in_force_without_a_request_lost(fresh: Any, app: Any, load: Any, until: Any) -> None:
    running = fresh()
    running.serve(app())
    before, master = set(running.workers()), running.router.status()["pid"]
    with load(running.port, pause=0.005) as clients:
        clients.wait_for(50)
        running.router.reload()
        clients.wait_for(50)
    assert not clients.failures
    assert running.router.status()["pid"] == master, "the process stays, for systemd"
    assert not before & set(running.workers()) and len(running.workers()) == 2
    until(lambda: not running.workers("retiring"), what="the end of the old workers")


def test_a_websocket_outlives_the_worker_that_accepted_it(fresh: Any, until: Any) -> None:
    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    running = fresh(workers=1)
    with websockets.sync.server.serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        chat = Target(instance="chat", host="127.0.0.1", port=server.socket.getsockname()[1])
        running.apply(Route(host="app.localhost", app="chat", targets=(chat,)))
        with websockets.sync.client.connect("ws://app.localhost/", sock=running.connect()) as client:
            client.send("before")
            assert client.recv(timeout=5) == "before"
            running.router.reload()
            assert len(running.workers("retiring")) == 1
            client.send("after")
            assert client.recv(timeout=5) == "after"
        until(lambda: not running.workers("retiring"), what="the end of the old worker")
        server.shutdown()
        thread.join()


def test_an_idle_connection_is_served_once_more_by_a_worker_that_retires(fresh: Any, app: Any, until: Any) -> None:
    running = fresh(workers=1)
    running.serve(app())
    with running.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        assert sock.recv(4096).endswith(b"app")
        running.router.reload()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        answer = sock.recv(4096)
        assert answer.endswith(b"app") and b"Connection: close" in answer
        assert sock.recv(4096) == b""


def test_a_second_controller_adopts_the_router_with_its_state(fresh: Any, app: Any) -> None:
    running, one = fresh(workers=1), app()
    running.serve(one)
    pid, workers = running.router.status()["pid"], running.workers()
    running.router.close()
    other = ProxyRouter()
    other.start(running.settings)
    assert (other.status()["pid"], running.workers()) == (pid, workers)
    with pytest.raises(Conflict, match="older"):
        other.apply(RouteTable(generation=0))
    other.apply(RouteTable(generation=1, hosts=("localhost",)))  # the same again is no conflict


def test_two_controllers_that_start_at_once_get_one_router(tmp_path: Path, fresh: Any) -> None:
    running = fresh(workers=1)
    running.router.stop()
    routers = [ProxyRouter(), ProxyRouter()]
    threads = [threading.Thread(target=router.start, args=(running.settings,)) for router in routers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert routers[0].status()["pid"] == routers[1].status()["pid"]


def test_changed_settings_reach_the_workers_and_changed_addresses_the_sockets(fresh: Any, app: Any) -> None:
    from mini_core.types import replace

    running = fresh(workers=1)
    running.serve(app(handler=lambda request: time.sleep(1.5)))
    running.settings = replace(running.settings, options={"response_timeout": 0.3})
    running.router.start(running.settings)
    assert running.ask().status == 504
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    old = running.port
    running.settings = replace(running.settings, binds=(Endpoint(host="127.0.0.1", port=port),))
    running.router.start(running.settings)
    assert running.ask().status == 504, "the routes are still known"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old))


def test_a_port_in_use_is_named_with_who_holds_it(fresh: Any) -> None:
    from mini_core.types import replace

    running = fresh(workers=1)
    running.router.stop()
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(running.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Unavailable) as caught:
            ProxyRouter().start(running.settings)
        holder.communicate(b"\n")
    assert f"127.0.0.1:{running.port} is in use by python" in caught.value.message
    assert f"(pid {holder.pid})" in caught.value.message and caught.value.code == "port-in-use"
    with pytest.raises(Unavailable, match=r"privileges|cannot be used|in use"):
        elsewhere = Endpoint(host="192.0.2.1", port=80)  # an address of no machine
        ProxyRouter().start(replace(running.settings, binds=(elsewhere,)))


def test_both_loopbacks_are_served(fresh: Any, app: Any) -> None:
    from mini_core.types import replace

    running = fresh(workers=1)
    running.settings = replace(
        running.settings, binds=(running.settings.binds[0], Endpoint(host="::1", port=running.port))
    )
    running.router.start(running.settings)
    one = app()
    running.serve(one)
    if f"[::1]:{running.port}" in running.router.status()["binds"]:
        with socket.create_connection(("::1", running.port), timeout=5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
            assert b" 200 " in sock.recv(4096)
        assert one.requests[-1].header("x-forwarded-for") == "::1"
        assert one.requests[-1].header("forwarded").startswith('for="[::1]";')
    assert running.ask().body == b"app"


class Systemd:
    """Starts the router as systemd does: a socket as descriptor 3, LISTEN_PID, a datagram when it is ready."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "s"
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._notify.settimeout(20)

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mini_proxy", "--state", str(self.state), "--workers", "1", "--platform", "p"]
        command += ["--controller", str(self.folder / "c.sock")]
        fd = str(self.socket.fileno())
        environ = {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(self.folder / "notify"), "INVOCATION_ID": "1", "FD": fd}
        process = subprocess.Popen(
            ["bash", "-c", 'export LISTEN_PID=$$; exec "$@" 3<&$FD', "sh", *command],
            pass_fds=[self.socket.fileno()],
            env={**os.environ, **environ},
            stderr=subprocess.DEVNULL,
        )
        assert self._notify.recv(100) == b"READY=1"
        return process

    def close(self) -> None:
        self._notify.close()
        self.socket.close()


def test_systemd_holds_the_sockets_and_may_start_the_master_anew(
    tmp_path: Path, app: Any, load: Any, until: Any, alive: Any
) -> None:
    systemd = Systemd(tmp_path)
    master = systemd.start()
    try:
        router, one = ProxyRouter(), app()
        router.start(_settings_of(systemd.state, (Endpoint(host="127.0.0.1", port=80),), tmp_path))
        about = until(lambda: (found := router.status())["workers"][0]["state"] == "serving" and found)
        assert (about["pid"], about["binds"]) == (master.pid, [f"127.0.0.1:{systemd.port}"])
        router.apply(RouteTable(generation=1, routes=(Route(host="app.localhost", app="a", targets=(one.target,)),)))
        workers = [item["pid"] for item in about["workers"]]
        with load(systemd.port, pause=0.003) as clients:
            clients.wait_for(20)
            master.kill()
            master.wait()
            clients.wait_for(20)
            master = systemd.start()
            clients.wait_for(20)
        assert not clients.failures
        about = router.status()
        assert (about["pid"], [item["pid"] for item in about["workers"]]) == (master.pid, workers)
        master.terminate()
        assert master.wait(20) == 0
        until(lambda: not alive(workers[0]))
    finally:
        master.kill()
        master.wait()
        systemd.close()


def _settings_of(state: Path, binds: tuple[Endpoint, ...], tmp_path: Path) -> Any:
    from mini_core.types import RouterSettings

    return RouterSettings(binds=binds, state=str(state), controller=str(tmp_path / "c.sock"), platform="p", workers=1)


def test_requests_in_flight_are_served_when_the_router_stops(fresh: Any, app: Any, respond: Any, until: Any) -> None:
    def slow(request: Any) -> bytes:
        time.sleep(0.5)
        return bytes(respond("served"))

    running, one = fresh(workers=1), app("slow", slow)
    running.serve(one)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(running.ask()))
    thread.start()
    until(lambda: one.requests)
    running.router.stop()
    thread.join()
    assert answers[0].body == b"served"
    with pytest.raises(ConnectionRefusedError):
        running.connect()
    assert not running.router._state.control.exists()


def test_nobody_else_can_read_or_command_the_router(fresh: Any, app: Any) -> None:
    running = fresh(workers=1)
    running.serve(app())
    running.ask()
    assert stat.S_IMODE(running.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.router._state.control.stat().st_mode) == 0o600
    for path in running.state.iterdir():
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_log_is_rotated_and_goes_on(fresh: Any, app: Any, until: Any) -> None:
    running = fresh(workers=1, log_size=20_000)
    running.serve(app())

    def ask_until_rotated() -> bool:
        for _ in range(50):
            running.ask("/before")
        return (running.state / "router.log.1").exists()

    until(ask_until_rotated)
    running.ask("/after")
    until(lambda: '"path":"/after"' in running.log_lines())
    for name in ("router.log", "router.log.1"):
        for line in (running.state / name).read_text().splitlines():
            assert json.loads(line)["app"] == "app"


def test_a_folder_named_far_from_the_root_still_has_a_control_socket(tmp_path: Path) -> None:
    from mini_proxy.state import State

    control = State(tmp_path / ("long" * 30)).control
    assert len(str(control)) < 100
    assert stat.S_IMODE(control.parent.stat().st_mode) == 0o700


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    from mini_core.errors import ConfigError
    from mini_core.types import replace

    settings = _settings_of(tmp_path / "s", (Endpoint(host="127.0.0.1", port=1),), tmp_path)
    with pytest.raises(ConfigError, match=r"plugins\.proxy\.max_bodies"):
        ProxyRouter().start(replace(settings, options={"max_bodies": 1}))
    with pytest.raises(ConfigError, match=r"max_body"):
        ProxyRouter({"max_body": "big"}).start(settings)
