"""What the repository's own files ask for: mini.toml, and Heroku's Procfile and app.json. Pure.

Everything is checked here, so that later parts never see a wrong type. Errors are ConfigErrors that name the
file, the path in it and what was expected: `mini.toml: processes.web: expected a string, got 3`.

    app = "blog"                    # name of the app
    path = "backend"                # the app's folder, for a monorepo

    [build]
    buildpack = "python"            # instead of detecting
    packages = ["ffmpeg"]           # Debian packages, for build and run
    env = { PYTHON_VERSION = "3.12" }
    dockerfile = "deploy/Dockerfile"
    target = "production"           # of the Dockerfile
    args = { EDITION = "free" }     # of the Dockerfile

    [processes]
    web = "gunicorn blog:app"       # a shell line; "" removes the process type

    [env]
    THEME = "dark"                  # a default; `mini env set` overrides it
    SECRET_KEY = { generate = true }
    API_KEY = { required = true, description = "from example.com/keys" }

    [health]
    path = "/healthz"
    timeout = "90s"                 # from start to healthy
    interval = 10                   # between later probes, in seconds

    [limits]
    memory = "512m"
    cpu = 1.0
    worker = { memory = "1g" }      # for one process type

    [cron]
    nightly = { schedule = "0 3 * * *", command = "python clean.py" }

    [volumes]
    data = "/data"

    [apps.api]                      # a monorepo's apps; `mini deploy --all`
    path = "services/api"
    watch = ["services/api/**", "shared/**"]

    [plugins.NAME]                  # a plugin's own settings, not checked here
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

import json5

from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, EnvEntry, Limits, ProcessType, Volume, value

MINI_TOML, PROCFILE, APP_JSON = "mini.toml", "Procfile", "app.json"

_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_PROCFILE_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(.*\S)\s*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VOLUME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?:=[A-Za-z0-9.+:~-]+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_CRON_FIELD = re.compile(r"[\d*/,A-Za-z-]+")
_CRON_WORDS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


@value
class HealthSettings:
    """What a file says about health; None where it says nothing. Seconds."""

    path: str | None = None
    timeout: float | None = None
    interval: float | None = None


@value
class CronJob:
    """A command at set times: five cron fields (or a word such as "@daily") and a shell line."""

    name: str
    schedule: str
    command: str


@value
class MonorepoApp:
    """One of a monorepo's apps. watch: globs of the files whose changes concern it; empty is its own folder."""

    name: str
    path: str
    watch: tuple[str, ...] = ()


@value
class Scripts:
    """app.json's scripts, as shell lines. postdeploy: once, when the app is created. dokku_*: at every deploy."""

    postdeploy: str = ""
    dokku_predeploy: str = ""
    dokku_postdeploy: str = ""


@value
class Manifest:
    """All that the repository's files ask for. Mappings are empty, strings "" where they say nothing.

    processes: shell lines of mini.toml's `[processes]`, "" for a type to leave out. procfile: the Procfile's.
    buildpacks: as app.json names them.
    """

    app: str = ""
    path: str = ""
    build: BuildSettings = BuildSettings()
    processes: Mapping[str, str] = field(default_factory=dict)
    env: tuple[EnvEntry, ...] = ()
    health: HealthSettings = HealthSettings()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    cron: tuple[CronJob, ...] = ()
    volumes: tuple[Volume, ...] = ()
    apps: tuple[MonorepoApp, ...] = ()
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    procfile: tuple[ProcessType, ...] = ()
    formation: Mapping[str, int] = field(default_factory=dict)
    buildpacks: tuple[str, ...] = ()
    scripts: Scripts = Scripts()
    warnings: tuple[str, ...] = ()

    def named(self, app: str) -> MonorepoApp | None:
        return next((item for item in self.apps if item.name == app), None)


