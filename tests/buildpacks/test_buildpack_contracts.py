"""The contract that every buildpack keeps, kept by the Python, static and Dockerfile ones; and how they combine."""

from __future__ import annotations

import json
import time

import pytest

from mini_buildpacks import BuildpacksPlugin
from mini_buildpacks.dockerfile import DockerfileBuildpack
from mini_buildpacks.python import PythonBuildpack
from mini_buildpacks.static import StaticBuildpack
from mini_core.interfaces import Buildpack
from mini_core.planning import make_plan
from mini_core.sources import MemorySource
from mini_core.testing import BuildpackContract

FLASK = {"requirements.txt": "flask\n", "app.py": "from flask import Flask\napp = Flask(__name__)\n"}
DJANGO = {
    "requirements.txt": "django\ngunicorn\nwhitenoise\n",
    "manage.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_config.settings')\n",
    "site_config/__init__.py": "",
    "site_config/settings.py": "STATIC_ROOT = 'static'\nINSTALLED_APPS = ['django.contrib.staticfiles']\n",
    "site_config/wsgi.py": "application = None\n",
}


class TestPythonBuildpack(BuildpackContract):
    @pytest.fixture
    def buildpack(self) -> Buildpack:
        return PythonBuildpack()

    @pytest.fixture(params=[FLASK, DJANGO], ids=["flask", "django"])
    def recognised(self, request: pytest.FixtureRequest) -> dict[str, str]:
        return dict(request.param)


class TestStaticBuildpack(BuildpackContract):
    @pytest.fixture
    def buildpack(self) -> Buildpack:
        return StaticBuildpack()

    @pytest.fixture
    def recognised(self) -> dict[str, str]:
        return {"public/index.html": "<h1>hi</h1>", "Staticfile": "root: public\n"}


class TestDockerfileBuildpack(BuildpackContract):
    @pytest.fixture
    def buildpack(self) -> Buildpack:
        return DockerfileBuildpack()

    @pytest.fixture
    def recognised(self) -> dict[str, str]:
        return {"Dockerfile": "FROM debian\nEXPOSE 80\n"}


def test_the_plugin_provides_all_five() -> None:
    names = [item.name for item in BuildpacksPlugin().mini_detect()]
    assert names == ["dockerfile", "go", "node", "python", "static"]


ASSETS = {
    "package.json": json.dumps(
        {"scripts": {"build": "vite build", "dev": "vite"}, "devDependencies": {"vite": "7"}, "private": True}
    ),
    "package-lock.json": '{"lockfileVersion": 3, "packages": {}}',
}


def test_a_django_app_that_builds_its_assets_with_npm_is_one_plan_with_both() -> None:
    planned = make_plan(MemorySource({**DJANGO, **ASSETS}), tuple(BuildpacksPlugin().mini_detect()))
    plan = planned.plan
    assert plan.buildpack == "python"
    assert [item.name for item in plan.toolchains] == ["python", "node"]
    assert plan.runtime == "python"
    names = [(step.name, step.toolchain) for step in plan.steps]
    assert names.index(("build", "node")) < names.index(("collectstatic", ""))
    assert names[0] == ("venv", "")
    assert plan.summary == ("pip", "Django → gunicorn", "npm run build")
    assert not [text for text in planned.warnings if "equally well" in text]


def test_a_package_json_without_a_build_is_no_second_language() -> None:
    files = {**DJANGO, "package.json": '{"devDependencies": {"prettier": "3"}}'}
    planned = make_plan(MemorySource(files), tuple(BuildpacksPlugin().mini_detect()))
    assert [item.name for item in planned.plan.toolchains] == ["python"]


def test_a_node_app_with_stray_python_files_stays_a_node_app() -> None:
    files = {
        "package.json": '{"scripts": {"start": "node server.js"}}',
        "server.js": "",
        "tools/gen.py": "",
        "x.py": "",
    }
    planned = make_plan(MemorySource(files), tuple(BuildpacksPlugin().mini_detect()))
    assert planned.plan.buildpack == "node"


def test_a_python_app_with_a_stray_package_json_stays_a_python_app() -> None:
    files = {**FLASK, "package.json": '{"name": "x", "scripts": {"lint": "eslint ."}}'}
    planned = make_plan(MemorySource(files), tuple(BuildpacksPlugin().mini_detect()))
    assert planned.plan.buildpack == "python"


def test_a_tree_of_ten_thousand_files_is_understood_within_a_second() -> None:
    files = {f"pkg{number}/mod{inner}.py": "import os\nx = 1\n" * 20 for number in range(100) for inner in range(100)}
    source = MemorySource(
        {**DJANGO, **files, **{f"{name}/__init__.py": "" for name in {p.split("/")[0] for p in files}}}
    )
    begun = time.perf_counter()
    planned = make_plan(source, tuple(BuildpacksPlugin().mini_detect()))
    assert planned.plan.framework == "django"
    assert time.perf_counter() - begun < 1.0
