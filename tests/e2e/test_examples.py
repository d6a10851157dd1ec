"""Every example deploys, answers, logs, goes on answering through a `kill -9` of the controller, and is destroyed
without a trace; on Docker, and as local processes where the example can run so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mini_core.testing import until
from mini_core.types import Value
from tests.e2e.platform import MiniPlatform

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Example(Value):
    """An example app: what is asked of it, what it must answer, what its log must hold after that."""

    name: str
    path: str = "/"
    answer: str
    logged: str = ""
    needs_docker: bool = False


ALL = (
    Example(name="flask", path="/api/sum/2/40", answer='"sum":42'),
    Example(name="fastapi", path="/hello/you", answer="Hello you"),
    Example(name="django", path="/", answer="Hello from Django"),
    Example(name="express", answer="Hello from Express", logged="listening on"),
    Example(name="vite", path="/some/client/route", answer='<div id="app">'),
    Example(name="sveltekit", path="/?name=you", answer="Hello from you"),
    Example(name="go", path="/hello/you", answer="Hello you"),
    Example(name="go-two-mains", answer="Hello from the shop"),
    Example(name="static", answer="Hello from a static site"),
    Example(name="dockerfile", answer="Hello from a Dockerfile", needs_docker=True),
    Example(name="worker", answer="Hello from the web process", logged="job 1 done"),
    Example(name="chat", answer="<h1>Chat</h1>"),
)


@pytest.fixture(scope="module", params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
def platform(request: pytest.FixtureRequest, make_platform: Callable[[str], MiniPlatform]) -> MiniPlatform:
    return make_platform(request.param)


def of(platform: MiniPlatform) -> list[Example]:
    return [item for item in ALL if platform.runtime == "docker" or not item.needs_docker]


def app(item: Example) -> str:
    return f"my-{item.name}"


@pytest.mark.slow
@pytest.mark.parametrize("example", ALL, ids=lambda item: item.name)
def test_an_example_deploys_answers_and_logs(platform: MiniPlatform, example: Example):
    if example not in of(platform):
        done = platform.mini("deploy", str(EXAMPLES / example.name), app(example), check=False)
        assert done.returncode == 1
        assert "Docker" in done.stderr
        platform.mini("apps", "destroy", app(example), "--yes")
        return
    done = platform.mini("deploy", str(EXAMPLES / example.name), app(example))
    assert f"http://{app(example)}.localhost:{platform.port}" in done.stdout + done.stderr
    status, body = platform.get(app(example), example.path)
    assert (status, example.answer in body) == (200, True), body
    if example.logged:
        until(lambda: example.logged in platform.mini("logs", app(example)).stdout, what=f"{example.logged} in the log")


@pytest.mark.slow
def test_all_go_on_answering_through_a_kill_of_the_controller(platform: MiniPlatform):
    before = platform.kill_controller()
    for example in of(platform):
        assert platform.get(app(example), example.path)[0] == 200, example.name
    assert platform.controller_pid() != before
    states = {item["name"]: item["state"] for item in platform.json("apps", "list")}
    assert states == {app(example): "running" for example in of(platform)}


@pytest.mark.slow
def test_after_down_and_up_all_answer_again_without_a_further_command(platform: MiniPlatform):
    platform.mini("down")
    platform.up()
    for example in of(platform):
        until(lambda e=example: platform.get(app(e), e.path)[0] == 200, seconds=60, what=example.name)


@pytest.mark.slow
def test_what_is_destroyed_leaves_nothing_behind(platform: MiniPlatform):
    for example in of(platform):
        platform.mini("apps", "destroy", app(example), "--yes")
        assert platform.get(app(example))[0] == 404
    assert platform.json("apps", "list") == []
    platform.mini("down", "--purge", "--yes")
    assert platform.left_over() == []
