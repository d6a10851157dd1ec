"""Django: the application from the settings, static files, migrations where the database is, secrets."""

from __future__ import annotations

import pytest

from mini_buildpacks.python import PythonBuildpack
from mini_core.errors import ConfigError
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings, Plan

MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_config.settings')\n"
BASE = """
import os
SECRET_KEY = 'x'
DEBUG = True
INSTALLED_APPS = ['django.contrib.staticfiles']
MIDDLEWARE = ['whitenoise.middleware.WhiteNoiseMiddleware']
WSGI_APPLICATION = 'site_config.wsgi.application'
STATIC_ROOT = BASE_DIR / 'static'
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'db.sqlite3'}}
"""


def plan_of(settings: str = BASE, *, files: dict[str, str] | None = None, **env: str) -> Plan:
    content = {
        "requirements.txt": "django\ngunicorn\nwhitenoise\n",
        "manage.py": MANAGE,
        "site_config/__init__.py": "",
        "site_config/settings.py": settings,
        "site_config/wsgi.py": "application = None",
        "site_config/asgi.py": "application = None",
        **(files or {}),
    }
    content = {name: text for name, text in content.items() if text != "GONE"}
    offer = PythonBuildpack().detect(MemorySource(content), BuildSettings(env=env))
    assert offer is not None
    return offer.plan


def web(plan: Plan) -> str:
    process = plan.process("web")
    assert process is not None
    return process.command[-1]


def release(plan: Plan) -> str:
    process = plan.process("release")
    return process.command[-1] if process is not None else ""


def environment(plan: Plan) -> dict[str, tuple[str, str]]:
    return {entry.name: (entry.kind, entry.value) for entry in plan.env}


def test_the_application_is_the_one_that_the_settings_name() -> None:
    plan = plan_of()
    assert web(plan).endswith("--access-logfile - site_config.wsgi:application")
    assert plan.framework == "django"
    assert plan.summary == ("pip", "Django → gunicorn")
    assert ("site_config/settings.py", 7) in [(item.file, item.line) for item in plan.evidence]


def test_asgi_is_used_with_channels_and_where_there_is_no_wsgi() -> None:
    channels = f"{BASE}ASGI_APPLICATION = 'site_config.asgi.application'\n"
    plan = plan_of(channels, files={"requirements.txt": "django\nchannels\ndaphne\n"})
    assert "daphne" in web(plan) and web(plan).endswith("site_config.asgi:application")
    only = BASE.replace("WSGI_APPLICATION = 'site_config.wsgi", "ASGI_APPLICATION = 'site_config.asgi")
    assert "uvicorn" in web(plan_of(only, files={"site_config/wsgi.py": "GONE"}))


def test_without_a_wsgi_module_django_makes_the_application_itself() -> None:
    plan = plan_of("SECRET_KEY = 'x'", files={"site_config/wsgi.py": "GONE", "site_config/asgi.py": "GONE"})
    assert web(plan).endswith("'django.core.wsgi:get_wsgi_application()'")
    assert environment(plan)["DJANGO_SETTINGS_MODULE"] == ("value", "site_config.settings")


def test_a_project_below_a_folder_is_started_from_there() -> None:
    nested = {"requirements.txt": "django", "src/manage.py": MANAGE, "src/site_config/settings.py": BASE}
    offer = PythonBuildpack().detect(
        MemorySource({**nested, "src/site_config/wsgi.py": "", "src/site_config/__init__.py": ""}), BuildSettings()
    )
    assert offer is not None
    assert web(offer.plan).startswith("python src/manage.py migrate --noinput && exec gunicorn")
    assert "--chdir src site_config.wsgi:application" in web(offer.plan)
    assert offer.plan.steps[-1].argv == ("python", "src/manage.py", "collectstatic", "--noinput")


def test_settings_in_a_package_and_a_production_module_that_wsgi_names() -> None:
    files = {
        "manage.py": MANAGE.replace("settings", "settings.dev"),
        "site_config/settings.py": "GONE",
        "site_config/settings/__init__.py": "",
        "site_config/settings/base.py": BASE,
        "site_config/settings/dev.py": "from .base import *",
        "site_config/settings/prod.py": "from .base import *\nimport os\nSECRET_KEY = os.environ['SECRET_KEY']",
        "site_config/wsgi.py": MANAGE.replace("settings", "settings.prod"),
    }
    plan = plan_of(files=files)
    assert web(plan).endswith("site_config.wsgi:application")
    assert plan.steps[-1].name == "collectstatic"


def test_a_settings_module_that_is_chosen_by_a_condition_is_found() -> None:
    manage = "import os\nname = 'site_config.production' if 'X' in os.environ else 'site_config.settings'\n"
    files = {
        "manage.py": f"{manage}os.environ.setdefault('DJANGO_SETTINGS_MODULE', name)",
        "site_config/production.py": "",
    }
    assert web(plan_of(files=files)).endswith("site_config.wsgi:application")


def test_a_settings_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"manage\.py: there is no settings module gone\.settings"):
        plan_of(files={"manage.py": MANAGE.replace("site_config", "gone")})


def test_a_manage_py_that_names_no_settings_is_not_django() -> None:
    plan = plan_of(files={"manage.py": "raise RuntimeError('not Django')"})
    assert plan.framework == "" and "collectstatic" not in [step.name for step in plan.steps]


# --- static files


def test_static_files_are_gathered_when_the_settings_say_where() -> None:
    step = plan_of().steps[-1]
    assert (step.name, step.argv, step.files) == (
        "collectstatic",
        ("python", "manage.py", "collectstatic", "--noinput"),
        (),
    )


