"""Which Python: every file that may say so, in its order, and what is said about a wrong one."""

from __future__ import annotations

import pytest

from mini_buildpacks.python import PythonBuildpack
from mini_core.errors import ConfigError
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings, Plan
from mini_core.versions import satisfies


def plan_of(files: dict[str, str | bytes], **env: str) -> Plan:
    content = {"requirements.txt": "", "main.py": "", **files}
    offer = PythonBuildpack().detect(MemorySource(content), BuildSettings(env=env))
    assert offer is not None
    return offer.plan


def version(files: dict[str, str | bytes], **env: str) -> tuple[str, str]:
    toolchain = plan_of(files, **env).toolchains[0]
    return toolchain.version, toolchain.source


ALL: dict[str, str | bytes] = {
    ".python-version": "3.14\n",
    ".tool-versions": "node 20\npython 3.12.1 # comment\n",
    "mise.toml": "[tools]\npython = '3.11'\n",
    "runtime.txt": "python-3.10.2\n",
    "pyproject.toml": "[project]\nname = 'x'\nrequires-python = '>=3.9'\n",
}


def test_the_order_of_the_files() -> None:
    files = dict(ALL)
    assert version(files, PYTHON_VERSION="3.8") == ("3.8", "PYTHON_VERSION")
    for name, expected in (
        (".python-version", "3.14"),
        (".tool-versions", "3.12.1"),
        ("mise.toml", "3.11"),
        ("runtime.txt", "3.10.2"),
        ("pyproject.toml", ">=3.9"),
    ):
        found, source = version(files)
        assert (found, source.split()[0]) == (expected, name)
        del files[name]
    assert version(files) == ("3.13", "default")


def test_what_is_not_used_is_named() -> None:
    files: dict[str, str | bytes] = {".python-version": "3.11", "runtime.txt": "python-3.12"}
    assert plan_of(files).warnings == ("Python 3.11 from .python-version; not used: runtime.txt (3.12)",)
    files["runtime.txt"] = "python-3.11"
    assert plan_of(files).warnings == ("runtime.txt is not needed: .python-version says which Python",)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({".python-version": "# comment\n\n  python-3.12.4  \n"}, "3.12.4"),
        ({".python-version": "cpython-3.12\r\n"}, "3.12"),
        ({".python-version": "latest\n"}, "3.13"),
        ({"runtime.txt": "python-3.11.4"}, "3.11.4"),
        ({"runtime.txt": "nodejs-20"}, "3.13"),
        ({"mise.toml": "[tools]\npython = ['3.12', '3.11']"}, "3.12"),
        ({"mise.toml": "[tools]\npython = {version = '3.12'}"}, "3.12"),
        ({"mise.toml": "[tools]\npython = 'latest'"}, "3.13"),
        ({"mise.toml": "[tools]\npython = 'latest'", "mise.lock": "[[tools.python]]\nversion = '3.14.7'"}, "3.14.7"),
        ({"pyproject.toml": "[tool.poetry.dependencies]\npython = '^3.11'"}, "^3.11"),
        ({"pyproject.toml": "[tool.poetry.dependencies]\npython = {version = '~3.11'}"}, "~3.11"),
    ],
)
def test_each_file_s_own_forms_are_understood(files: dict[str, str | bytes], expected: str) -> None:
    assert version(files)[0] == expected


