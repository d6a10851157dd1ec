"""mini.toml: what it says, and what is said about a wrong one."""

from __future__ import annotations

import pytest

from mini_core.errors import ConfigError
from mini_core.manifest import minitoml, parse_mini_toml, read_manifest
from mini_core.quantities import parse_duration, parse_size
from mini_core.sources import MemorySource
from mini_core.types import EnvEntry, Limits, Volume

WRONG = [
    ("[processes]\nweb = 3", "processes.web: expected a string, got 3"),
    ("[processes]\n'a b' = 'x'", "processes.a b: expected a process name"),
    ("[procesess]\nweb = 'x'", "procesess: unknown key | Did you mean processes?"),
    ("[build]\nbuildpak = 'python'", "build.buildpak: unknown key | Did you mean buildpack?"),
    ("[build]\nzzz = 1", "build.zzz: unknown key | Known are: args, buildpack"),
    ("[build]\npackages = 'ffmpeg'", 'build.packages: expected a list of strings, got "ffmpeg"'),
    ("[build]\npackages = ['x; rm -rf /']", "build.packages:"),
    ("[build.env]\n'A-B' = '1'", "build.env.A-B: expected a name such as MY_VAR"),
    ("[env]\nDEBUG = true", "env.DEBUG: expected a string, got true"),
    ("[env]\nKEY = { generate = true, required = true }", "env.KEY: expected generate or required, got both"),
    ("[env]\nKEY = { secret = true }", "env.KEY.secret: unknown key"),
    ("[health]\npath = 'x'", 'health.path: expected a path that begins with "/", got "x"'),
    ("[health]\ntimeout = 'soon'", "health.timeout: expected seconds"),
    ("[health]\ntimeout = true", "health.timeout: expected seconds"),
    ("idle = false", 'idle: expected seconds, or a string such as "90s", got false'),
    ("[limits]\nmemory = 'much'", 'limits.memory: expected a size such as "512m" or "1g", got "much"'),
    ("[limits]\ncpu = 0", "limits.cpu: expected a number above 0, got 0"),
    ("[limits.web]\nram = '1g'", "limits.web.ram: unknown key"),
    ("[cron]\nx = '0 3 * * *'", "cron.x: expected a table"),
    ("[cron.x]\nschedule = 'daily'\ncommand = 'y'", "cron.x.schedule: expected five cron fields"),
    ("[cron.x]\nschedule = '@daily'", "cron.x.command: expected a command"),
    ("[volumes]\ndata = 'data'", "volumes.data: expected an absolute path"),
    ("[volumes]\ndata = '/a/../..'", "volumes.data: expected an absolute path"),
    ("[volumes]\nData = '/data'", "volumes.Data: expected a name of lower-case letters"),
    ("[deploy]\nstrategy = 'blue-green'", 'deploy.strategy: expected "rolling" or "recreate", got "blue-green"'),
    ("[deploy]\nstrategi = 'recreate'", "deploy.strategi: unknown key | Did you mean strategy?"),
    ("[apps.api]\nwatch = []", "apps.api.path: expected the app's folder"),
    ("path = '/srv'", 'path: expected a path inside the repository, got "/srv"'),
    ("path = '../x'", "path: expected a path inside the repository"),
    ("app = ['a']", "app: expected a string"),
    ("build = 'python'", 'build: expected a table, got "python"'),
    ("x = = 2", "invalid value (at line 1"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_an_error_names_the_path_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mini_toml(text)
    told, _, hint = message.partition(" | ")
    assert caught.value.message.startswith(f"mini.toml: {told}")
    assert hint in caught.value.hint


def test_the_documented_example_is_valid_and_means_what_it_says() -> None:
    manifest = parse_mini_toml((minitoml.__doc__ or "").partition("\n\n")[2])
    assert (manifest.app, manifest.path, manifest.idle) == ("blog", "backend", 1800.0)
    assert manifest.build.buildpack == "python"
    assert manifest.build.packages == ("ffmpeg",)
    assert dict(manifest.build.env) == {"PYTHON_VERSION": "3.12"}
    assert (manifest.build.dockerfile, manifest.build.target) == ("deploy/Dockerfile", "production")
    assert dict(manifest.processes) == {"web": "gunicorn blog:app"}
    assert manifest.env == (
        EnvEntry(name="THEME", value="dark"),
        EnvEntry(name="SECRET_KEY", kind="generated"),
        EnvEntry(name="API_KEY", kind="required", description="from example.com/keys"),
    )
    assert (manifest.health.path, manifest.health.timeout, manifest.health.interval) == ("/healthz", 90.0, 10.0)
    assert dict(manifest.limits) == {
        "": Limits(memory=512 * 1024**2, cpu=1.0),
        "worker": Limits(memory=1024**3),
    }
    assert [(job.name, job.schedule) for job in manifest.cron] == [("nightly", "0 3 * * *")]
    assert manifest.volumes == (Volume(name="data", target="/data"),)
    assert manifest.strategy == "recreate"
    assert manifest.apps[0].watch == ("shared/**",)
    assert dict(manifest.plugins["NAME"]) == {}


def test_an_app_may_be_kept_awake() -> None:
    assert (parse_mini_toml("idle = 0").idle, parse_mini_toml("").idle) == (0.0, None)


def test_a_file_that_is_not_there_asks_for_nothing() -> None:
    manifest = read_manifest(MemorySource({"app.py": ""}))
    assert manifest.path == "."
    assert not manifest.processes and not manifest.procfile and not manifest.env


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 * 1024**2), ("1g", 1024**3), ("1.5G", 3 * 1024**3 // 2), ("64MiB", 64 * 1024**2), ("1024", 1024)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "m", "-1m", "1 2"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172800), ("0.5", 0.5)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(f"{text}!") is None


def test_the_app_folder_s_own_file_wins_over_the_root_s() -> None:
    source = MemorySource(
        {
            "mini.toml": "path = 'api'\n[env]\nA = 'root'\nB = 'root'\n[limits]\nmemory = '1g'",
            "api/mini.toml": "app = 'api'\n[env]\nA = 'own'\n[build]\npackages = ['git']",
            "api/Procfile": "web: ./run",
            "Procfile": "web: ./other",
        }
    )
    manifest = read_manifest(source)
    assert (manifest.path, manifest.app, manifest.build.packages) == ("api", "api", ("git",))
    assert {entry.name: entry.value for entry in manifest.env} == {"A": "own", "B": "root"}
    assert manifest.procfile[0].command == ("sh", "-c", "./run")
    assert manifest.limits[""].memory == 1024**3


def test_an_app_of_a_monorepo_is_chosen_by_name_and_a_path_beats_it() -> None:
    text = "[apps.api]\npath = 'services/api'\n[apps.web]\npath = 'web/'"
    source = MemorySource({"mini.toml": text, "services/api/a.py": "", "web/b.js": "", "else/c.go": ""})
    assert read_manifest(source, app="api").path == "services/api"
    assert read_manifest(source, app="web").path == "web"
    assert read_manifest(source, app="web", path="else").path == "else"


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"mini\.toml: path: there is no folder backend"):
        read_manifest(MemorySource({"mini.toml": "path = 'backend'"}))
    with pytest.raises(ConfigError, match=r"^path: there is no folder x"):
        read_manifest(MemorySource({"a": ""}), path="x")
