"""How Python apps are started: found by reading the code, by the right server, at the given port."""

from __future__ import annotations

import textwrap

import pytest

from mini_buildpacks.python import PythonBuildpack
from mini_core.manifest import read_manifest
from mini_core.planning import build_settings, make_plan
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings, Offer, Plan, Strength

GUNICORN = "exec gunicorn --bind ${HOST:-0.0.0.0}:$PORT --workers ${WEB_CONCURRENCY:-2} --threads 4 --access-logfile - "
UVICORN = "exec uvicorn --host ${HOST:-0.0.0.0} --port $PORT "


def offer_of(files: dict[str, str], **env: str) -> Offer:
    source = MemorySource({name: textwrap.dedent(text) for name, text in files.items()})
    offer = PythonBuildpack().detect(source, build_settings(read_manifest(source), build_env=env))
    assert offer is not None
    return offer


def plan_of(files: dict[str, str], **env: str) -> Plan:
    return offer_of(files, **env).plan


def web(files: dict[str, str], **env: str) -> str:
    process = plan_of(files, **env).process("web")
    assert process is not None, "no web process"
    return process.command[-1]


def installs(plan: Plan) -> list[str]:
    return [" ".join(step.argv[3:]) for step in plan.steps if step.name == "server"]


FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"

APPS = [
    ("app", {"app.py": FLASK}, GUNICORN + "app:app"),
    ("another variable", {"main.py": "import flask\nsite = flask.Flask('x')"}, GUNICORN + "main:site"),
    ("another file", {"custom.py": FLASK}, GUNICORN + "custom:app"),
    ("an alias", {"app.py": "from flask import Flask as F\nserver: F = F(__name__)"}, GUNICORN + "app:server"),
    ("in a package", {"shop/__init__.py": FLASK}, GUNICORN + "shop:app"),
    (
        "deep in a package",
        {"shop/__init__.py": "", "shop/web/__init__.py": "", "shop/web/app.py": FLASK},
        GUNICORN + "shop.web.app:app",
    ),
    ("below src", {"src/shop/__init__.py": "", "src/shop/app.py": FLASK}, GUNICORN + "--chdir src shop.app:app"),
    ("in a folder that is no package", {"server/main.py": FLASK}, GUNICORN + "--chdir server main:app"),
    ("in a try", {"app.py": f"try:\n    import x\nexcept ImportError:\n    x = None\n{FLASK}"}, GUNICORN + "app:app"),
    (
        "a factory",
        {"shop/__init__.py": "import flask\ndef create_app(config=None):\n    app = flask.Flask('x')\n    return app"},
        GUNICORN + "'shop:create_app()'",
    ),
    (
        "a factory that another module calls",
        {
            "shop/__init__.py": "from flask import Flask\ndef create_app():\n    return Flask('x')",
            "wsgi.py": "from shop import create_app\napp = create_app()",
        },
        GUNICORN + "wsgi:app",
    ),
    (
        "what another module made",
        {"shop/core.py": FLASK, "shop/__init__.py": "", "wsgi.py": "from shop.core import app as application"},
        GUNICORN + "wsgi:application",
    ),
    (
        "wrapped in middleware",
        {"app.py": f"{FLASK}from werkzeug.middleware.proxy_fix import ProxyFix\napp = ProxyFix(app)"},
        GUNICORN + "app:app",
    ),
    ("plain WSGI", {"main.py": "def app(environ, start_response):\n    return []"}, GUNICORN + "main:app"),
    ("plain ASGI", {"main.py": "async def app(scope, receive, send): ..."}, UVICORN + "main:app"),
    ("Bottle", {"app.py": "import bottle\napp = bottle.default_app()"}, GUNICORN + "app:app"),
    ("Falcon on ASGI", {"app.py": "import falcon.asgi\napi = falcon.asgi.App()"}, UVICORN + "app:api"),
    ("FastAPI", {"main.py": FASTAPI}, UVICORN + "main:app"),
    ("FastAPI below a folder", {"app/__init__.py": "", "app/main.py": FASTAPI}, UVICORN + "app.main:app"),
    ("FastAPI in a folder that is no package", {"backend/main.py": FASTAPI}, UVICORN + "--app-dir backend main:app"),
    (
        "FastAPI by a factory",
        {"main.py": "from fastapi import FastAPI\ndef get_app() -> FastAPI:\n    return FastAPI()"},
        UVICORN + "--factory main:get_app",
    ),
    (
        "Starlette",
        {"main.py": "from starlette.applications import Starlette\napp = Starlette(debug=True)"},
        UVICORN + "main:app",
    ),
    ("FastHTML", {"main.py": "from fasthtml.common import *\napp, rt = fast_app()"}, UVICORN + "main:app"),
    (
        "Gradio in FastAPI",
        {"main.py": f"{FASTAPI}import gradio as gr\napp = gr.mount_gradio_app(app, None, path='/')"},
        UVICORN + "main:app",
    ),
    ("Dash", {"app.py": "from dash import Dash\napp = Dash(__name__)\nserver = app.server"}, GUNICORN + "app:server"),
    (
        "Sanic",
        {"server.py": "from sanic import Sanic\napp = Sanic('x')"},
        "exec sanic server:app --host ${HOST:-0.0.0.0} --port $PORT",
    ),
    (
        "Gradio",
        {"app.py": "import gradio as gr\nwith gr.Blocks() as demo:\n    gr.Markdown('x')\ndemo.launch()"},
        "GRADIO_SERVER_NAME=${HOST:-0.0.0.0} GRADIO_SERVER_PORT=$PORT exec python app.py",
    ),
    (
        "Streamlit",
        {"Home.py": "import streamlit as st\nst.title('x')", "pages/Other.py": "import streamlit as st"},
        "exec streamlit run Home.py --server.port $PORT --server.address ${HOST:-0.0.0.0} --server.headless true "
        "--browser.gatherUsageStats false",
    ),
    ("aiohttp", {"app.py": "from aiohttp import web\napp = web.Application()\nweb.run_app(app)"}, "exec python app.py"),
]


