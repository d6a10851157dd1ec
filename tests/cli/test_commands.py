"""Each command: what it asks of the server, and what it prints."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from mini_core import api
from mini_core.cli.logs import _event_line
from mini_core.cli.params import parse_moment
from mini_core.types import Event, LogLine, replace
from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeController, FakeServer


@pytest.fixture
def blog(server: FakeServer) -> FakeController:
    """A server with the app blog."""
    server.controller.known["blog"] = api.AppInfo(
        name="blog",
        state="running",
        created_at=1.0,
        release=2,
        url="http://blog.localhost:8080",
        runtime="docker",
        formation={"web": 2, "worker": 1},
        deployed_at=time.time() - 7200,
    )
    return server.controller


def test_status_shows_apps_and_problems(mini: Mini, blog: FakeController):
    lines = mini("status").out.splitlines()
    assert lines[0].endswith("(docker runtime, proxy router, pid 4711)")
    assert any(line.split()[:5] == ["blog", "running", "v2", "web=2", "worker=1"] for line in lines)
    assert lines[-2:] == ["1 problem", "  blog: web.1 crashed 14 times since 02:03: mini logs blog"]
    assert json.loads(mini("status", "--json").out)["pid"] == 4711


def test_doctor_says_what_mends_an_error_and_ends_with_1(mini: Mini, blog: FakeController):
    lines = mini("doctor", code=1).out.splitlines()
    number = next(number for number, line in enumerate(lines) if "1 GB free" in line)
    assert lines[number].split() == ["error", "disk", "1", "GB", "free"]
    assert lines[number + 1].strip() == "Remove something"
    assert any(line.split() == ["ok", "engine", "Docker", "20.10"] for line in lines)


def test_doctor_works_without_a_platform(mini: Mini, monkeypatch: pytest.MonkeyPatch):
    result = mini("doctor", "--json", code=1)
    first, *others = json.loads(result.out)["checks"]
    assert (first["name"], first["state"]) == ("platform", "error") and "No local platform" in first["detail"]
    assert {"disk", "port", "plugins"} <= {check["name"] for check in others}


def test_apps_are_listed_shown_created_and_renamed(mini: Mini, blog: FakeController):
    assert mini("apps").out == mini("apps", "list").out
    assert "http://blog.localhost:8080" in mini("apps").out and "2 h ago" in mini("apps").out
    assert [app["name"] for app in json.loads(mini("apps", "--json").out)] == ["blog"]
    shown = mini("apps", "info", "blog").out
    assert "State:      running" in shown and "Processes:  web=2 worker=1" in shown
    created = mini("apps", "create")
    assert created.out == "blue-sky\n" and "mini deploy . blue-sky" in created.err
    mini("apps", "create", "shop")
    assert "There is an app shop already" in mini("apps", "create", "shop", code=1).err
    mini("apps", "rename", "shop", "store")
    assert sorted(blog.known) == ["blog", "blue-sky", "store"]


def test_no_apps_yet_says_how_to_make_one(mini: Mini, server: FakeServer):
    result = mini("apps")
    assert result.out == "" and result.err == "No apps yet. Make one: mini deploy .\n"


def test_ps_speaks_plainly(mini: Mini, blog: FakeController):
    lines = mini("ps", "blog").out.splitlines()
    assert lines[0].split() == ["PROCESS", "STATE", "RELEASE", "UP", "MEMORY", "CPU", "ADDRESS", "COMMAND"]
    assert " ".join(lines[1].split()) == "web.1 running v2 5 min 100 MB of 512 MB 2% 10.0.0.2:8000 gunicorn app:app"
    assert lines[3] == "web.2 crashed 14 times since 02:03, out of memory (512 MB), next try in 60 s"
    assert lines[4] == "  mini logs blog --process web.2"


def test_ps_of_an_app_without_a_release_says_what_came_of_its_first_deploy(
    mini: Mini, blog: FakeController, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blog, "ps", lambda app: ())
    known(blog, state="new", release=None)
    assert mini("ps", "blog").err.endswith(" runs yet. Deploy it: mini deploy . blog\n")
    for state, hint in (("running", "attach 41"), ("failed", "show 41")):
        blog.jobs = {41: replace(blog.job("blog", "deploy", "me"), id=41, state=state)}
        assert mini("ps", "blog").err.endswith(f": mini deploys {hint}\n")


def test_scale_restart_stop_start_and_rollback(mini: Mini, server: FakeServer, blog: FakeController):
    named = f"blog on {server.url}"
    result = mini("scale", "web=2", "worker=0", "--memory", "512m", "--cpu", "0.5", "--process", "web", "-a", "blog")
    assert blog.calls[-1] == ("scale", "blog", {"web": 2, "worker": 0}, 512 * 1024 * 1024, 0.5, "web")
    what = f"{named}: web=2 worker=0 memory=512m cpu=0.5 for web"
    assert result.err.splitlines()[-1] == f"Scaled {what}; this is v1." and "🚀" not in result.out
    assert f"Scaled {named}: web=3.\n" in mini("scale", "web=3", "-a", "blog").err
    mini("scale", "--memory", "0", "--cpu", "0", "-a", "blog")
    assert blog.calls[-1] == ("scale", "blog", {}, 0, 0.0, "")
    assert mini("restart", "blog", "--process", "web").err.splitlines()[-1] == f"Restarted {named}."
    assert blog.calls[-1] == ("restart", "blog", "web")
    assert mini("stop", "blog").err == f"Stopped {named}. Start it: mini start blog\n"
    assert f"Started {named}." in mini("start", "blog").err
    assert f"Rolled {named} back to v1; this is v1." in mini("rollback", "v1", "-a", "blog").err
    assert blog.calls[-1] == ("rollback", "blog", 1)
    assert json.loads(mini("rollback", "-a", "blog", "--json").out)["kind"] == "rollback"
    assert "Expected PROCESS=NUMBER, got web" in mini("scale", "web", "-a", "blog", code=2).err
    assert mini("scale", "-a", "blog").out == "web=2 worker=1\n"
    known(blog, release=None)
    assert "Nothing to scale" in mini("scale", "-a", "blog", code=2).err
    assert "Not a release: new" in mini("rollback", "new", "-a", "blog", code=2).err


def known(blog: FakeController, **changes: Any) -> None:
    """The app as it is, running unless said otherwise."""
    blog.known["blog"] = api.AppInfo(**{"name": "blog", "state": "running", "created_at": 1.0, "release": 1, **changes})


def test_why_an_app_is_silent_is_said_with_what_changes_that(mini: Mini, server: FakeServer, blog: FakeController):
    named = f"blog on {server.url}"
    blog.instances = ()
    known(blog, state="asleep")
    assert mini("ps", "blog").err == f"{named} is asleep: the next request wakes it.\n"
    known(blog, formation={"web": 0})
    assert mini("ps", "blog").err == f"{named} is scaled to web=0. Start it: mini scale web=1 -a blog\n"
    known(blog, state="stopped")
    stopped = f"{named} is stopped. Start it: mini start blog\n"
    assert mini("ps", "blog").err == stopped
    assert mini("env", "set", "A=1", "-a", "blog").err.endswith(f"Set A for {named}; this is v1.\n{stopped}")
    known(blog, state="maintenance")
    result = mini("deploy", ".", "blog")
    assert f"{named} is in maintenance: its visitors are told so until mini maintenance off -a blog" in result.err
    assert result.out == "Your app will be at: http://blog.localhost:8080\n"
    assert (mini("maintenance", "-a", "blog").out, mini("maintenance", "-a", "blog", "--json").out) == (
        "on\n",
        '{\n  "on": true\n}\n',
    )


def test_steps_of_what_is_no_deploy_are_not_counted(mini: Mini, blog: FakeController):
    assert "\nStarting container... Done.  (healthy after 0.8 s)\n" in "\n" + mini("restart", "blog").err


def test_local_processes_are_called_so(mini: Mini, blog: FakeController):
    blog.known["blog"] = api.AppInfo(name="blog", state="running", created_at=1.0, runtime="process")
    assert "Starting process... Done." in mini("restart", "blog").err


def test_releases_are_listed_and_shown(mini: Mini, blog: FakeController):
    lines = mini("releases", "blog").out.splitlines()
    assert mini("releases", "-a", "blog").out.splitlines() == lines
    assert "No such command 'shwo'" in mini("releases", "shwo", code=2).err
    assert " ".join(lines[1].split()) == "v2 current 60 min ago admin deploy 01234567 +2"
    assert lines[2].split()[-1] == "gone"
    assert lines[3].split()[:2] == ["v0", "failed"]
    shown = mini("releases", "show", "v2", "-a", "blog").out
    assert "Process:   web: gunicorn app:app" in shown and "Limits:    all: 512 MB" in shown


def test_env_is_set_masked_revealed_exported_and_unset(mini: Mini, server: FakeServer, blog: FakeController):
    result = mini("env", "set", "A=1", "B=two words", "C=x=y", "-a", "blog")
    assert result.err.splitlines()[-1] == f"Set A, B, C for blog on {server.url}; this is v1."
    assert blog.variables["blog"] == {"A": "1", "B": "two words", "C": "x=y"}
    assert mini("env", "-a", "blog").out == "A=********\nB=********\nC=********\n"
    assert mini("env", "list", "blog", "--reveal").out == "A=1\nB=two words\nC=x=y\n"
    assert mini("env", "get", "B", "-a", "blog").out == "two words\n"
    assert json.loads(mini("env", "get", "B", "-a", "blog", "--json").out) == {"B": "two words"}
    assert mini("env", "export", "blog").out == "A=1\nB='two words'\nC=x=y\n"
    assert "D is not set for blog" in mini("env", "get", "D", "-a", "blog", code=1).err
    mini("env", "unset", "A", "-a", "blog")
    assert "A" not in blog.variables["blog"]
    known(blog, release=None)
    first = mini("env", "set", "B=two words", "-a", "blog").err
    assert first == f"Set B for blog on {server.url}. The first deploy uses it.\n"
    known(blog)
    again = mini("env", "set", "B=two words", "-a", "blog").err
    assert again == f"Nothing to change: blog on {server.url} has these values already.\n"
    assert mini("env", "unset", "B", "NO", "-a", "blog").err.startswith(f"Not set for blog on {server.url}: NO\n")
    assert mini("env", "unset", "NO", "-a", "blog").err == f"Not set for blog on {server.url}: NO\n"


def test_env_takes_values_from_stdin_and_files(mini: Mini, blog: FakeController, tmp_path: Path):
    mini("env", "set", "TOKEN", "-a", "blog", stdin="s3cret\n")
    assert "To set it empty: mini env set TOKEN=" in mini("env", "set", "TOKEN", "-a", "blog", code=2).err
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN-----\r\nx\r\n")
    mini("env", "set", "--from-file", f"PEM={tmp_path / 'key.pem'}", "-a", "blog")
    assert blog.variables["blog"] == {"TOKEN": "s3cret", "PEM": "-----BEGIN-----\r\nx"}
    (tmp_path / "binary").write_bytes(b"\xff")
    assert "not UTF-8 text" in mini("env", "set", "--from-file", f"B={tmp_path / 'binary'}", "-a", "blog", code=1).err
    assert "the value of B: not UTF-8 text" in mini("env", "set", "B=\udcff", "-a", "blog", code=1).err
    assert "cannot be the name of a variable" in mini("env", "set", "1A=x", "-a", "blog", code=1).err
    for own in ("PORT", "HOST"):
        assert f"{own} cannot be set" in mini("env", "set", f"{own}=1", "-a", "blog", code=2).err


def test_env_imports_dotenv_and_json_without_what_the_platform_sets(mini: Mini, blog: FakeController, tmp_path: Path):
    result = mini("env", "import", "-", "-a", "blog", stdin='export A="1"\r\nPORT=8000\r\nHOST=::\n# x\nB=\n')
    assert result.err.startswith("Left out: HOST, PORT (the platform sets them)\n")
    assert blog.variables["blog"] == {"A": "1", "B": ""}
    mini("env", "import", "-", "-a", "blog", stdin='{"C": 3, "D": true, "PORT": 1}')
    assert blog.variables["blog"] == {"A": "1", "B": "", "C": "3", "D": "true"}
    (tmp_path / ".env").write_text("GOOD=1\nthis is no line\n")
    result = mini("env", "import", str(tmp_path / ".env"), "-a", "blog", code=1)
    assert f"{tmp_path / '.env'}:2: expected KEY=VALUE" in result.err
    assert "No such file" in mini("env", "import", "nope", "-a", "blog", code=1).err
    assert "stdin sets nothing" in mini("env", "import", "-", "-a", "blog", code=1).err


def test_a_variable_that_pages_are_built_with_is_not_set_for_the_app_alone_unnoticed(mini: Mini, blog: FakeController):
    said = mini("env", "set", "VITE_API=/api", "A=1", "-a", "blog").err.splitlines()[0]
    assert said == "Warning: The build does not see VITE_API. For that: mini env set --build VITE_API=… -a blog"
    assert "Warning" not in mini("env", "set", "VITE_API=/api", "--build", "-a", "blog").err


def test_build_variables_are_for_the_next_deploy(mini: Mini, server: FakeServer, blog: FakeController):
    result = mini("env", "set", "A=1", "--build", "-a", "blog")
    assert result.err == f"Set A for blog on {server.url}. The next deploy uses it.\n"


def test_logs_are_shown_filtered_and_as_ndjson(mini: Mini, blog: FakeController):
    blog.lines = [
        LogLine(at=1.0, app="blog", source="build", text="Collecting flask"),
        LogLine(at=2.0, app="blog", source="app", process="web.1", text="hello  ☃"),
    ]
    lines = mini("logs", "blog", "-n", "5", "--process", "web", "--grep", "h.*o", "--source", "app").out.splitlines()
    assert [line[15:] for line in lines] == ["build     Collecting flask", "web.1     hello  ☃"]
    query = blog.calls[-1][2]
    assert (query["lines"], query["process"], query["pattern"], query["source"]) == (5, "web", "h.*o", "app")
    assert [json.loads(line)["text"] for line in mini("logs", "blog", "--json").out.splitlines()] == [
        "Collecting flask",
        "hello  ☃",
    ]
    mini("logs", "blog", "-n", "0")
    assert blog.calls[-1][2]["lines"] == 0
    mini("logs", "blog", "--since", "30m")
    assert abs(blog.calls[-1][2]["since"] - (time.time() - 1800)) < 5


def test_a_time_is_understood_in_three_ways(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    noon = 1_764_072_000.0  # 2025-11-25 12:00 UTC
    assert parse_moment("30m", noon) == noon - 1800
    assert parse_moment("11:30", noon) == noon - 1800
    assert parse_moment("13:00", noon) == noon - 23 * 3600
    assert parse_moment("2025-11-25T11:00", noon) == noon - 3600
    assert parse_moment("2025-11-25T13:00+02:00", noon) == noon - 3600
    assert parse_moment("yesterday", noon) is None
    monkeypatch.undo()
    time.tzset()


def test_events_tell_who_did_what(mini: Mini, blog: FakeController):
    assert mini("events").out.split()[2:] == ["app.created", "blog", "admin", "reason=test"]
    assert json.loads(mini("events", "--json", "-a", "blog").out)["kind"] == "app.created"


def test_times_among_an_events_data_are_for_people():
    data = {"name": "web.1", "crashes": 2, "next_try": 1764072000.5, "exit_code": None}
    line = _event_line(Event(id=1, at=1.0, kind="instance.crashed", actor="platform", app="blog", data=data))
    assert re.search(r" name=web.1 crashes=2 next_try=\d\d:\d\d:\d\d$", line)


def test_domains_volumes_maintenance(mini: Mini, server: FakeServer, blog: FakeController):
    assert "blog.localhost" in mini("domains", "list", "blog").out
    added = mini("domains", "add", "example.com", "-a", "blog").err
    assert "DNS record to make: example.com. A 192.0.2.1" in added
    mini("domains", "remove", "example.com", "-a", "blog")
    assert blog.calls[-1] == ("remove_domain", "blog", "example.com")
    assert mini("volumes", "-a", "blog").out.splitlines()[1].split() == ["/data", "data"]
    assert "Added a volume at /data" in mini("volumes", "add", "/data", "-a", "blog").err
    assert "--yes" in mini("volumes", "remove", "/data", "-a", "blog", code=2).err
    mini("volumes", "remove", "/data", "-a", "blog", "--yes")
    assert blog.calls[-1] == ("remove_volume", "blog", "/data")
    assert mini("maintenance", "on", "-a", "blog").err == f"Maintenance of blog on {server.url} is on.\n"
    assert blog.calls[-1] == ("maintenance", "blog", True)


def test_keys_are_shown_once_and_revoked(mini: Mini, blog: FakeController):
    assert mini("keys").out.splitlines()[1].split()[:2] == ["admin", "all"]
    result = mini("keys", "create", "ci", "--only", "blog", "--expires-in", "90d")
    assert result.out == "mini_new\n" and "only time" in result.err
    assert blog.calls[-1] == ("key", "ci", "blog", 90 * 86400.0)
    mini("keys", "revoke", "ci", code=2)
    mini("keys", "revoke", "ci", "--yes")
    assert blog.calls[-1] == ("revoke", "ci")


def test_deploys_are_listed_shown_and_cancelled(mini: Mini, blog: FakeController):
    assert mini("deploys").err == "No deploys yet. Make one: mini deploy .\n"
    mini("restart", "blog")
    assert mini("deploys", "-n", "5").out.splitlines()[1].split()[:6] == [
        "41",
        "blog",
        "restart",
        "done",
        "v1",
        "admin",
    ]
    assert mini("deploys", "list", "-a", "blog", "--json").out.startswith("[")
    shown = mini("deploys", "show", "41").out
    assert shown.startswith("Deploy 41 of blog: done\nWhat:     restart\nBy:       key admin, ")
    assert "Collecting flask" in mini("deploys", "show", "41", "--log").out
    assert "is being cancelled" in mini("deploys", "cancel", "41").err
    assert "No deploy 9" in mini("deploys", "show", "9", code=1).err


def test_plugins_and_buildpacks_of_the_server(mini: Mini, blog: FakeController):
    lines = mini("plugins").out.splitlines()
    assert lines[1].split() == ["sick", "1", "broken", "sick-dist"]
    assert lines[2] == "sick: no such module"
    assert "an index.php" in mini("buildpacks").out


def test_plugins_and_buildpacks_here(mini: Mini, home: Path):
    names = {info["name"] for info in json.loads(mini("plugins", "list", "--json").out)}
    assert {"buildpacks", "docker", "process", "proxy"} <= names
    assert {"go", "node", "static"} <= {info["name"] for info in json.loads(mini("buildpacks", "list", "--json").out)}


def test_open_prints_the_url(mini: Mini, blog: FakeController, monkeypatch: pytest.MonkeyPatch):
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    assert mini("open", "blog").out.strip() == opened[0]


def test_version_names_the_server_too(mini: Mini, server: FakeServer):
    assert mini("version").out.splitlines()[1] == f"server 0.1.0 at {server.url}"
    assert mini("--version").out == mini("version", "--host", "local").out == "mini 0.1.0\n"
    assert json.loads(mini("version", "--json").out)["server"] == "0.1.0"
