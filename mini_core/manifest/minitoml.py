"""mini.toml, all of it optional:

app = "blog"                    # name of the app
path = "backend"                # the app's folder, for a monorepo
idle = "30m"                    # sleeps after that long without a request; 0 is never; without it the server decides

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

[deploy]
strategy = "recreate"           # stop the old release before the new one starts (requests wait); else "rolling"

[apps.api]                      # a monorepo's apps; `mini deploy --all`
path = "services/api"
watch = ["shared/**"]           # a change elsewhere does not concern it (without it, any change does)

[plugins.NAME]                  # a plugin's own settings, not checked here
"""

from __future__ import annotations

import re
import tomllib
from typing import cast, get_args

from mini_core.errors import ConfigError
from mini_core.manifest.heroku import PROCESS_NAME, is_schedule
from mini_core.manifest.tables import Table, lower_first, shorten
from mini_core.manifest.values import CronJob, HealthSettings, Manifest, MonorepoApp, Strategy
from mini_core.types import BuildSettings, EnvEntry, Limits, Volume

MINI_TOML = "mini.toml"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VOLUME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?:=[A-Za-z0-9.+:~-]+)?")


def parse_mini_toml(text: str, file: str = MINI_TOML) -> Manifest:
    """mini.toml's own part of a manifest. Raises ConfigError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {lower_first(str(error))}", hint="The format: https://toml.io.") from error
    table = Table(data, file)
    manifest = Manifest(
        app=table.string("app"),
        path=relative_path(table.string("path"), file, "path"),
        build=_build(table.table("build"), file),
        processes=_processes(table.table("processes")),
        env=_env(table.table("env")),
        health=_health(table.table("health")),
        limits=_limits(table.table("limits")),
        cron=_cron(table.table("cron")),
        volumes=_volumes(table.table("volumes")),
        strategy=_strategy(table.table("deploy")),
        idle=table.seconds("idle", zero=True),
        apps=_apps(table.table("apps"), file),
        plugins={name: dict(item.data) for name, item in table.table("plugins").tables().items()},
    )
    table.finish()
    return manifest


def _build(table: Table, file: str) -> BuildSettings:
    packages = table.strings("packages")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise ConfigError(f"{file}: build.packages: {shorten(package)} is no name of a Debian package")
    settings = BuildSettings(
        buildpack=table.string("buildpack"),
        packages=packages,
        env=_strings(table.table("env"), names=True),
        dockerfile=relative_path(table.string("dockerfile"), file, "build.dockerfile"),
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
        if not PROCESS_NAME.fullmatch(name):
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
        if not PROCESS_NAME.fullmatch(name):
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


def _strategy(table: Table) -> Strategy | None:
    given = table.string("strategy")
    table.finish()
    if not given:
        return None
    found = next((name for name in get_args(Strategy) if name == given), None)
    if found is None:
        raise table.wrong("strategy", '"rolling" or "recreate"')
    return cast(Strategy, found)


def _apps(table: Table, file: str) -> tuple[MonorepoApp, ...]:
    apps = []
    for name, entry in table.tables().items():
        path = relative_path(entry.string("path"), file, entry.where("path"))
        if not path:
            raise ConfigError(f"{file}: {entry.where('path')}: expected the app's folder")
        apps.append(MonorepoApp(name=name, path=path, watch=entry.strings("watch")))
        entry.finish()
    return tuple(apps)


def relative_path(path: str, file: str, where: str) -> str:
    """A path inside the repository, without "./" and a final "/". Raises ConfigError for one that leads out."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if path.startswith(("/", "~")) or ".." in parts or re.match(r"[A-Za-z]:", path):
        raise ConfigError(f"{file}: {where}: expected a path inside the repository, got {shorten(path)}")
    return "/".join(parts) if parts or not path else "."