def test_pipfile_s_full_version_comes_before_its_minor_and_its_lock_s() -> None:
    pipfile = "[packages]\n[requires]\npython_version = '3.12'\npython_full_version = '3.12.4'"
    lock = '{"_meta": {"requires": {"python_version": "3.11"}}, "default": {}}'
    files: dict[str, str | bytes] = {"Pipfile": pipfile, "Pipfile.lock": lock}
    assert version(files) == ("3.12.4", "Pipfile python_full_version")
    assert version({**files, "Pipfile": "[packages]"}) == ("3.11", "Pipfile.lock python_version")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({".python-version": ""}, ".python-version: no version in it"),
        ({".python-version": "# only a comment\n"}, ".python-version: no version in it"),
        ({".python-version": "3.12\n2.7\n"}, ".python-version: several versions in it: 3.12, 2.7"),
        ({".python-version": "three"}, ".python-version: expected a version such as 3.13, got three"),
        ({".python-version": "3.12.0\x1b"}, ".python-version: expected a version such as 3.13, got 3.12.0\\x1b"),
        ({".python-version": b"\x80\x01"}, ".python-version: not UTF-8 text"),
        ({".python-version": b"\xef\xbb\xbf3.12"}, ".python-version: begins with a byte-order mark"),
        ({"runtime.txt": "python-3.x"}, "runtime.txt: expected one version such as python-3.13, got python-3.x"),
        ({"Pipfile": "[requires]\npython_version='^3.12'", "Pipfile.lock": "{}"}, "Pipfile: python_version: expected"),
        ({"pyproject.toml": "[project]\nrequires-python = 'new'"}, "pyproject.toml requires-python: version range"),
    ],
)
def test_a_file_that_is_wrong_is_an_error_that_names_the_cause(files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(files)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize("name", [".python-version ", "python-version", ".python_version", ".python-version.txt"])
def test_a_misspelt_file_is_pointed_out(name: str) -> None:
    assert plan_of({name: "3.12"}).warnings == (f"{name!r} is not read: the file's name is .python-version",)


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": "[project]\nname='x'\nrequires-python='3.12.*'", "uv.lock": ""},
        {"pyproject.toml": "[tool.poetry.dependencies]\npython='<3.13'", "poetry.lock": ""},
        {"Pipfile": "[requires]\npython_version='3.12'", "Pipfile.lock": "{}"},
    ],
)
def test_a_version_that_the_project_s_own_tool_would_refuse_is_refused_at_once(files: dict[str, str | bytes]) -> None:
    with pytest.raises(ConfigError, match=r"\.python-version asks for Python 3\.13, .* for .*3\.1"):
        plan_of({**files, ".python-version": "3.13"})


def test_a_developer_s_own_tools_may_lag_behind_the_project() -> None:
    files: dict[str, str | bytes] = {"pyproject.toml": "[project]\nname='x'\nrequires-python='>=3.12'", "uv.lock": ""}
    assert version({**files, ".tool-versions": "python 3.9.1"})[0] == "3.9.1"


def test_pip_does_not_enforce_requires_python_so_the_pin_counts() -> None:
    pyproject = "[project]\nname='x'\nrequires-python='>=3.12'"
    assert version({"pyproject.toml": pyproject, ".python-version": "3.11"})[0] == "3.11"


@pytest.mark.parametrize(
    ("requirements", "fits", "does_not"),
    [
        ("numpy==2.0.1", "3.12", "3.13"),
        ("numpy==1.24.0", "3.11", "3.12"),
        ("Django==3.2.19", "3.11", "3.12"),
        ("pandas==2.2.2\nnumpy==1.26.4", "3.12", "3.13"),
        ("numpy<2", "3.12", "3.13"),
        ("numpy~=1.25.0", "3.11", "3.12"),
        ("uwsgi==2.0.22", "3.11", "3.12"),
        ("setuptools<=60", "3.11", "3.12"),
    ],
)
def test_old_pins_set_an_upper_limit_where_no_version_is_asked_for(requirements: str, fits: str, does_not: str) -> None:
    wanted, source = version({"requirements.txt": requirements})
    assert satisfies(fits, wanted, tool="python") and not satisfies(does_not, wanted, tool="python")
    assert source.startswith("requirements.txt: ")
    assert version({"requirements.txt": requirements, ".python-version": "3.14"})[0] == "3.14"


def test_old_pins_narrow_an_open_range() -> None:
    files: dict[str, str | bytes] = {
        "requirements.txt": "numpy==2.0.1",
        "pyproject.toml": "[project]\nrequires-python='>=3.10'",
    }
    wanted, _ = version(files)
    assert satisfies("3.12", wanted, tool="python") and not satisfies("3.13", wanted, tool="python")
    files["pyproject.toml"] = "[project]\nrequires-python='>=3.13'"
    assert version(files)[0] == ">=3.13"  # both cannot be had: what is said wins over what is guessed
    files["pyproject.toml"] = "[tool.poetry.dependencies]\npython='^3.10'"
    assert satisfies("3.12", version(files)[0], tool="python")
    for open_ended in ("numpy>=1.0", "numpy<3", "numpy!=2.1.0", "numpy"):
        assert version({"requirements.txt": open_ended}) == ("3.13", "default")


def test_the_file_with_the_version_is_evidence() -> None:
    assert [(item.file, item.detail) for item in plan_of({".python-version": "3.11"}).evidence][1] == (
        ".python-version",
        "Python 3.11",
    )
