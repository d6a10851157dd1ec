"""The workflows are valid, and what the action runs in a user's repository really deploys it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from shipping_kit import REPOSITORY, Server

ACTION = REPOSITORY / ".github/actions/deploy/action.yml"


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed")
def test_the_workflows_pass_actionlint() -> None:
    done = subprocess.run(["actionlint"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_shipping_script_passes_shellcheck() -> None:
    done = subprocess.run(["shellcheck", ".github/ship"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def workflow(name: str) -> dict[str, object]:
    loaded = yaml.safe_load((REPOSITORY / ".github/workflows" / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_nothing_is_shipped_that_was_not_tested() -> None:
    jobs = workflow("ship.yml")["jobs"]
    assert isinstance(jobs, dict)
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert "test" in jobs["ship"]["needs"]
    assert ".github/ship" in jobs["ship"]["steps"][-1]["run"]


def test_no_expression_is_pasted_into_a_script() -> None:
    """An input with quotes in it must not become code: scripts get values from the environment."""
    steps = yaml.safe_load(ACTION.read_text())["runs"]["steps"]
    for name in ("ci.yml", "ship.yml"):
        jobs = workflow(name)["jobs"]
        assert isinstance(jobs, dict)
        steps += [step for job in jobs.values() for step in job.get("steps", ())]
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []


def test_the_action_deploys_a_repository_and_says_where(installed: Server, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>deployed by an action</p>")
    installed.ssh("mini apps create site")
    key = json.loads(installed.ssh("mini keys create ci --only site --json"))["key"]
    step = yaml.safe_load(ACTION.read_text())["runs"]["steps"][-1]
    given = {
        "MINI_HOST": installed.url,
        "MINI_API_KEY": key,
        "MINI_APP": "site",
        "DEPLOY_PATH": str(tmp_path),
        "DEPLOY_TIMEOUT": "2m",
    }
    assert set(step["env"]) == set(given)
    output = tmp_path / "output"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **given, "GITHUB_OUTPUT": str(output), "PATH": path, "MINI_HOME": str(tmp_path / "m")}
    subprocess.run(["bash", "-e", "-c", step["run"]], env=environment, check=True, capture_output=True)
    assert output.read_text() == f"url=http://site.localhost:{installed.web}\n"
    request = urllib.request.Request(installed.url, headers={"Host": "site.localhost"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"<p>deployed by an action</p>"
