"""The contracts of what recognises a source and of what builds it."""

from __future__ import annotations

import itertools
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_core.errors import BuildError, Cancelled, NotFound
from mini_core.interfaces import Builder, Buildpack, BuildRequest
from mini_core.sources import FolderSource, MemorySource, TarSource
from mini_core.testing.helpers import Files, RecordingJob, pure, tar_of, until, write_files
from mini_core.types import (
    BuildSettings,
    Image,
    Offer,
    Plan,
    Secret,
    Step,
    decode,
    encode,
    replace,
)


class BuildpackContract:
    """Fixtures: `buildpack`, and `recognised`, the files (path → text) of an app that it takes."""

    @pytest.fixture
    def buildpack(self) -> Buildpack:
        raise NotImplementedError("define the fixture `buildpack`")

    @pytest.fixture
    def recognised(self) -> Files:
        raise NotImplementedError("define the fixture `recognised`")

    @staticmethod
    def _offer(buildpack: Buildpack, source: Any) -> Offer:
        offer = buildpack.detect(source, BuildSettings())
        assert offer is not None, f"{buildpack.name} does not recognise the example"
        return offer

    def test_it_has_a_name_and_says_what_it_looks_for(self, buildpack: Buildpack) -> None:
        assert buildpack.name == buildpack.name.lower().strip()
        assert buildpack.description

    def test_the_plan_is_the_same_from_memory_folder_and_tar_and_the_second_time(
        self, buildpack: Buildpack, recognised: Files, tmp_path: Path
    ) -> None:
        files = {name: textwrap.dedent(text).encode() for name, text in recognised.items()}
        memory = MemorySource(files)
        folder = FolderSource(write_files(tmp_path / "app", recognised))
        with TarSource(tar_of(recognised, tmp_path / "app.tar.gz")) as tar:
            offers = [self._offer(buildpack, source) for source in (memory, folder, tar, memory)]
        assert all(offer == offers[0] for offer in offers)

    def test_detection_opens_no_connection_starts_no_process_and_writes_nothing(
        self, buildpack: Buildpack, recognised: Files
    ) -> None:
        source = MemorySource({name: textwrap.dedent(text).encode() for name, text in recognised.items()})
        self._offer(buildpack, source)  # imports that happen at first use are done now
        with pure():
            self._offer(buildpack, source)

    def test_an_empty_source_and_a_stranger_are_left_to_others(self, buildpack: Buildpack) -> None:
        assert buildpack.detect(MemorySource({}), BuildSettings()) is None
        assert buildpack.detect(MemorySource({"notes.txt": b"nothing to run"}), BuildSettings()) is None

    def test_the_plan_is_data_that_survives_storage_and_names_no_absolute_path(
        self, buildpack: Buildpack, recognised: Files
    ) -> None:
        source = MemorySource({name: textwrap.dedent(text).encode() for name, text in recognised.items()})
        plan = self._offer(buildpack, source).plan
        assert decode(Plan, encode(plan)) == plan
        assert plan.buildpack == buildpack.name
        paths = [*plan.artifacts, *plan.bin, *itertools.chain(*(step.files for step in plan.steps))]
        assert not [path for path in paths if path.startswith("/") or ".." in path.split("/")]
        assert plan.processes or plan.static or plan.dockerfile or plan.warnings
        assert all(step.argv and step.name for step in plan.steps)


