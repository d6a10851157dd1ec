"""What builds leave in BuildKit's cache: mini's own is recognised and bounded, and nobody else's is touched."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_core.errors import BuildError, Unavailable
from mini_core.testing import RecordingJob
from mini_core.types import Dockerfile, Plan
from mini_docker.builder import DockerBuilder
from mini_docker.buildkit import Vertex
from mini_docker.cache import BuildCache
from mini_docker.leftovers import Limits, Ours, Ran, Record, attribute, ran, records, surplus
from tests.docker.conftest import FILES, PYTHON, DockerPlatform

NOW = 1_700_000_000.0


def record(name: str, description: str, created: float, **fields: Any) -> Record:
    facts = {"kind": "regular", "parents": (), "shared": False, "size": 10, "used": created, **fields}
    facts["used"] += NOW
    return Record(id=name, description=description, created=NOW + created, **facts)


def step(name: str, begun: float, ended: float, app: str = "blog") -> Ran:
    return Ran(app=app, name=name, begun=NOW + begun, ended=NOW + ended)


# --- whose a record is


def test_a_record_is_ours_when_it_was_made_while_our_step_ran_and_in_that_steps_way() -> None:
    steps = [
        step("[build 2/4] WORKDIR /app", 0, 1),
        step("[build 3/4] RUN --mount=type=cache,target=/cache/pip pip install flask", 2, 9),
    ]
    found = [
        record("folder", "fileop target", 0.5),
        record("layer", "mount / from exec /bin/sh -c pip install flask", 8.9),
        record("wheels", "cached mount /cache/pip from exec /bin/sh -c pip install flask", 2.1),
        record("earlier", "fileop target", -5),
        record("another command", "mount / from exec /bin/sh -c apt-get update", 5),
        record("another kind", "fileop target", 5),
        record("base", "pulled from docker.io/library/python", 0.5),
    ]
    assert {(item.id, item.app) for item in attribute(steps, found)} == {
        ("folder", "blog"),
        ("layer", "blog"),
        ("wheels", ""),
    }


def test_where_somebody_else_built_at_the_same_time_only_what_is_based_on_ours_is_taken_for_ours() -> None:
    steps = [step("[build 3/4] COPY src/ ./", 0, 1), step("[app 3/4] COPY src/ ./", 0.5, 2)]
    two = [record("one", "fileop target", 0.7), record("two", "fileop target", 1.5)]
    assert {item.id for item in attribute(steps, two)} == {"one", "two"}
    third = record("three", "fileop target", 0.8, parents=("our layer",))
    assert attribute(steps, [*two, third]) == []
    assert [item.id for item in attribute(steps, [*two, third], known=["our layer"])] == ["three"]


@pytest.mark.parametrize("named", [{"Parent": "x"}, {"Parents": ["x"]}, {" Parents": ["x"]}])
def test_every_engine_says_in_its_own_way_what_a_record_is_based_on(named: dict[str, Any]) -> None:
    times = {"CreatedAt": "2026-11-24T08:58:35.48224845Z", "LastUsedAt": None}
    (found,) = records([{"ID": "it", "Type": "regular", "Size": 5, **times, **named}])
    assert found.parents == ("x",)
    assert found.created == found.used == pytest.approx(1795510715.482248)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ('/bin/sh -c echo "$GREETING you" > out', "RUN echo hello you > out"),
        ("/bin/bash -o pipefail -c make all", "[2/3] RUN make   all"),
        ("sh -c exit 3 && sleep 1", '[2/3] RUN ["sh","-c","exit 3 && sleep 1"]'),
        ("/bin/sh -c cp ${FROM}/a b", "RUN cp /srv/a b"),
    ],
)
def test_a_command_is_known_whatever_its_form(command: str, name: str) -> None:
    made = record("it", f"mount / from exec {command}", 0.5)
    assert attribute([step(name, 0, 1)], [made])
    assert not attribute([step("RUN make clean", 0, 1)], [made])


@pytest.mark.parametrize("change", [{"cached": True}, {"error": "exit code: 1"}, {"completed": 0.0}])
def test_steps_that_leave_nothing_are_not_noted(change: dict[str, Any]) -> None:
    facts: dict[str, Any] = {
        "digest": "d",
        "name": "[2/3] RUN make",
        "cached": False,
        "started": 1.0,
        "completed": 2.0,
        "error": "",
    }
    assert ran("blog", Vertex(**facts)) == Ran(app="blog", name="[2/3] RUN make", begun=1.0, ended=2.0)
    assert ran("blog", Vertex(**{**facts, **change})) is None


# --- what is to go


def gone(found: list[Record], apps: list[str], *, size: int = 10**9, age: float = 10**6) -> list[str]:
    ours = {item.id: Ours(id=item.id, app=item.id.split()[0].strip("-"), step=item.description) for item in found}
    limits = Limits(size=size, age=time.time() - NOW + age)
    return surplus([*found, record("foreign", "x", -(10**7))], ours, apps, limits)


def test_the_two_newest_results_of_a_step_stay() -> None:
    found = [record(f"blog {n}", "COPY", n) for n in range(5)] + [record("blog x", "RUN", -9)]
    assert gone(found, ["blog"]) == ["blog 2", "blog 1", "blog 0"]


def test_a_mount_stays_however_often_it_was_made() -> None:
    assert gone([record(f"blog {n}", "RUN", n, kind="exec.cachemount") for n in range(5)], ["blog"]) == []


def test_what_a_removed_app_left_goes_and_what_all_share_stays_until_the_last() -> None:
    found = [record("blog 1", "COPY", 1), record("shop 1", "COPY", 2), record("- pip", "RUN", 0)]
    assert gone(found, ["shop"]) == ["blog 1"]
    assert gone(found, []) == ["shop 1", "blog 1", "- pip"]


def test_what_was_not_used_for_long_goes() -> None:
    found = [record("blog old", "a", -200), record("blog used", "b", -300, used=-10)]
    assert gone(found, ["blog"], age=100) == ["blog old"]


def test_beyond_the_limit_the_longest_unused_goes_and_what_an_image_has_does_not_count() -> None:
    found = [record(f"blog {n}", str(n), n) for n in range(4)] + [record("blog image", "i", 9, shared=True, size=99)]
    assert gone(found, ["blog"], size=25) == ["blog 1", "blog 0"]


# --- on a real engine; others may be building on it at the same time


@pytest.fixture
def own(engine: Any) -> Iterator[DockerPlatform]:
    made = DockerPlatform(engine)
    yield made
    made.clean()


class Mark:
    """Tells what a test built from all else: by the word in its first command, and by the size of its files."""

    plan = Plan(buildpack="dockerfile", dockerfile=Dockerfile())

    def __init__(self, platform: DockerPlatform) -> None:
        self._cache = platform.cache
        self.word = uuid.uuid4().hex
        self._size = 1_000_000 + int(self.word, 16) % 3_000_000

    def files(self, *more: str) -> dict[str, str]:
        """Different ones each time. more: further lines of the Dockerfile."""
        first = ("FROM python:3.13-slim AS one", f"RUN echo {self.word} > /it", "COPY . .")
        text = "\n".join((*first, *more, 'CMD ["python", "-V"]', ""))
        return {"Dockerfile": text, "data": "x" * self._size, "code.py": f"# {uuid.uuid4()}\n"}

    def records(self) -> list[Record]:
        sizes = range(self._size, self._size + 1000)
        found = self._cache._records(60)
        return [item for item in found if f"echo {self.word}" in item.description or item.size in sizes]


def foreign(platform: DockerPlatform, word: str) -> None:
    """A build by somebody who knows nothing of mini."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        text = f"FROM python:3.13-slim\nWORKDIR /{word}\nCOPY Dockerfile ./\nRUN echo {word} > there\n".encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    api = platform.engine.connect()
    headers = {"Content-Type": "application/x-tar"}
    api._result(api._post(api._url("/build"), params={"version": "2"}, data=body.getvalue(), headers=headers))
    api.close()