def read_manifest(source: Source, path: str = "", app: str = "") -> Manifest:
    """The manifest of the app in a source: the root's mini.toml, then the app's own folder's files.

    path: the app's folder, overriding mini.toml. app: one of `[apps]`, which also chooses the folder. What the
    folder's own mini.toml says wins over the root's. Raises ConfigError.
    """
    root = parse_mini_toml(source.text(MINI_TOML) or "")
    chosen = root.named(app) if app else None
    folder = _relative(path or (chosen.path if chosen else "") or root.path, MINI_TOML, "path")
    if folder in ("", "."):
        return _with_herokus(root, source, ".")
    if not source.has(folder) or source.read(folder) is not None:
        where = "mini.toml: path" if not path else "path"
        raise ConfigError(f"{where}: there is no folder {folder}", hint="It is relative to the repository's root.")
    inner = source.sub(folder)
    own = parse_mini_toml(inner.text(MINI_TOML) or "", file=f"{folder}/{MINI_TOML}")
    return _with_herokus(_overlay(root, own), inner, folder)


def _with_herokus(manifest: Manifest, source: Source, path: str) -> Manifest:
    prefix = "" if path == "." else f"{path}/"
    text = source.text(PROCFILE)
    warnings = list(manifest.warnings)
    if text is None and source.read("procfile") is not None:
        warnings.append(f"{prefix}procfile is not read: it is spelled Procfile")
    processes = parse_procfile(text or "", file=prefix + PROCFILE)
    parsed = parse_app_json(source.text(APP_JSON) or "", file=prefix + APP_JSON)
    health = manifest.health
    return replace(
        manifest,
        path=path,
        procfile=processes,
        env=_by_name(parsed.env, manifest.env),
        formation=parsed.formation,
        buildpacks=parsed.buildpacks,
        scripts=parsed.scripts,
        cron=_by_name(parsed.cron, manifest.cron),
        health=parsed.health if health == HealthSettings() else health,
        warnings=tuple(warnings),
    )


def _overlay(root: Manifest, own: Manifest) -> Manifest:
    """The root's settings with the app folder's own on top."""
    build = BuildSettings(
        buildpack=own.build.buildpack or root.build.buildpack,
        packages=_union(root.build.packages, own.build.packages),
        env={**root.build.env, **own.build.env},
        dockerfile=own.build.dockerfile or root.build.dockerfile,
        target=own.build.target or root.build.target,
        args={**root.build.args, **own.build.args},
    )
    return replace(
        root,
        app=own.app or root.app,
        build=build,
        processes={**root.processes, **own.processes},
        env=_by_name(root.env, own.env),
        health=root.health if own.health == HealthSettings() else own.health,
        limits={**root.limits, **own.limits},
        cron=_by_name(root.cron, own.cron),
        volumes=_by_name(root.volumes, own.volumes),
        plugins={**root.plugins, **own.plugins},
    )