class BuilderContract:
    """Fixtures: `builder`; `plan`, which it can carry out for `files` (path → text), with at least one step that
    runs in the whole source, and a `python3` on PATH while it builds."""

    @pytest.fixture
    def builder(self) -> Builder:
        raise NotImplementedError("define the fixture `builder`")

    @pytest.fixture
    def plan(self) -> Plan:
        raise NotImplementedError("define the fixture `plan`")

    @pytest.fixture
    def files(self) -> Files:
        raise NotImplementedError("define the fixture `files`")

    @pytest.fixture
    def request_for(self, files: Files, tmp_path: Path) -> Callable[..., BuildRequest]:
        def make(plan: Plan, **env: str) -> BuildRequest:
            name = uuid.uuid4().hex[:8]
            source = write_files(tmp_path / name, files)
            secrets = {key: Secret(text) for key, text in env.items()}
            labels = {"mini.platform": "contract", "mini.app": "contract"}
            return BuildRequest(id=name, app="contract", plan=plan, source=source, build_env=secrets, labels=labels)

        return make

    def test_a_build_gives_an_image_that_exists_until_it_is_removed(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        image = builder.build(request_for(plan), RecordingJob())
        assert image.kind == builder.produces
        assert image.builder == builder.name
        assert builder.exists(image)
        builder.remove(image)
        assert not builder.exists(image)
        builder.remove(image)

    def test_an_exported_image_comes_back_as_one_of_its_own(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        image = builder.build(request_for(plan), RecordingJob())
        assert builder.size([image]) > 0
        (copy,) = builder.import_([(image, "contract-copy")], builder.export([image]))
        assert isinstance(copy, Image)
        try:
            assert copy.ref != image.ref
            assert builder.exists(image)
            builder.remove(image)
            assert builder.exists(copy)
            with pytest.raises(NotFound):
                list(builder.export([image]))
        finally:
            builder.remove(copy)
        assert not builder.exists(copy)

    def test_several_images_travel_together_and_what_they_brought_along_goes(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        """Their old names among it, unless they were there before."""
        images = [builder.build(replace(request_for(plan), no_cache=True), RecordingJob()) for _ in range(2)]
        data = list(builder.export(images))
        for image in images:
            builder.remove(image)
        copies = builder.import_([(image, "contract-copy") for image in images], iter(data))
        try:
            assert [builder.exists(image) for image in images] == [False, False]
            assert all(isinstance(copy, Image) and builder.exists(copy) for copy in copies)
            assert len({copy.ref for copy in copies if isinstance(copy, Image)}) == 2
        finally:
            for copy in copies:
                if isinstance(copy, Image):
                    builder.remove(copy)

    def test_a_failing_step_is_named_with_its_last_lines(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        script = "import sys; print('about to fail'); sys.exit(3)"
        broken = replace(plan, steps=(*plan.steps, Step(name="compile", argv=("python3", "-c", script))))
        with pytest.raises(BuildError) as caught:
            builder.build(request_for(broken), RecordingJob())
        assert caught.value.step == "compile"
        assert any("about to fail" in line for line in caught.value.tail)
        assert caught.value.hint

    def test_output_reaches_the_user_line_by_line_while_the_step_still_runs(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        script = "import time; print('first', flush=True); time.sleep(60)"
        slow = replace(plan, steps=(*plan.steps, Step(name="slow", argv=("python3", "-c", script))))
        job = RecordingJob()
        threading.Thread(target=self._cancel_once_seen, args=(job, "first"), daemon=True).start()
        with pytest.raises((Cancelled, BuildError)):
            builder.build(request_for(slow), job)
        assert job.cancelled.is_set(), "the line never came"

    def test_a_cancelled_build_stops_within_five_seconds(
        self, builder: Builder, plan: Plan, request_for: Callable[..., BuildRequest]
    ) -> None:
        script = "import time; print('first', flush=True); time.sleep(60)"
        slow = replace(plan, steps=(*plan.steps, Step(name="slow", argv=("python3", "-c", script))))
        job = RecordingJob()
        cancelled_at: list[float] = []

        def cancel() -> None:
            self._cancel_once_seen(job, "first")
            cancelled_at.append(time.monotonic())

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        with pytest.raises(Cancelled):
            builder.build(request_for(slow), job)
        thread.join()
        assert time.monotonic() - cancelled_at[0] < 5

    @staticmethod
    def _cancel_once_seen(job: RecordingJob, text: str) -> None:
        until(lambda: any(line.strip() == text for _, line in list(job.lines)), seconds=60, what=text)
        job.cancelled.set()
