"""Heroku's files, with their meanings there: Procfile and app.json."""

from __future__ import annotations

import json
import re
from typing import Any

from mini_core.errors import ConfigError
from mini_core.manifest.tables import Table, lower_first, shorten
from mini_core.manifest.values import CronJob, HealthSettings, Manifest, Scripts
from mini_core.types import EnvEntry, ProcessType

PROCFILE, APP_JSON = "Procfile", "app.json"
PROCESS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

_PROCFILE_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(.*\S)\s*")
_CRON_FIELD = re.compile(r"[\d*/,A-Za-z-]+")
_CRON_WORDS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


def parse_procfile(text: str, file: str = PROCFILE) -> tuple[ProcessType, ...]:
    """The process types of a Procfile, in its order; their commands are shell lines. Raises ConfigError.

    The format: https://devcenter.heroku.com/articles/procfile, with `#` comments.
    """
    found: dict[str, tuple[int, ProcessType]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _PROCFILE_LINE.fullmatch(stripped)
        if not match or not PROCESS_NAME.fullmatch(match[1]):
            raise ConfigError(
                f"{file}:{number}: expected NAME: COMMAND, got {shorten(stripped)}", hint="Such as web: python app.py"
            )
        name = match[1]
        if name in found:
            raise ConfigError(f"{file}:{number}: {name} is already defined on line {found[name][0]}")
        found[name] = number, ProcessType(name=name, command=shell(match[2]), source=file)
    return tuple(process for _, process in found.values())


def shell(line: str) -> tuple[str, ...]:
    """A shell line as argv."""
    return ("sh", "-c", line)


def is_schedule(text: str) -> bool:
    """Whether it is a cron schedule: five fields as in crontab(5), or a word such as "@daily"."""
    fields = text.split()
    return text in _CRON_WORDS or (len(fields) == 5 and all(_CRON_FIELD.fullmatch(item) for item in fields))


def parse_app_json(text: str, file: str = APP_JSON) -> Manifest:
    """Heroku's app.json as part of a manifest. Keys that mini has no use for are ignored, as others' files of that
    name (Expo's, React Native's) have keys of their own. Raises ConfigError.

    The format: https://devcenter.heroku.com/articles/app-json-schema, with Dokku's `scripts.dokku`, `cron` and
    `healthchecks`; comments are allowed, as Dokku's parser does.
    """
    if not text.strip():
        return Manifest()
    data = parse_json(text, file)
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected an object, got {shorten(data)}")
    if "expo" in data:
        return Manifest()
    table = Table(data, file)
    return Manifest(
        env=_app_json_env(table.table("env")),
        formation=_formation(table.table("formation")),
        buildpacks=_buildpacks(table),
        scripts=_scripts(table.table("scripts")),
        cron=_app_json_cron(table),
        health=_app_json_health(table),
    )


def parse_json(text: str, file: str) -> Any:
    """JSON, with JSON5's comments and trailing commas allowed. Raises ConfigError with line and column."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        import json5

        try:
            return json5.loads(text)
        except (ValueError, RecursionError):
            where = f"{file}:{error.lineno}:{error.colno}"
            raise ConfigError(f"{where}: not valid JSON: {lower_first(error.msg)}", hint=f"Mend {file}.") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deeply") from error


def _app_json_env(table: Table) -> tuple[EnvEntry, ...]:
    entries = []
    for name, item in table.data.items():
        if isinstance(item, str):
            entries.append(EnvEntry(name=name, value=item))
            continue
        entry = table.table(name)
        given, description = entry.get("value"), entry.string("description")
        if given is not None and not isinstance(given, str | int | float | bool):
            raise entry.wrong("value", "a string")
        required = entry.flag("required") is not False
        if entry.string("generator") == "secret":
            entries.append(EnvEntry(name=name, kind="generated", description=description))
        elif given is not None:
            shown = given if isinstance(given, str) else json.dumps(given)
            entries.append(EnvEntry(name=name, value=shown, description=description))
        elif required:
            entries.append(EnvEntry(name=name, kind="required", description=description))
    return tuple(entries)


def _formation(table: Table) -> dict[str, int]:
    found = {}
    for name, entry in table.tables().items():
        quantity = entry.get("quantity")
        if quantity is None:
            continue
        if isinstance(quantity, bool) or not isinstance(quantity, int) or quantity < 0:
            raise entry.wrong("quantity", "a whole number")
        found[name] = quantity
    return found


def _buildpacks(table: Table) -> tuple[str, ...]:
    items = table.get("buildpacks")
    if items is None:
        return ()
    if not isinstance(items, list):
        raise table.wrong("buildpacks", 'a list such as [{"url": "heroku/python"}]')
    return tuple(str(item.get("url", "")) if isinstance(item, dict) else str(item) for item in items)


def _scripts(table: Table) -> Scripts:
    dokku = table.table("dokku")
    return Scripts(
        postdeploy=_script(table, "postdeploy"),
        dokku_predeploy=_script(dokku, "predeploy"),
        dokku_postdeploy=_script(dokku, "postdeploy"),
    )


def _script(table: Table, key: str) -> str:
    item = table.get(key)
    if isinstance(item, dict):  # Heroku's older form: {"command": …}
        return table.table(key).string("command").strip()
    return table.string(key).strip()


def _app_json_cron(table: Table) -> tuple[CronJob, ...]:
    items = table.get("cron")
    if items is None:
        return ()
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise table.wrong("cron", 'a list such as [{"schedule": "@daily", "command": "./clean"}]')
    jobs = []
    for number, item in enumerate(items, 1):
        entry = Table(item, table.file, f"cron[{number - 1}]")
        schedule, command = entry.string("schedule").strip(), entry.string("command").strip()
        if not is_schedule(schedule) or not command:
            raise ConfigError(f"{table.file}: {entry.path}: expected a schedule of five cron fields and a command")
        jobs.append(CronJob(name=f"cron-{number}", schedule=schedule, command=command))
    return tuple(jobs)


def _app_json_health(table: Table) -> HealthSettings:
    """Dokku's startup check of the web process, where it is an HTTP path."""
    checks = table.get("healthchecks")
    for check in checks.get("web", []) if isinstance(checks, dict) else []:
        path = check.get("path") if isinstance(check, dict) and check.get("type") != "liveness" else None
        if isinstance(path, str) and path.startswith("/"):
            return HealthSettings(path=path)
    return HealthSettings()
