"""Builds on a real engine."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_core.errors import BuildError, Cancelled
from mini_core.testing import RecordingJob, until
from mini_core.types import Dockerfile, Image, Plan, ProcessType, StaticSite, Step, Toolchain, replace
from mini_docker.builder import DockerBuilder

from .conftest import FILES, PYTHON, DockerPlatform

pytestmark = pytest.mark.docker

SECRET = "sesame-street-4711"
Sources = Callable[[dict[str, str]], Path]


def get(host: str, port: int, path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {key.lower(): text for key, text in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def answers(host: str, port: int) -> bool:
    try:
        return get(host, port)[0] < 500
    except OSError:
        return False


def test_an_app_is_built_and_answers_as_an_ordinary_user(platform: DockerPlatform, image: Image) -> None:
    spec = platform.start(platform.spec(image))
    assert spec.endpoint
    until(lambda: answers(spec.endpoint.host, spec.endpoint.port), what="an answer")
    command = platform.runtime.exec(spec.id, ("id", "-u"), env={})
    assert b"".join(data for _, data in command.output()).strip() == b"10001"
    assert command.wait() == 0
    command.close()
    assert image.resolved == {"python": "python:3.13-slim"}
    assert image.command == ("python", "app.py") and image.workdir == "/app"
    platform.runtime.remove(spec.id)


def test_an_unchanged_source_gives_the_same_image_and_a_code_change_reinstalls_nothing(
    platform: DockerPlatform, image: Image, make_source: Sources
) -> None:
    same, job = platform.build(PYTHON, make_source(FILES))
    assert same.digest == image.digest
    assert ("info", "install (cached)") in job.lines
    changed, job = platform.build(PYTHON, make_source({**FILES, "app.py": FILES["app.py"] + "# changed\n"}))
    assert changed.digest != image.digest
    assert ("info", "install (cached)") in job.lines
    assert not [line for kind, line in job.lines if kind == "output"]


def test_a_changed_dependency_is_installed_again(platform: DockerPlatform, image: Image, make_source: Sources) -> None:
    _, job = platform.build(
        PYTHON, make_source({**FILES, "requirements.txt": f"itsdangerous==2.1.2  # {platform.id}\n"})
    )
    assert "Successfully installed itsdangerous-2.1.2" in job.text()


def test_a_failing_install_names_the_step_the_cause_and_what_the_tool_said(
    platform: DockerPlatform, make_source: Sources
) -> None:
    source = make_source({**FILES, "requirements.txt": "no-such-package-of-mini==99\n"})
    with pytest.raises(BuildError) as caught:
        platform.build(PYTHON, source)
    assert (caught.value.step, caught.value.code) == ("install", "unknown-dependency")
    assert caught.value.message == "install failed with exit code 1"
    assert "no-such-package-of-mini" in "\n".join(caught.value.tail)
    assert caught.value.hint


def test_build_secrets_are_seen_by_the_steps_and_found_nowhere_afterwards(
    platform: DockerPlatform, make_source: Sources
) -> None:
    uses = Step(name="use it", argv=("sh", "-c", 'test ${#TOKEN} = 18 && echo "it was seen"'), env={"RUN": platform.id})
    plan = replace(PYTHON, toolchains=(Toolchain(name="debian"),), runtime="", steps=(uses,), bin=())
    image, job = platform.build(plan, make_source(FILES), TOKEN=SECRET)
    assert "it was seen" in job.text()
    api = platform.engine.api
    assert SECRET not in str(api.history(image.ref)) and SECRET not in str(api.inspect_image(image.ref))
    assert not _contains(api.get_image(image.ref), SECRET.encode())


def _contains(chunks: Iterator[bytes], wanted: bytes) -> bool:
    rest = b""
    for chunk in chunks:
        if wanted in rest + chunk:
            return True
        rest = chunk[-len(wanted) :]
    return False


def test_build_secrets_are_refused_where_they_could_not_be_kept(platform: DockerPlatform, make_source: Sources) -> None:
    source = make_source({"Dockerfile": "FROM debian:bookworm-slim\nARG TOKEN\n"})
    with pytest.raises(BuildError, match=r"TOKEN.*history") as caught:
        platform.build(Plan(buildpack="dockerfile", dockerfile=Dockerfile()), source, TOKEN=SECRET)
    assert caught.value.code == "build-secrets" and "mini env unset --build TOKEN" in caught.value.hint
    assert "RUN --mount=type=secret,id=TOKEN" in caught.value.hint
    classic = DockerBuilder(platform.engine, platform.id, {}, {"builder": "classic"}, cache=platform.cache)
    with pytest.raises(BuildError, match="no mounts"):
        classic.build(platform.request(PYTHON, make_source(FILES), TOKEN=SECRET), RecordingJob())


def test_cancelling_ends_the_step_that_runs_in_the_engine(platform: DockerPlatform, make_source: Sources) -> None:
    mark = f"86400.{platform.id[-6:].translate(str.maketrans('abcdef', '123456'))}"
    plan = replace(PYTHON, steps=(Step(name="wait", argv=("sleep", mark)),))
    job = RecordingJob()

    def running() -> bool:
        return any(mark in _command(path) for path in Path("/proc").glob("[0-9]*/cmdline"))

    def cancel() -> None:
        until(running, what="the step")
        job.cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        platform.builder.build(platform.request(plan, make_source(FILES)), job)
    thread.join()
    until(lambda: not running(), seconds=5, what="the end of the step")


def _command(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


OWN = """\
FROM debian:bookworm-slim AS first
ARG GREETING=nobody
RUN echo "hello $GREETING" > /greeting
FROM first AS second
COPY . /copied
EXPOSE 3000 9000/udp
ENTRYPOINT ["sh", "-c"]
CMD ["cat /greeting; ls -A /copied"]
"""


def test_the_repositorys_own_dockerfile_is_used_as_it_is(platform: DockerPlatform, make_source: Sources) -> None:
    files = {"deploy/Dockerfile": OWN, ".dockerignore": "*.log\n!keep.log\ndeploy\n"}
    source = make_source({**files, "a.log": "x", "keep.log": "x", "b.txt": "x"})
    own = Dockerfile(path="deploy/Dockerfile", args={"GREETING": "world"})
    image, job = platform.build(Plan(buildpack="dockerfile", dockerfile=own), source)
    assert (image.ports, image.command) == ((3000,), ("sh", "-c", "cat /greeting; ls -A /copied"))
    assert any('RUN echo "hello' in line or "RUN echo hello" in line for _, line in job.lines)
    spec = platform.start(platform.spec(image, web=False))
    assert platform.runtime.wait(spec.id, 20)
    said = [line.text for line in platform.runtime.logs(spec.id)]
    assert said[0] == "hello world"
    assert set(said[1:]) >= {"b.txt", "keep.log"} and "a.log" not in said
    first, _ = platform.build(Plan(buildpack="dockerfile", dockerfile=replace(own, target="first")), source)
    assert first.ports == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FORM debian:bookworm-slim\n", "dockerfile"),
        ("FROM debian:bookworm-slim\nCOPY nothing-there /x\n", "missing-file"),
        ("FROM debian:bookworm-slim\nRUN no-such-command\n", "missing-command"),
        ("FROM registry.invalid/none:1\n", "network"),
    ],
)
def test_a_broken_dockerfile_says_what_is_wrong(
    platform: DockerPlatform, make_source: Sources, text: str, says: str
) -> None:
    with pytest.raises(BuildError) as caught:
        platform.build(Plan(buildpack="dockerfile", dockerfile=Dockerfile()), make_source({"Dockerfile": text}))
    assert caught.value.code == says, caught.value.message
    assert caught.value.hint


def test_node_builds_the_assets_of_a_python_app(platform: DockerPlatform, make_source: Sources) -> None:
    node = "require('fs').writeFileSync('made.txt', 'by node ' + process.version)"
    plan = replace(
        PYTHON,
        toolchains=(*PYTHON.toolchains, Toolchain(name="node", version="24")),
        steps=(
            *PYTHON.steps,
            Step(name="assets", argv=("node", "-e", node), toolchain="node", env={"RUN": platform.id}),
            Step(
                name="collect",
                argv=("python", "-c", "import itsdangerous; print('seen', open('made.txt').read())"),
                env={"RUN": platform.id},
            ),
        ),
        processes=(ProcessType(name="web", command=("cat", "made.txt")),),
    )
    image, job = platform.build(plan, make_source(FILES))
    assert "seen by node v24." in job.text()
    spec = platform.start(platform.spec(image, web=False))
    assert platform.runtime.wait(spec.id, 20)
    assert next(line.text for line in platform.runtime.logs(spec.id)).startswith("by node v24.")


def test_a_static_site_is_served_as_browsers_want_it(platform: DockerPlatform, make_source: Sources) -> None:
    files = {
        "dist/index.html": "<h1>home</h1>",
        "dist/404.html": "lost",
        "dist/about.html": "about",
        "dist/docs/index.html": "docs",
        "dist/assets/app-4f2a.js": "/* script */" * 200,
        "dist/.env": "SECRET=1",
    }
    plan = Plan(
        buildpack="static",
        toolchains=(Toolchain(name="static"),),
        static=StaticSite(root="dist", immutable=("assets",)),
    )
    image, _ = platform.build(plan, make_source(files))
    spec = platform.start(platform.spec(image))
    assert spec.endpoint
    host, port = spec.endpoint.host, spec.endpoint.port
    until(lambda: answers(host, port), what="nginx")
    status, headers, body = get(host, port)
    assert (status, body, headers["cache-control"]) == (200, b"<h1>home</h1>", "no-cache") and headers["etag"]
    assert get(host, port, **{"If-None-Match": headers["etag"]})[0] == 304
    assert get(host, port, "/docs")[1]["location"] == "/docs/"
    assert (get(host, port, "/docs/")[2], get(host, port, "/about")[2]) == (b"docs", b"about")
    status, headers, _ = get(host, port, "/assets/app-4f2a.js", **{"Accept-Encoding": "gzip"})
    assert "immutable" in headers["cache-control"] and headers["content-encoding"] == "gzip"
    assert get(host, port, "/assets/app-4f2a.js", Range="bytes=0-3")[::2] == (206, b"/* s")
    assert get(host, port, "/nowhere")[::2] == (404, b"lost")
    assert get(host, port, "/.env")[0] == get(host, port, "/assets/")[0] == 404
    assert platform.runtime.status(spec.id).memory < 40e6
    platform.runtime.remove(spec.id)


def test_a_version_that_is_not_here_is_replaced_by_the_nearest_and_it_is_said(
    platform: DockerPlatform, make_source: Sources
) -> None:
    plan = replace(PYTHON, toolchains=(Toolchain(name="python", version="3.13.1"),), steps=(), bin=())
    image, job = platform.build(plan, make_source(FILES))
    assert image.resolved == {"python": "python:3.13-slim"}
    warnings = [line for kind, line in job.lines if kind == "warning"]
    assert any("python 3.13.1: python:3.13-slim is used instead of python:3.13.1-slim" in line for line in warnings)


def test_a_version_that_cannot_be_had_names_what_was_wanted_and_what_is_here(
    platform: DockerPlatform, make_source: Sources
) -> None:
    plan = replace(PYTHON, toolchains=(Toolchain(name="python", version="2.7", source="runtime.txt"),), steps=())
    with pytest.raises(BuildError, match=r"wanted python:2\.7.*here: .*python:3\.13-slim") as caught:
        platform.build(plan, make_source(FILES))
    assert caught.value.code == "no-base-image" and "runtime.txt" in caught.value.hint


def test_the_files_that_eject_writes_build_by_themselves(platform: DockerPlatform, make_source: Sources) -> None:
    files = platform.builder.render(PYTHON)
    source = make_source({**FILES, "node_modules/x": "x", **files})
    image, _ = platform.build(Plan(buildpack="dockerfile", dockerfile=Dockerfile()), source)
    spec = platform.start(platform.spec(image))
    assert spec.endpoint
    until(lambda: answers(spec.endpoint.host, spec.endpoint.port), what="an answer")
    platform.runtime.remove(spec.id)


def test_only_this_platforms_images_are_pruned_and_those_to_keep_stay(
    engine, platform: DockerPlatform, make_source: Sources
) -> None:
    one, other = DockerPlatform(engine), DockerPlatform(engine)
    plan = replace(PYTHON, steps=(), bin=())
    try:
        kept, _ = one.build(plan, make_source({"app.py": "1"}))
        gone, _ = one.build(plan, make_source({"app.py": "2"}))
        foreign, _ = other.build(plan, make_source({"app.py": "3"}))
        assert one.builder.prune([kept], ["blog"]) > 0
        found = [one.builder.exists(image) for image in (kept, gone, foreign)]
        assert found == [True, False, True]
        assert {"mini.platform": one.id, "mini.app": "blog"}.items() <= engine.api.inspect_image(kept.ref)["Config"][
            "Labels"
        ].items()
    finally:
        one.clean()
        other.clean()
    assert not one.builder.exists(kept)


def test_a_source_that_is_rebuilt_costs_less_than_a_second(
    platform: DockerPlatform, image: Image, make_source: Sources
) -> None:
    source = make_source({**FILES, "app.py": FILES["app.py"] + "# quick\n"})
    began = time.monotonic()
    platform.build(PYTHON, source)
    assert time.monotonic() - began < 5, "a code change takes 0.2 s where nothing else runs"
