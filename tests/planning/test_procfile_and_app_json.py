"""Heroku's files mean what they mean there."""

from __future__ import annotations

import pytest

from mini_core.errors import ConfigError
from mini_core.manifest import parse_app_json, parse_procfile, read_manifest
from mini_core.sources import MemorySource
from mini_core.types import EnvEntry


def test_a_procfile_has_comments_blank_lines_and_several_process_types() -> None:
    text = "# web server\r\nweb:  gunicorn app:app --bind :$PORT\r\n\r\n  worker: python -u w.py # inline\n"
    text += "clock-1:sleep 1\n"
    assert [(item.name, item.command) for item in parse_procfile(text)] == [
        ("web", ("sh", "-c", "gunicorn app:app --bind :$PORT")),
        ("worker", ("sh", "-c", "python -u w.py # inline")),
        ("clock-1", ("sh", "-c", "sleep 1")),
    ]
    assert {item.source for item in parse_procfile(text)} == {"Procfile"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web: a\nweb python app.py\n", 'Procfile:2: expected NAME: COMMAND, got "web python app.py"'),
        ("web:\n", 'Procfile:1: expected NAME: COMMAND, got "web:"'),
        ("my web: x\n", "Procfile:1: expected NAME: COMMAND"),
        ("web: a\n\nweb: b\n", "Procfile:3: web is already defined on line 1"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_procfile(text)
    assert caught.value.message.startswith(message)


def test_a_misspelt_procfile_is_pointed_out() -> None:
    manifest = read_manifest(MemorySource({"procfile": "web: x"}))
    assert manifest.procfile == ()
    assert manifest.warnings == ("procfile is not read: it is spelled Procfile",)


APP_JSON = """{
  // Dokku allows comments
  "name": "blog",
  "env": {
    "THEME": "dark",
    "COUNT": {"value": 3, "description": "how many"},
    "SECRET_KEY": {"generator": "secret"},
    "API_KEY": {"description": "from example.com"},
    "OPTIONAL": {"required": false}
  },
  "formation": {"web": {"quantity": 2, "size": "standard-1x"}, "clock": {"quantity": 1}},
  "buildpacks": [{"url": "heroku/nodejs"}, {"url": "https://github.com/heroku/heroku-buildpack-python"}],
  "scripts": {
    "postdeploy": "python seed.py",
    "dokku": {"predeploy": "touch a", "postdeploy": {"command": "touch b"}},
  },
  "cron": [{"command": "clean", "schedule": "@daily"}],
  "healthchecks": {"web": [{"type": "startup", "path": "/check", "timeout": 5}]},
  "addons": ["heroku-postgresql"]
}"""


def test_app_json_is_read_as_heroku_and_dokku_read_it() -> None:
    parsed = parse_app_json(APP_JSON)
    assert parsed.env == (
        EnvEntry(name="THEME", value="dark"),
        EnvEntry(name="COUNT", value="3", description="how many"),
        EnvEntry(name="SECRET_KEY", kind="generated"),
        EnvEntry(name="API_KEY", kind="required", description="from example.com"),
    )
    assert dict(parsed.formation) == {"web": 2, "clock": 1}
    assert parsed.buildpacks == ("heroku/nodejs", "https://github.com/heroku/heroku-buildpack-python")
    assert parsed.scripts.postdeploy == "python seed.py"
    assert (parsed.scripts.dokku_predeploy, parsed.scripts.dokku_postdeploy) == ("touch a", "touch b")
    assert [(job.schedule, job.command) for job in parsed.cron] == [("@daily", "clean")]
    assert parsed.health.path == "/check"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"env": {"A": {"value": []}}}', "app.json: env.A.value: expected a string, got []"),
        ('{"env": []}', "app.json: env: expected a table, got []"),
        (
            '{"formation": {"web": {"quantity": "2"}}}',
            'app.json: formation.web.quantity: expected a whole number, got "2"',
        ),
        ('{"scripts": {"postdeploy": 1}}', "app.json: scripts.postdeploy: expected a string, got 1"),
        ('{"buildpacks": "heroku/python"}', "app.json: buildpacks: expected a list"),
        ('{"cron": [{"schedule": "now"}]}', "app.json: cron[0]: expected a schedule of five cron fields"),
        ('{\n  "env": }', "app.json:2:10: not valid JSON: expecting value"),
        ("[1]", "app.json: expected an object, got [1]"),
    ],
)
def test_a_wrong_app_json_is_an_error_that_names_the_path(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_app_json(text)
    assert caught.value.message.startswith(message)


def test_other_people_s_app_json_is_left_alone() -> None:
    assert parse_app_json('{"expo": {"name": "x"}, "env": 7}').env == ()
    assert parse_app_json('{"name": "x", "displayName": "X"}').env == ()
    assert parse_app_json("").env == ()


def test_mini_toml_wins_over_app_json() -> None:
    source = MemorySource(
        {"app.json": '{"env": {"A": "json", "B": "json"}}', "mini.toml": "[env]\nA = 'toml'\n[health]\npath = '/x'"}
    )
    manifest = read_manifest(source)
    assert {entry.name: entry.value for entry in manifest.env} == {"A": "toml", "B": "json"}
    assert manifest.health.path == "/x"