@pytest.mark.parametrize(("files", "command"), [case[1:] for case in APPS], ids=[case[0] for case in APPS])
def test_the_application_is_found_by_reading_the_code(files: dict[str, str], command: str) -> None:
    assert web({"requirements.txt": "", **files}) == command


def test_the_framework_and_where_it_was_seen_are_told() -> None:
    offer = offer_of({"requirements.txt": "flask\n", "app.py": f"import os\n{FLASK}"})
    assert offer.plan.framework == "flask"
    assert offer.plan.summary == ("pip", "Flask → gunicorn")
    assert [(item.file, item.line) for item in offer.plan.evidence] == [("requirements.txt", None), ("app.py", 3)]
    assert offer.strength is Strength.PROJECT
    assert offer.reason == "has requirements.txt and app.py"


def test_a_conventional_name_is_preferred_and_tests_are_not_apps() -> None:
    files = {"zeta.py": FLASK, "app.py": FLASK, "test_app.py": FLASK, "tests/app.py": FLASK, "conftest.py": FLASK}
    assert web({"requirements.txt": "", **files}).endswith("app:app")


@pytest.mark.parametrize(
    ("requirements", "source", "server", "added"),
    [
        ("flask", FLASK, "gunicorn", ["gunicorn"]),
        ("flask\ngunicorn==23.0.0", FLASK, "gunicorn", []),
        ("flask\ngunicorn==20.1.0", FLASK, "gunicorn", ["setuptools<81"]),
        ("flask\ngunicorn==20.1.0\nsetuptools==69", FLASK, "gunicorn", []),
        ("flask\nuwsgi", FLASK, "uwsgi", []),
        ("flask\nwaitress", FLASK, "waitress-serve", []),
        ("fastapi", FASTAPI, "uvicorn", ["uvicorn[standard]"]),
        ("fastapi[standard]", FASTAPI, "uvicorn", []),
        ("fastapi\nuvicorn", FASTAPI, "uvicorn", []),
        ("fastapi\nhypercorn", FASTAPI, "hypercorn", []),
        ("fastapi\ndaphne", FASTAPI, "daphne", []),
        ("python-fasthtml", "from fasthtml.common import *\napp, rt = fast_app()", "uvicorn", []),
        ("quart", "from quart import Quart\napp = Quart('x')", "hypercorn", []),
    ],
)
def test_a_server_that_is_there_is_used_and_one_is_added_only_where_none_is(
    requirements: str, source: str, server: str, added: list[str]
) -> None:
    plan = plan_of({"requirements.txt": requirements, "main.py": source})
    process = plan.process("web")
    assert process is not None and process.command[-1].removeprefix("exec ").split()[0] == server
    assert installs(plan) == [" ".join(["install", *added])] * bool(added)


@pytest.mark.parametrize(("pin", "limited"), [("==25.3.0", True), ("==26.0", True), ("==27.0.1", False), ("", False)])
def test_gunicorn_releases_that_wait_for_idle_connections_are_told_to_stop_in_time(pin: str, limited: bool) -> None:
    line = web({"requirements.txt": f"flask\ngunicorn{pin}", "app.py": FLASK})
    assert ("--graceful-timeout 8" in line) is limited


