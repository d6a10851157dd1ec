"""Django: the settings module, the WSGI or ASGI application that they name, static files, migrations, secrets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mini_buildpacks.python.code import Code, Module, statements, targets_of
from mini_buildpacks.python.envreads import SECRETS, Read, reads
from mini_buildpacks.python.project import Project
from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, EnvEntry, Evidence, ProcessType, Step

_SQLITE = re.compile(r"backends\.(?:sqlite3|spatialite)|sqlite3?:///|spatialite:///")
_SETDEFAULT = re.compile(r"DJANGO_SETTINGS_MODULE[\"']\s*[,\]]\s*=?\s*[\"']([\w.-]+)[\"']")
_DOTTED = re.compile(r"[\"']([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|settings)[\"']")
_PLACEHOLDERS = (
    (re.compile(r"DATABASE_URL|^DB_URL|POSTGRES_URL|MYSQL_URL"), "sqlite:///:memory:"),
    (re.compile(r"REDIS|CACHE_URL|BROKER|CELERY"), "redis://127.0.0.1:6379/0"),
    (re.compile(r"PORT$"), "1"),
    (re.compile(r"URL$|URI$|ENDPOINT$"), "http://127.0.0.1"),
    (re.compile(r"DEBUG"), "False"),
)


@dataclass(frozen=True)
class Django:
    """A Django project. manage: path of manage.py. settings: dotted name of the settings module. folder: where
    imports start, "" for the root. target: "module:variable" of the application, "" where none was found."""

    manage: str
    settings: str
    folder: str
    target: str
    asgi: bool
    modules: tuple[Module, ...]
    evidence: tuple[Evidence, ...]

    def reads(self) -> tuple[Read, ...]:
        found: dict[str, Read] = {}
        for module in self.modules:
            for read in reads(module):
                known = found.get(read.name)
                if known is None or (read.required and not known.required):
                    found[read.name] = read
        return tuple(found.values())

    def text(self) -> str:
        return "\n".join(module.text for module in self.modules)


def find_django(source: Source, code: Code, project: Project) -> Django | None:
    """The Django project in a source: a manage.py that names a settings module which is there.

    Raises ConfigError where there is one for Django, and what it names is not there.
    """
    for manage in code.manage_files():
        folder = manage.rpartition("/")[0]
        settings = _named_settings(source, folder, manage)
        path = _module_file(source, folder, settings) if settings else None
        if path is not None:
            return _project(source, code, project, manage, settings, path)
    for manage in code.manage_files()[:1]:
        _check_missing(source, project, manage)
    return None


def _check_missing(source: Source, project: Project, manage: str) -> None:
    """Raises ConfigError where manage.py names a settings module that is not there: nothing of Django would run."""
    match = _SETDEFAULT.search(source.text(manage) or "")
    if match and project.has("django"):
        raise ConfigError(
            f"{manage}: there is no settings module {match[1]}", hint="Correct DJANGO_SETTINGS_MODULE in it."
        )


def _named_settings(source: Source, folder: str, path: str) -> str:
    """The settings module that a file gives to DJANGO_SETTINGS_MODULE: of all the modules that it names and that
    are there (it may choose one by a condition), one called `settings` first."""
    text = source.text(path) or ""
    if "DJANGO_SETTINGS_MODULE" not in text:
        return ""
    found = [name for name in _DOTTED.findall(text) if _module_file(source, folder, name)]
    return min(found, key=lambda name: not name.endswith("settings"), default="")


def _module_file(source: Source, folder: str, dotted: str) -> str | None:
    stem = "/".join(part for part in (folder, dotted.replace(".", "/")) if part)
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if source.read(path) is not None), None)


def _project(source: Source, code: Code, project: Project, manage: str, settings: str, path: str) -> Django:
    folder = manage.rpartition("/")[0]
    deployed = _deployed_settings(source, folder, settings)
    modules = tuple(_with_stars(source, code, folder, path, set()))
    target, asgi, where = _application(source, project, folder, settings, modules)
    evidence = [Evidence(file=manage, detail=f"settings {settings}")]
    if where is not None:
        evidence.append(where)
    return Django(manage, deployed or settings, folder, target, asgi, modules, tuple(evidence))


def _deployed_settings(source: Source, folder: str, settings: str) -> str:
    """The settings that wsgi.py names: a production module where manage.py names the one for development."""
    package = settings.partition(".")[0]
    return _named_settings(source, folder, "/".join(part for part in (folder, package, "wsgi.py") if part))


def _with_stars(source: Source, code: Code, folder: str, path: str, seen: set[str]) -> Iterator[Module]:
    """A settings module and those that it takes everything from (`from .base import *`)."""
    module = code.module(path)
    if module is None or path in seen:
        return
    seen.add(path)
    yield module
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            inner = _star_target(source, folder, path, node)
            if inner is not None:
                yield from _with_stars(source, code, folder, inner, seen)


def _star_target(source: Source, folder: str, path: str, node: ast.ImportFrom) -> str | None:
    if not node.level:
        return _module_file(source, folder, node.module or "")
    base = path.rpartition("/")[0].split("/")
    base = base[: len(base) - node.level + 1]
    return _module_file(source, "/".join(base), node.module or "") if node.module else None


def _application(
    source: Source, project: Project, folder: str, settings: str, modules: tuple[Module, ...]
) -> tuple[str, bool, Evidence | None]:
    """("module:variable", whether it is ASGI, why)."""
    wsgi, asgi = _setting(modules, "WSGI_APPLICATION"), _setting(modules, "ASGI_APPLICATION")
    channels = project.has("channels", "daphne") and asgi is not None
    for found, is_asgi in ((asgi, True), (wsgi, False)) if channels else ((wsgi, False), (asgi, True)):
        if found is None:
            continue
        value, module, line = found
        name, _, variable = value.rpartition(".")
        if name and _module_file(source, folder, name):
            name_of = "ASGI_APPLICATION" if is_asgi else "WSGI_APPLICATION"
            return f"{name}:{variable}", is_asgi, Evidence(file=module.path, line=line, detail=f"{name_of} = {value}")
    return _conventional(source, folder, settings)


def _conventional(source: Source, folder: str, settings: str) -> tuple[str, bool, Evidence | None]:
    parts = settings.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        package = ".".join(parts[:depth])
        for stem, is_asgi in (("wsgi", False), ("asgi", True)):
            dotted = f"{package}.{stem}" if package else stem
            path = _module_file(source, folder, dotted)
            if path is not None:
                return f"{dotted}:application", is_asgi, Evidence(file=path, detail="application")
    return "", False, None


def _setting(modules: tuple[Module, ...], name: str) -> tuple[str, Module, int] | None:
    """The string that a setting is given, the first of the modules first (it overrides those it includes)."""
    for module in modules:
        for statement in statements(module.tree.body):
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == name for target in statement.targets
            ):
                value = statement.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return value.value, module, statement.lineno
    return None


# --- static files ----------------------------------------------------------------------------------------------


def collectstatic(source: Source, django: Django, settings: BuildSettings) -> Step | None:
    """The step that gathers static files; None where Django is not set up for it or the user turned it off.

    A STATIC_ROOT that is only set under a condition (`if not DEBUG`) may not be set at all: the step asks.
    """
    if settings.env.get("DISABLE_COLLECTSTATIC", "") not in ("", "0"):
        return None
    if source.has(".heroku/collectstatic_disabled"):
        return None
    text = django.text()
    if "django.contrib.staticfiles" not in text:
        return None
    always = _sets_static_root(django, conditional=False)
    if not always and not _sets_static_root(django, conditional=True):
        return None
    env = _build_env(django)
    run = ("python", django.manage, "collectstatic", "--noinput")
    if always:
        return Step(name="collectstatic", argv=run, env=env)
    test = "from django.conf import settings; raise SystemExit(not settings.STATIC_ROOT)"
    path = f"PYTHONPATH={django.folder or '.'}"
    line = (
        f'if {path} DJANGO_SETTINGS_MODULE={django.settings} python -c "{test}"; then {" ".join(run)}; '
        "else echo 'STATIC_ROOT is not set in this environment: no static files to gather'; fi"
    )
    return Step(name="collectstatic", argv=("sh", "-c", line), env=env)


def _sets_static_root(django: Django, *, conditional: bool) -> bool:
    for module in django.modules:
        body = statements(module.tree.body) if conditional else iter(module.tree.body)
        for statement in body:
            targets = targets_of(statement) if isinstance(statement, ast.Assign | ast.AnnAssign) else []
            if any(isinstance(item, ast.Name) and item.id == "STATIC_ROOT" for item in targets):
                return True
    return False


def _build_env(django: Django) -> dict[str, str]:
    """Placeholders for what the settings read and have no default for: gathering files needs none of it, but the
    settings must be importable. Real build-time variables are set after these and win."""
    found = {}
    for read in django.reads():
        needed = read.required or (not read.default and _secret(read))
        if needed:
            found[read.name] = next(
                (text for pattern, text in _PLACEHOLDERS if pattern.search(read.name)), "build-only"
            )
    return found


# --- environment, migrations -----------------------------------------------------------------------------------


def _secret(read: Read) -> bool:
    return read.target == "SECRET_KEY" or read.name in SECRETS


def environment(django: Django) -> Iterator[EnvEntry]:
    """Secrets are generated; ALLOWED_HOSTS may be anything, as only the router reaches the app; what the settings
    cannot do without is required."""
    for read in django.reads():
        place = f"{read.path}:{read.line}"
        if _secret(read):
            yield EnvEntry(name=read.name, kind="generated", description=f"read in {place}")
        elif read.target == "ALLOWED_HOSTS" or read.name.endswith("ALLOWED_HOSTS"):
            yield EnvEntry(name=read.name, value="*", description="only the router reaches the app")
        elif read.required:
            yield EnvEntry(name=read.name, kind="required", description=f"read in {place}")


@dataclass(frozen=True)
class Migrations:
    """before_start: shell line that prepares a database file in the instance itself. release: argv for a database
    server, run once per release."""

    before_start: str = ""
    release: ProcessType | None = None


def migrations(django: Django) -> Migrations:
    """How the database gets its tables: SQLite lives in the instance, so each instance migrates when it starts; a
    server is migrated once, in the release phase. Where the settings choose by a variable, so do the commands."""
    text = django.text()
    databases = _databases_text(django)
    if databases is not None and not databases.strip("{} \n"):
        return Migrations()
    line = f"python {django.manage} migrate --noinput"
    sqlite = bool(_SQLITE.search(text))
    variable = _database_variable(django)
    if not variable:
        if sqlite or databases is None:
            return Migrations(before_start=line) if sqlite else Migrations()
        return Migrations(release=_release(line))
    guarded = f'if [ -n "${variable}" ]; then {line}; else echo "{variable} is not set: no migrations"; fi'
    before = f'[ -n "${variable}" ] || {line}' if sqlite else ""
    return Migrations(before, _release(guarded))


def _release(line: str) -> ProcessType:
    return ProcessType(name="release", command=("sh", "-c", line), source="detected")


def _databases_text(django: Django) -> str | None:
    """The literal that DATABASES is given, None where there is no such setting."""
    for module in django.modules:
        for statement in statements(module.tree.body):
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "DATABASES" for target in statement.targets
            ):
                return ast.get_source_segment(module.text, statement.value) or "?"
    return None


def _database_variable(django: Django) -> str:
    """The variable that says where the database is: one that DATABASES reads, the URL before parts of it."""
    names = [read.name for read in django.reads()]
    text = django.text()
    if "DATABASE_URL" in names or re.search(r"dj_database_url\.config\(|env\.db\(\s*\)|env\.db_url\(\s*\)", text):
        return "DATABASE_URL"
    databases = _databases_text(django) or ""
    for pattern in (r"URL", r"HOST", r"NAME|DATABASE"):
        for name in names:
            if re.search(pattern, name) and re.search(rf"\b{name}\b", databases):
                return name
    return ""