@pytest.mark.parametrize(
    "settings",
    [BASE.replace("STATIC_ROOT", "OTHER_ROOT"), BASE.replace("'django.contrib.staticfiles'", "")],
    ids=["no STATIC_ROOT", "no staticfiles app"],
)
def test_they_are_not_gathered_otherwise(settings: str) -> None:
    assert "collectstatic" not in [step.name for step in plan_of(settings).steps]


def test_gathering_can_be_turned_off() -> None:
    assert "collectstatic" not in [step.name for step in plan_of(DISABLE_COLLECTSTATIC="1").steps]
    assert "collectstatic" in [step.name for step in plan_of(DISABLE_COLLECTSTATIC="0").steps]


def test_a_static_root_that_may_not_be_set_is_asked_for_first() -> None:
    step = plan_of(BASE.replace("STATIC_ROOT", "if not DEBUG:\n    STATIC_ROOT")).steps[-1]
    assert step.argv[:2] == ("sh", "-c")
    assert "raise SystemExit(not settings.STATIC_ROOT)" in step.argv[2]
    assert "python manage.py collectstatic --noinput" in step.argv[2]


def test_settings_are_importable_while_gathering_without_real_secrets() -> None:
    settings = (
        BASE.replace("'x'", "os.environ['SECRET_KEY']")
        + "REDIS = os.environ['REDIS_URL']\nAPI = env('API_TOKEN')\nX = os.environ.get('X', '1')\n"
    )
    step = plan_of(settings).steps[-1]
    assert dict(step.env) == {
        "SECRET_KEY": "build-only",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "API_TOKEN": "build-only",
    }


def test_static_files_that_nobody_would_serve_are_pointed_out() -> None:
    settings = BASE.replace("whitenoise.middleware.WhiteNoiseMiddleware", "x").replace("DEBUG = True", "DEBUG = False")
    assert "Django's static files are served by nobody: add whitenoise to the middleware" in plan_of(settings).warnings
    assert plan_of().warnings == ()


# --- database


def test_a_database_file_is_prepared_by_each_instance() -> None:
    plan = plan_of()
    assert web(plan).startswith("python manage.py migrate --noinput && exec gunicorn")
    assert release(plan) == ""


def test_a_database_server_is_migrated_once_before_traffic() -> None:
    settings = BASE.replace("django.db.backends.sqlite3", "django.db.backends.postgresql")
    plan = plan_of(settings)
    assert web(plan).startswith("exec gunicorn")
    assert release(plan) == "python manage.py migrate --noinput"


@pytest.mark.parametrize(
    ("databases", "variable", "sqlite"),
    [
        ("{'default': dj_database_url.config(default='postgres://localhost/x')}", "DATABASE_URL", False),
        ("{'default': dj_database_url.config(default='sqlite:///db.sqlite3')}", "DATABASE_URL", True),
        ("{'default': env.db()}", "DATABASE_URL", False),
        ("{'default': {'HOST': os.environ['PGHOST'], 'NAME': os.environ['PGDATABASE']}}", "PGHOST", False),
        ("{'default': {'HOST': os.getenv('DB_HOST', 'localhost')}}", "DB_HOST", False),
    ],
)
def test_where_a_variable_says_which_database_the_commands_ask_it(databases: str, variable: str, sqlite: bool) -> None:
    settings = "\n".join(line for line in BASE.splitlines() if not line.startswith("DATABASES"))
    plan = plan_of(f"{settings}\nDATABASES = {databases}\n")
    assert release(plan).startswith(f'if [ -n "${variable}" ]; then python manage.py migrate --noinput')
    assert web(plan).startswith(f'[ -n "${variable}" ] || python manage.py migrate' if sqlite else "exec gunicorn")


def test_without_a_database_nothing_is_migrated() -> None:
    settings = "\n".join(line for line in BASE.splitlines() if not line.startswith("DATABASES"))
    for text in (settings, f"{settings}\nDATABASES = {{}}\n"):
        plan = plan_of(text)
        assert web(plan).startswith("exec gunicorn") and release(plan) == ""


# --- environment


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("SECRET_KEY = os.environ['SECRET_KEY']", "SECRET_KEY"),
        ("SECRET_KEY = os.environ.get('MY_SECRET', 'insecure')", "MY_SECRET"),
        ("SECRET_KEY = os.getenv('DJANGO_SECRET_KEY')", "DJANGO_SECRET_KEY"),
        ("SECRET_KEY = env('SECRET_KEY')", "SECRET_KEY"),
        ("SECRET_KEY = config('SECRET_KEY', default='x')", "SECRET_KEY"),
        ("SECRET_KEY = env.str('KEY')", "KEY"),
    ],
)
def test_the_secret_key_is_generated(line: str, name: str) -> None:
    plan = plan_of(BASE.replace("SECRET_KEY = 'x'", line))
    assert environment(plan)[name] == ("generated", "")


def test_hosts_are_open_since_only_the_router_reaches_the_app() -> None:
    plan = plan_of(f"{BASE}ALLOWED_HOSTS = os.getenv('DJANGO_HOSTS', 'localhost').split(',')\n")
    assert environment(plan)["DJANGO_HOSTS"] == ("value", "*")


def test_what_the_settings_cannot_do_without_is_required_and_the_rest_is_not() -> None:
    settings = (
        f"{BASE}MUST = os.environ['MUST']\nMAY = os.environ.get('MAY')\nHAS = env('HAS', default='1')\n"
        "if DEBUG:\n    X = os.environ['SOMETIMES']\nY = os.environ['EITHER'] if DEBUG else ''\n"
        "P = os.environ['PORT']\nassert 'ASSERTED' in os.environ\nassert 'x' in INSTALLED_APPS\n"
    )
    required = [name for name, (kind, _) in environment(plan_of(settings)).items() if kind == "required"]
    assert required == ["MUST", "ASSERTED"]
