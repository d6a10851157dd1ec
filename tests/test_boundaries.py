"""Who may import whom, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"mini_core": ROOT / "mini_core"} | {
    folder.name: folder for parent in ("plugins", "buildpacks") for folder in (ROOT / parent).glob("mini_*")
}
PLUGINS = set(PACKAGES) - {"mini_core"}
PUBLIC = {
    "disk",
    "errors",
    "types",
    "interfaces",
    "locks",
    "hookspecs",
    "hosts",
    "versions",
    "testing",
    "sources",
    "paths",
    "tarstream",
}
"""Modules of mini_core that plugins may use."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def importers(module: str) -> set[str]:
    """Files (relative to the root) that import a top-level module."""
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in files(package)
        if any(name.split(".")[0] == module for name in imports(path))
    }


def test_the_core_imports_no_plugin():
    for path in files("mini_core"):
        assert not {name.split(".")[0] for name in imports(path)} & PLUGINS, path


@pytest.mark.parametrize("plugin", sorted(PLUGINS))
def test_a_plugin_imports_only_the_public_names_of_the_core_and_no_other_plugin(plugin: str):
    for path in files(plugin):
        for name in imports(path):
            top, _, rest = name.partition(".")
            assert top == plugin or top not in PLUGINS, f"{path} imports {name}"
            if top == "mini_core" and rest:
                assert rest.split(".")[0] in PUBLIC | {"__version__"}, f"{path} imports {name}"


def test_docker_is_imported_by_its_plugin_alone():
    assert all(path.startswith("plugins/mini_docker/") for path in importers("docker"))


def test_dataset_and_sqlalchemy_are_imported_by_the_store_alone():
    allowed = ("mini_core/store.py", "mini_core/store/")
    assert all(path.startswith(allowed) for path in importers("dataset") | importers("sqlalchemy"))


def test_pluggy_is_called_by_the_facade_alone():
    assert importers("pluggy") == {"mini_core/hookspecs.py", "mini_core/plugins.py"}


def test_the_wheel_holds_every_package_and_nothing_else(tmp_path: Path):
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert {Path(path).name for path in listed} == set(PACKAGES)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert all(f"{package}/py.typed" in names for package in PACKAGES)