def _by_name(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    """Both, a later one replacing an earlier one of its name."""
    return tuple({item.name: item for item in (*first, *second)}.values())


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


# --- mini.toml -------------------------------------------------------------------------------------------------


def parse_mini_toml(text: str, file: str = MINI_TOML) -> Manifest:
    """mini.toml's own part of a manifest. Raises ConfigError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {_lower_first(str(error))}", hint="The format: https://toml.io.") from error
    table = Table(data, file)
    manifest = Manifest(
        app=table.string("app"),
        path=_relative(table.string("path"), file, "path"),
        build=_build(table.table("build"), file),
        processes=_processes(table.table("processes")),
        env=_env(table.table("env")),
        health=_health(table.table("health")),
        limits=_limits(table.table("limits")),
        cron=_cron(table.table("cron")),
        volumes=_volumes(table.table("volumes")),
        apps=_apps(table.table("apps"), file),
        plugins={name: dict(item.data) for name, item in table.table("plugins").tables().items()},
    )
    table.finish()
    return manifest


class Table:
    """A table of a configuration file that remembers where it is, and which of its keys were asked for."""

    def __init__(self, data: Mapping[str, Any], file: str, path: str = "") -> None:
        self.data = data
        self.file = file
        self.path = path
        self._known: list[str] = []

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, expected: str, hint: str = "") -> ConfigError:
        shown = shorten(self.data[key])
        return ConfigError(f"{self.file}: {self.where(key)}: expected {expected}, got {shown}", hint=hint)

    def get(self, key: str) -> Any:
        self._known.append(key)
        return self.data.get(key)

    def string(self, key: str) -> str:
        item = self.get(key)
        if item is None:
            return ""
        if not isinstance(item, str):
            raise self.wrong(key, "a string", "Put it in quotes." if isinstance(item, int | float) else "")
        return item

    def strings(self, key: str) -> tuple[str, ...]:
        items = self.get(key)
        if items is None:
            return ()
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise self.wrong(key, "a list of strings")
        return tuple(items)

    def flag(self, key: str) -> bool | None:
        item = self.get(key)
        if item is not None and not isinstance(item, bool):
            raise self.wrong(key, "true or false")
        return item

    def number(self, key: str) -> float | None:
        item = self.get(key)
        if item is None:
            return None
        if isinstance(item, bool) or not isinstance(item, int | float) or item <= 0:
            raise self.wrong(key, "a number above 0")
        return float(item)

    def seconds(self, key: str) -> float | None:
        item = self.get(key)
        if item is None:
            return None
        seconds = parse_duration(str(item)) if isinstance(item, int | float | str) and item is not True else None
        if not seconds:
            raise self.wrong(key, 'seconds, or a string such as "90s"')
        return seconds

    def size(self, key: str) -> int | None:
        item = self.get(key)
        if item is None:
            return None
        size = parse_size(str(item)) if isinstance(item, int | str) and not isinstance(item, bool) else None
        if not size:
            raise self.wrong(key, 'a size such as "512m" or "1g"')
        return size

    def table(self, key: str) -> Table:
        item = self.get(key)
        if item is not None and not isinstance(item, dict):
            raise self.wrong(key, "a table")
        return Table(item or {}, self.file, self.where(key))

    def tables(self) -> dict[str, Table]:
        return {key: self.table(key) for key in self.data}

    def finish(self) -> None:
        """Raises ConfigError for a key that nobody asked for, suggesting the nearest that is known."""
        for key in self.data:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1, 0.6)
                hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(set(self._known)))}."
                raise ConfigError(f"{self.file}: {self.where(key)}: unknown key", hint=hint)


def shorten(item: object) -> str:
    """A value as it would be written, for an error."""
    text = json.dumps(item, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _build(table: Table, file: str) -> BuildSettings:
    packages = table.strings("packages")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise ConfigError(f"{file}: build.packages: {shorten(package)} is no name of a Debian package")
    settings = BuildSettings(
        buildpack=table.string("buildpack"),
        packages=packages,
        env=_strings(table.table("env"), names=True),
        dockerfile=_relative(table.string("dockerfile"), file, "build.dockerfile"),
        target=table.string("target"),
        args=_strings(table.table("args")),
    )
    table.finish()
    return settings


def _strings(table: Table, *, names: bool = False) -> dict[str, str]:
    for key in table.data:
        if names and not _ENV_NAME.fullmatch(key):
            raise ConfigError(f"{table.file}: {table.where(key)}: expected a name such as MY_VAR")
    return {key: table.string(key) for key in table.data}


def _processes(table: Table) -> dict[str, str]:
    for name in table.data:
        if not _PROCESS.fullmatch(name):
            raise ConfigError(
                f"{table.file}: {table.where(name)}: expected a process name of letters, digits, - and _",
            )
    return {name: table.string(name).strip() for name in table.data}


def _env(table: Table) -> tuple[EnvEntry, ...]:
    entries = []
    for name, item in table.data.items():
        if not _ENV_NAME.fullmatch(name):
            raise ConfigError(f"{table.file}: {table.where(name)}: expected a name such as MY_VAR")
        if isinstance(item, dict):
            entries.append(_env_entry(name, table.table(name)))
        else:
            entries.append(EnvEntry(name=name, value=table.string(name)))
    return tuple(entries)


def _env_entry(name: str, table: Table) -> EnvEntry:
    generate, required = table.flag("generate"), table.flag("required")
    given, description = table.string("value"), table.string("description")
    table.finish()
    if generate and required:
        raise ConfigError(f"{table.file}: {table.path}: expected generate or required, got both")
    if generate:
        return EnvEntry(name=name, kind="generated", description=description)
    if required and not given:
        return EnvEntry(name=name, kind="required", description=description)
    return EnvEntry(name=name, value=given, description=description)


def _health(table: Table) -> HealthSettings:
    path = table.string("path")
    if path and not path.startswith("/"):
        raise table.wrong("path", 'a path that begins with "/"')
    settings = HealthSettings(path=path or None, timeout=table.seconds("timeout"), interval=table.seconds("interval"))
    table.finish()
    return settings


def _limits(table: Table) -> dict[str, Limits]:
    own = {key: item for key, item in table.data.items() if not isinstance(item, dict)}
    common = _limit(Table(own, table.file, table.path))
    found = {} if common == Limits() else {"": common}
    for name in table.data:
        if name not in own:
            found[name] = _limit(table.table(name))
    return found


def _limit(table: Table) -> Limits:
    pids = table.number("pids")
    limits = Limits(memory=table.size("memory"), cpu=table.number("cpu"), pids=None if pids is None else int(pids))
    table.finish()
    return limits


def _cron(table: Table) -> tuple[CronJob, ...]:
    jobs = []
    for name, entry in table.tables().items():
        schedule, command = entry.string("schedule").strip(), entry.string("command").strip()
        entry.finish()
        if not _PROCESS.fullmatch(name):
            raise ConfigError(f"{table.file}: {table.where(name)}: expected a name of letters, digits, - and _")
        if not is_schedule(schedule):
            raise ConfigError(
                f"{table.file}: {entry.where('schedule')}: expected five cron fields, got {shorten(schedule)}",
                hint='Such as "0 3 * * *" (every day at 03:00) or "@hourly".',
            )
        if not command:
            raise ConfigError(f"{table.file}: {entry.where('command')}: expected a command")
        jobs.append(CronJob(name=name, schedule=schedule, command=command))
    return tuple(jobs)


def is_schedule(text: str) -> bool:
    """Whether it is a cron schedule: five fields as in crontab(5), or a word such as "@daily"."""
    fields = text.split()
    return text in _CRON_WORDS or (len(fields) == 5 and all(_CRON_FIELD.fullmatch(item) for item in fields))


def _volumes(table: Table) -> tuple[Volume, ...]:
    volumes = []
    for name in table.data:
        target = table.string(name)
        if not _VOLUME.fullmatch(name):
            raise ConfigError(f"{table.file}: {table.where(name)}: expected a name of lower-case letters and digits")
        if not target.startswith("/") or ".." in target.split("/") or target.strip("/") == "":
            raise table.wrong(name, 'an absolute path such as "/data"')
        volumes.append(Volume(name=name, target=target.rstrip("/")))
    return tuple(volumes)


def _apps(table: Table, file: str) -> tuple[MonorepoApp, ...]:
    apps = []
    for name, entry in table.tables().items():
        path = _relative(entry.string("path"), file, entry.where("path"))
        if not path:
            raise ConfigError(f"{file}: {entry.where('path')}: expected the app's folder")
        apps.append(MonorepoApp(name=name, path=path, watch=entry.strings("watch")))
        entry.finish()
    return tuple(apps)


def _relative(path: str, file: str, where: str) -> str:
    """A path inside the repository, without "./" and a final "/". Raises ConfigError for one that leads out."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if path.startswith(("/", "~")) or ".." in parts or re.match(r"[A-Za-z]:", path):
        raise ConfigError(f"{file}: {where}: expected a path inside the repository, got {shorten(path)}")
    return "/".join(parts) if parts or not path else "."


def parse_size(text: str) -> int | None:
    """Bytes of "512m", "1.5g", "1024": k, m, g, t are powers of 1024. None where it is no size."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def parse_duration(text: str) -> float | None:
    """Seconds of "90", "90s", "15m", "1h30m", "2d". None where it is no duration."""
    match = _DURATION.fullmatch(text.strip().lower())
    if not match or not any(match.groups()):
        return None
    days, hours, minutes, seconds = (float(item or 0) for item in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


# --- Procfile --------------------------------------------------------------------------------------------------


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
        if not match or not _PROCESS.fullmatch(match[1]):
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


# --- app.json --------------------------------------------------------------------------------------------------


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
        try:
            return json5.loads(text)
        except (ValueError, RecursionError):
            where = f"{file}:{error.lineno}:{error.colno}"
            raise ConfigError(f"{where}: not valid JSON: {_lower_first(error.msg)}", hint=f"Mend {file}.") from error
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


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