def test_a_module_with_an_unusual_name_is_said_to_be_the_one_that_is_started() -> None:
    plan = plan_of({"requirements.txt": "flask", "custom.py": FLASK})
    assert plan.warnings == ("custom.py is started, for it has a Flask application; a Procfile chooses another",)


def test_a_framework_in_the_dependencies_does_not_make_a_script_a_web_app() -> None:
    plan = plan_of({"requirements.txt": "flask\ngunicorn", "main.py": "print('hello')"})
    assert [(item.name, item.command) for item in plan.processes] == [("worker", ("python", "-u", "main.py"))]
    assert plan.framework == ""


@pytest.mark.parametrize(
    ("files", "name", "port"),
    [
        ({"server.py": "import http.server\nhttp.server.HTTPServer(('', 8123), None)"}, "web", 8123),
        ({"main.py": "import os\nPORT = os.environ['PORT']"}, "web", None),
        ({"main.py": "import helper\nhelper.go()", "helper.py": "import socketserver"}, "web", None),
        ({"bot.py": "import discord"}, "worker", None),
        ({"only.py": "print(1)"}, "worker", None),
    ],
)
def test_a_script_that_answers_requests_is_web_and_any_other_a_worker(
    files: dict[str, str], name: str, port: int | None
) -> None:
    plan = plan_of({"requirements.txt": "", **files})
    assert [item.name for item in plan.processes] == [name]
    assert plan.port == port


def test_a_script_of_the_project_is_started_whether_or_not_it_is_installed() -> None:
    pyproject = "[project]\nname = 'x'\n[project.scripts]\ndev = 'shop.dev:main'\nstart = 'shop.server:run'"
    plan = plan_of({"pyproject.toml": pyproject, "shop/server.py": "import http.server\ndef run(): ..."})
    command = ("python", "-c", "import sys; from shop.server import run; sys.exit(run())")
    assert [(item.name, item.command) for item in plan.processes] == [("web", command)]
    assert plan.processes[0].source == "pyproject.toml scripts.start"


def test_a_package_that_can_be_run_is() -> None:
    plan = plan_of(
        {"pyproject.toml": "[project]\nname = 'shop'", "shop/__main__.py": "print(1)", "shop/__init__.py": ""}
    )
    assert plan.processes[0].command == ("python", "-m", "shop")
    dashed = plan_of(
        {"pyproject.toml": "[project]\nname = 'my-shop'", "my-shop/__main__.py": FLASK, "x/__main__.py": ""}
    )
    assert [(item.name, item.command[-1]) for item in dashed.processes] == [("web", "my-shop")]


def test_flask_app_says_where_the_application_is() -> None:
    files = {"requirements.txt": "flask", "app.py": FLASK, "blog.py": FLASK}
    assert web({**files, ".flaskenv": "export FLASK_APP=blog.py"}).endswith("blog:app")
    assert web(files, FLASK_APP="blog").endswith("blog:app")


def test_code_that_does_not_parse_is_not_an_error() -> None:
    plan = plan_of({"requirements.txt": "", "main.py": "print 'two'"})
    assert plan.processes[0].command == ("python", "-u", "main.py")


def test_a_health_route_is_used() -> None:
    source = f"{FASTAPI}@app.get('/healthz')\ndef ok(): ...\n"
    assert plan_of({"requirements.txt": "", "main.py": source}).health.path == "/healthz"
    post = f"{FLASK}@app.route('/health', methods=['POST'])\ndef ok(): ...\n"
    assert plan_of({"requirements.txt": "", "main.py": post}).health.path == ""


def test_an_app_s_own_secrets_are_generated_and_those_of_others_are_not() -> None:
    source = f"import os\n{FLASK}app.secret_key = os.environ['MY_KEY']\nstripe = os.environ.get('STRIPE_SECRET_KEY')\n"
    config = "import os\nclass Config:\n    SECRET_KEY = os.getenv('APP_SECRET')\n"
    plan = plan_of({"requirements.txt": "flask", "app.py": source, "config.py": config})
    generated = [entry.name for entry in plan.env if entry.kind == "generated"]
    assert generated == ["MY_KEY", "APP_SECRET"]


def test_log_lines_are_not_buffered() -> None:
    assert {entry.name: entry.value for entry in plan_of({"main.py": ""}).env} == {"PYTHONUNBUFFERED": "1"}


# --- commands that the repository gives