@pytest.mark.docker
def test_ten_code_only_deploys_leave_as_much_as_two_and_none_when_the_app_is_gone(
    own: DockerPlatform, make_source: Callable[[dict[str, str]], Path]
) -> None:
    mark = Mark(own)
    images = [own.build(mark.plan, make_source(mark.files()))[0] for _ in range(10)]
    assert len(mark.records()) == 12  # the command, the files that were sent, and a copy of them for each
    own.builder.prune(images[-1:], ["blog"])
    assert sorted(item.kind for item in mark.records()) == ["regular", "regular", "regular", "source.local"]
    usage = own.cache.usage()
    assert usage.records == len(own.cache._ledger.known(own.cache._records(60))) >= 4
    own.builder.prune(images[-1:], ["blog"])
    assert own.cache._ledger.apps() == {"blog"}
    own.builder.prune((), ())
    assert not mark.records()


@pytest.mark.docker
def test_somebody_elses_builds_stay_even_those_made_at_the_same_time(
    own: DockerPlatform, make_source: Callable[[dict[str, str]], Path]
) -> None:
    mark, words = Mark(own), [uuid.uuid4().hex for _ in range(4)]
    threads = [threading.Thread(target=foreign, args=(own, word)) for word in words]
    for thread in threads:
        thread.start()
        own.build(mark.plan, make_source(mark.files()))
    for thread in threads:
        thread.join()
    theirs = {item.id for item in own.cache._records(60) for word in words if word in item.description}
    assert len(theirs) == 4
    own.builder.prune((), ())
    assert theirs <= {item.id for item in own.cache._records(60)}
    own.cache._remove(theirs)


@pytest.mark.docker
def test_all_stages_are_known_and_what_a_build_had_done_before_it_failed(
    own: DockerPlatform, make_source: Callable[[dict[str, str]], Path]
) -> None:
    mark = Mark(own)
    own.build(mark.plan, make_source(mark.files("RUN cat /it", "FROM one")))
    failing = own.request(mark.plan, make_source(mark.files("RUN exit 3")))
    with pytest.raises(BuildError, match="exit code 3"):
        own.builder.build(failing, RecordingJob(60))
    assert len(mark.records()) >= 4  # the command, a copy of each build, and the files that were sent
    own.builder.prune((), ())
    assert not mark.records()


@pytest.mark.docker
def test_what_a_killed_controller_noted_is_found_by_the_next(
    own: DockerPlatform, make_source: Callable[[dict[str, str]], Path]
) -> None:
    mark = Mark(own)
    own.build(mark.plan, make_source(mark.files()))
    with (own.folder / "cache.jsonl").open("ab") as file:
        file.write(b'\n{"ran":{"app":"blo')
    own.builder.prune_images(())
    assert mark.records()
    BuildCache(own.engine, own.folder, {}).prune(())
    assert not mark.records()


@pytest.mark.docker
def test_a_build_is_refused_with_the_numbers_while_the_engines_disk_is_nearly_full(
    own: DockerPlatform, make_source: Callable[[dict[str, str]], Path]
) -> None:
    full = DockerBuilder(own.engine, own.id, {}, cache=own.cache, reserve=1 << 60)
    with pytest.raises(Unavailable, match=r"The disk is nearly full: .* free at .*, .* TB must stay free") as caught:
        full.build(own.request(PYTHON, make_source(FILES)), RecordingJob(60))
    assert caught.value.code == "disk-full"
