"""Which app a command is about, which server it talks to, and whom a key is shown."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from mini_core.client import config
from mini_core.client.address import parse_address
from mini_core.errors import ConfigError, UsageError
from tests.cli.conftest import Mini
from tests.cli.fake_platform import KEY, FakeController, FakeServer


def asked(controller: FakeController) -> str:
    """The app that the last `mini logs` was about."""
    name, app, *_ = controller.calls[-1]
    assert name == "logs"
    return str(app)


@pytest.fixture
def four_apps(server: FakeServer, folder: Path) -> FakeController:
    from mini_core.api import NewApp

    for name in ("given", "variable", "toml", "link"):
        server.controller.create_app(NewApp(name=name), "admin", "")
    return server.controller


def test_the_strongest_name_wins(
    mini: Mini, server: FakeServer, four_apps: FakeController, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    config.link_app(server.url, folder, "link")
    mini("logs")
    assert asked(four_apps) == "link"
    (folder / "mini.toml").write_text('app = "toml"\n')
    mini("logs")
    assert asked(four_apps) == "toml"
    monkeypatch.setenv("MINI_APP", "variable")
    mini("logs")
    assert asked(four_apps) == "variable"
    mini("logs", "given")
    assert asked(four_apps) == "given"
    mini("logs", "-a", "given")
    assert asked(four_apps) == "given"
    assert "Two apps named" in mini("logs", "given", "-a", "toml", code=2).err


def test_the_app_is_found_from_a_folder_below_up_to_the_repositorys_top(
    mini: Mini, server: FakeServer, four_apps: FakeController, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "src/deep").mkdir(parents=True)
    config.link_app(server.url, folder, "link")
    monkeypatch.chdir(folder / "src/deep")
    mini("logs")
    assert asked(four_apps) == "link"
    (folder / "src/.git").mkdir()
    mini("logs", code=2)


def test_a_link_belongs_to_one_server(mini: Mini, server: FakeServer, four_apps: FakeController, folder: Path):
    config.link_app("https://other.example.com", folder, "link")
    result = mini("logs", code=2)
    assert result.err.splitlines() == [
        "Error: No app named: pass -a NAME or set MINI_APP",
        'Or write app = "NAME" into mini.toml.',
    ]


def test_destroy_takes_its_name_only_as_an_argument_and_asks(mini: Mini, server: FakeServer, four_apps: FakeController):
    assert mini("apps", "destroy", code=2).err.startswith("Error: Missing argument")
    result = mini("apps", "destroy", "toml", code=2)
    assert "Destroy toml on http://127.0.0.1" in result.err and "--yes" in result.err
    assert "toml" in four_apps.known
    assert "Destroyed toml on" in mini("apps", "destroy", "toml", "--yes").err
    assert "toml" not in four_apps.known


def test_links_follow_a_new_name_and_go_with_the_app(
    mini: Mini, server: FakeServer, four_apps: FakeController, folder: Path
):
    config.link_app(server.url, folder, "link")
    mini("apps", "rename", "link", "chain")
    assert config.linked_app(server.url, folder) == "chain"
    mini("apps", "destroy", "chain", "--yes")
    assert config.linked_app(server.url, folder) == ""


@pytest.mark.parametrize("name", ["../etc", "A", "a/b", "a b", "-x", "a" * 64, "ü"])
def test_a_name_that_is_no_label_never_becomes_a_path(mini: Mini, server: FakeServer, name: str):
    assert "cannot be the name of an app" in mini("logs", "-a", name, code=2).err
    assert server.controller.calls == []


# --- servers and keys


def test_the_strongest_host_wins(mini: Mini, home: Path, monkeypatch: pytest.MonkeyPatch):
    assert mini("config", "get-host").out == "local\n"
    mini("config", "set-host", "https://Kept.example.com/")
    assert mini("config", "get-host").out == "https://kept.example.com\n"
    monkeypatch.setenv("MINI_HOST", "https://variable.example.com:8443")
    assert mini("config", "get-host").out == "https://variable.example.com:8443\n"
    assert mini("config", "get-host", "--host", "ssh://me@given").out == "ssh://me@given\n"
    assert json.loads(mini("config", "show", "--json").out)["host_source"] == "MINI_HOST"
    monkeypatch.delenv("MINI_HOST")
    mini("config", "set-host", "local")
    assert mini("config", "get-host").out == "local\n"


def test_a_key_is_sent_to_its_own_server_and_to_no_other(
    mini: Mini, server: FakeServer, controller: FakeController, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MINI_API_KEY")
    other = FakeServer(FakeController(controller.paths))
    mini("config", "set-api-key", KEY)
    mini("apps")
    assert controller.keys_seen == [KEY]
    monkeypatch.setenv("MINI_HOST", other.url)
    assert "This needs a key" in mini("apps", code=1).err
    assert other.controller.keys_seen == []
    other.close()


def test_a_key_is_read_from_stdin_and_kept_where_only_its_owner_reads(
    mini: Mini, server: FakeServer, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MINI_API_KEY")
    result = mini("config", "set-api-key", stdin=f"{KEY}\n")
    assert result.err == f"Key kept for {server.url}.\n" and KEY not in result.out
    file = home / "config/hosts.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert mini("config", "show").out.splitlines()[1] == "Key:  kept"
    mini("apps")
    monkeypatch.setenv("MINI_API_KEY", "wrong")
    assert "No such key" in mini("apps", code=1).err


@pytest.mark.parametrize("key", ["", "two words", "zeile\numbruch", "schlüssel"])
def test_what_cannot_be_a_key_is_refused(mini: Mini, server: FakeServer, key: str):
    assert "That is no key" in mini("config", "set-api-key", stdin=key, code=2).err


def test_a_public_http_address_warns(mini: Mini, home: Path):
    assert "not encrypted" in mini("config", "set-host", "http://mini.example.com").err
    for near in ("http://127.0.0.1:8080", "http://localhost", "http://192.168.1.5", "https://mini.example.com"):
        assert "not encrypted" not in mini("config", "set-host", near).err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Mini.Example.com:443/", "https://mini.example.com"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://1.2.3.4:8080", "http://1.2.3.4:8080"),
        ("ssh://me@host:2222", "ssh://me@host:2222"),
        ("ssh://host/srv/admin.sock", "ssh://host/srv/admin.sock"),
        (" local ", "local"),
    ],
)
def test_an_address_has_one_spelling(text: str, expected: str):
    assert parse_address(text).text == expected


@pytest.mark.parametrize(
    "text",
    ["", "mini.example.com", "ftp://x", "https://", "https://a/path", "https://me:pw@a", "http://a:x", "https://a?b"],
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(UsageError, match="Not the address of a server"):
        parse_address(text)


def test_a_broken_hosts_file_is_named(mini: Mini, home: Path):
    (home / "config").mkdir()
    (home / "config/hosts.toml").write_text("host = [")
    result = mini("config", "get-host", code=1)
    assert result.err.startswith(f"Error: {home}/config/hosts.toml: ") and len(result.err.splitlines()) == 2
    with pytest.raises(ConfigError):
        config.save_key("x", "y")


def test_many_writers_at_once_lose_nothing(home: Path, tmp_path: Path):
    folders = [tmp_path / str(number) for number in range(20)]
    threads = [threading.Thread(target=config.link_app, args=("local", place, place.name)) for place in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [config.linked_app("local", place) for place in folders] == [place.name for place in folders]


def test_a_lock_left_behind_by_a_killed_process_is_taken_over(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "config").mkdir()
    (home / "config/hosts.lock").touch()
    monkeypatch.setattr(config, "LOCK_LIMIT", 0.1)
    config.set_host("https://a")
    assert config.current_host() == "https://a"
    assert subprocess.run(["ls", str(home / "config")], capture_output=True, text=True).stdout == "hosts.toml\n"