def test_a_procfile_decides_and_what_its_commands_need_is_installed() -> None:
    files = {"requirements.txt": "flask", "app.py": FLASK, "Procfile": "web: python app.py\nworker: celery worker"}
    plan = plan_of(files)
    assert installs(plan) == []
    assert plan.summary == ("pip", "Flask · started by Procfile")
    with_server = plan_of({**files, "Procfile": "web: gunicorn app:app"})
    assert installs(with_server) == ["install gunicorn"]
    assert installs(plan_of({**files, "requirements.txt": "uwsgi", "Procfile": "web: uwsgi --ini x.ini"})) == []
    asgi = "web: gunicorn app:app -k uvicorn.workers.UvicornWorker"
    assert installs(plan_of({**files, "Procfile": asgi})) == ["install gunicorn uvicorn[standard]"]
    assert installs(plan_of({**files, "Procfile": "web: hypercorn app:app"})) == ["install hypercorn"]
    assert installs(plan_of({**files, "Procfile": "web: cat gunicorn.conf"})) == []


def test_a_worker_in_mini_toml_does_not_take_the_server_from_the_web_process() -> None:
    files = {"requirements.txt": "flask", "app.py": FLASK, "mini.toml": "[processes]\nworker = 'python work.py'"}
    assert installs(plan_of(files)) == ["install gunicorn"]
    assert installs(plan_of({**files, "mini.toml": "[processes]\nweb = 'python app.py'"})) == []


def test_a_procfile_and_a_script_without_any_manifest_are_an_app() -> None:
    offer = offer_of({"Procfile": "web: python3 -u web.py", "web.py": "print(1)"})
    assert offer.strength is Strength.PROJECT
    assert offer.plan.steps == () and offer.plan.bin == ()
    planned = make_plan(MemorySource({"Procfile": "web: python3 web.py", "web.py": ""}), [PythonBuildpack()])
    assert planned.plan.processes[0].command == ("sh", "-c", "python3 web.py")


def test_app_engine_s_entrypoint_counts_like_a_procfile_s_web() -> None:
    files = {
        "requirements.txt": "flask\nuwsgi",
        "main.py": FLASK,
        "app.yaml": "runtime: python313\nentrypoint: uwsgi --http-socket :$PORT --wsgi-file main.py --callable app\n",
    }
    plan = plan_of(files)
    assert plan.processes[0].source == "app.yaml"
    assert plan.processes[0].command[-1] == "exec uwsgi --http-socket :$PORT --wsgi-file main.py --callable app"
    assert plan_of({**files, "app.yaml": "kind: Deployment\n---\nkind: Service"}).processes[0].source == "detected"
    assert plan_of({**files, "app.yaml": "runtime: nodejs20\nentrypoint: node x"}).processes[0].source == "detected"


def test_another_platform_s_start_command_is_used_where_nothing_is_detected() -> None:
    files = {
        "requirements.txt": "x",
        "a.py": "",
        "b.py": "",
        "railway.json": '{"deploy": {"startCommand": "python b.py"}}',
    }
    assert plan_of(files).processes[0].command == ("sh", "-c", "python b.py")
    assert plan_of({**files, "main.py": FLASK}).processes[0].command[-1].endswith("main:app")


# --- how sure it is


@pytest.mark.parametrize(
    ("files", "strength"),
    [
        ({"main.py": ""}, Strength.LOOSE),
        ({"anything.py": "", "other.py": ""}, Strength.LOOSE),
        ({"requirements.txt": "x"}, Strength.MANIFEST),
        ({"requirements.txt": "x", "tool.py": ""}, Strength.MANIFEST),
        ({"requirements.txt": "x", "app.py": FLASK}, Strength.PROJECT),
        ({"pyproject.toml": "[project]\nname='x'", "uv.lock": ""}, Strength.PROJECT),
    ],
)
def test_strength_is_that_of_the_evidence(files: dict[str, str], strength: Strength) -> None:
    assert offer_of(files).strength is strength


def test_an_app_inside_of_a_folder_with_its_own_manifest_is_not_the_root_s() -> None:
    source = MemorySource({"tool.py": "", "api/requirements.txt": "flask", "api/app.py": FLASK})
    offer = PythonBuildpack().detect(source, BuildSettings())
    assert offer is not None and offer.plan.framework == ""
    deep = MemorySource({"api/requirements.txt": "flask", "api/app.py": FLASK})
    assert PythonBuildpack().detect(deep, BuildSettings()) is None
    assert make_plan(deep, [PythonBuildpack()]).plan.path == "api"
