"""`mini doctor`: each finding says what is wrong and what mends it."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from server_kit import Platform

from mini_core import api
from mini_core.paths import Paths
from mini_core.quantities import size
from mini_core.server import doctor, ports, state
from mini_core.settings import Settings
from mini_core.types import Check


def one(checks: Iterable[Check]) -> Check:
    (check,) = checks
    return check


def test_a_full_disk_is_an_error_with_the_numbers(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    assert one(doctor.disk(tmp_path, 1)).state == "ok"
    assert one(doctor.disk(tmp_path, usage.free - 1_000_000_000)).state == "warning"
    full = one(doctor.disk(tmp_path, usage.total * 2))
    assert full.state == "error"
    assert "must stay free" in full.detail
    assert full.hint


def test_folders_that_others_can_enter_are_named_with_the_command(paths: Paths) -> None:
    paths.data.mkdir(mode=0o755, parents=True)
    paths.data.chmod(0o755)
    check = one(doctor.folders(paths))
    assert (check.state, check.hint) == ("warning", f"chmod 700 {paths.data}")
    paths.data.chmod(0o700)
    assert one(doctor.folders(paths)).state == "ok"


@pytest.fixture
def other_program() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_another_program_at_the_port_is_told_from_nobody(other_program: int) -> None:
    other = one(doctor.router(Settings(bind=("127.0.0.1",), port=other_program), "p"))
    assert (other.state, other.detail) == ("error", f"Another program answers at 127.0.0.1:{other_program}")
    free = ports.choose_port(["127.0.0.1"], range(20300, 20400))
    nobody = one(doctor.router(Settings(bind=("127.0.0.1",), port=free), "p"))
    assert (nobody.state, nobody.detail) == ("error", f"Nothing answers at 127.0.0.1:{free}")


def test_names_that_do_not_resolve_come_with_others_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look_up", lambda name: ())
    check = one(doctor.names("localhost", 8080))
    assert (check.state, check.hint) == ("warning", "Use http://APP.127.0.0.1.nip.io:8080")
    check = one(doctor.names("example.com", 80))
    assert check.hint == "Make a DNS record: *.example.com A ADDRESS-OF-THIS-SERVER"
    monkeypatch.setattr(doctor, "look_up", lambda name: ("127.0.0.1", "::1"))
    assert one(doctor.names("localhost", 8080)).state == "ok"


def test_a_broken_plugin_is_worse_where_it_is_required() -> None:
    broken = api.PluginInfo(name="sick", version="1", origin="mini-sick", state="broken", reason="no module x")
    assert one(doctor.plugins([broken], ())).state == "warning"
    check = one(doctor.plugins([broken], ["sick"]))
    assert check.state == "error"
    assert check.detail == "sick: no module x (required: deploys are refused)"
    missing = next(doctor.plugins([], ["gone"]))
    assert missing.detail == "gone is required and not installed"


def test_drift_names_the_process_that_is_short() -> None:
    app = api.AppInfo(name="blog", state="degraded", created_at=1, formation={"web": 2}, running={"web": 1})
    check = one(doctor.drift([app]))
    assert (check.detail, check.hint) == ("blog: 1 of 2 web run", "mini ps blog")
    assert one(doctor.drift([])).state == "ok"


def test_a_check_that_crashes_is_a_finding_and_the_others_run() -> None:
    def crash() -> Iterator[Check]:
        raise ZeroDivisionError("oops")
        yield

    found = doctor._run(crash, lambda: [Check(name="fine", state="ok")])
    assert [check.state for check in found] == ["error", "ok"]


def test_a_platform_that_does_not_run_is_checked_from_outside(paths: Paths) -> None:
    names = {check.name: check for check in doctor.offline_checks(paths)}
    assert names["platform"].state == "skipped"
    assert names["platform"].hint == "mini up --detach"
    paths.run.mkdir(parents=True)
    state.running_file(paths).write_text("{}")
    assert next(doctor.stopped(paths)).state == "error"


def test_a_stopped_platform_is_checked_with_the_flags_of_its_last_start(paths: Paths) -> None:
    state.save_local(paths, state.Local(flags={"port": 20311, "domain": "flag.test"}))
    said = " ".join(check.detail for check in doctor.offline_checks(paths))
    assert "20311 is" in said and "*.flag.test" in said


def test_a_setting_that_is_wrong_is_the_only_finding(paths: Paths) -> None:
    paths.config.mkdir(parents=True)
    paths.settings.write_text("port = 'many'")
    check = one(doctor.offline_checks(paths))
    assert (check.name, check.state) == ("settings", "error")
    assert "port" in check.detail


def test_a_setting_made_wrong_while_the_platform_runs_is_found_before_the_next_start(paths: Paths) -> None:
    paths.config.mkdir(parents=True)
    paths.settings.write_text('drain = "soon"')
    check = one(doctor.settings_file(paths))
    assert check.state == "error" and check.detail.startswith("The next start would fail: ")


def test_the_api_merges_the_cores_checks_with_those_of_the_controller(platform: Platform) -> None:
    checks = platform.key.get("/v1/doctor").json()["checks"]
    found = {check["name"]: check["state"] for check in checks}
    assert found["sockets"] == "ok"
    assert found["plugins"] == "warning"
    assert found["router"] == "error"  # the fake has none


@pytest.mark.parametrize(
    ("count", "words"), [(5, "5 bytes"), (1_500_000_000, "1.5 GB"), (512_000_000, "512 MB"), (999_700_000, "1.0 GB")]
)
def test_sizes_are_in_words(count: int, words: str) -> None:
    assert size(count) == words
