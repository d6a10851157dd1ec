"""Volumes leave and enter an engine whose files cannot be read from here, as with Docker Desktop or another user."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core import tarstream
from mini_core.errors import NotFound
from mini_docker.volumes import Volumes

pytestmark = pytest.mark.docker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir(0o700)
    (tmp_path / "deep" / "file").write_bytes(b"kept" * 100_000)
    (tmp_path / "deep" / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("deep/file")
    return tmp_path


def entries(chunks: Iterator[bytes]) -> dict[str, tuple[int, str, int]]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        return {info.name.removeprefix("./"): (info.mode & 0o777, info.linkname, info.size) for info in tar}


def test_a_volume_is_copied_through_the_engine(platform, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Volumes, "path", lambda *_: None)
    runtime = platform.runtime
    runtime.import_volume("blog", "data", tarstream.pack(folder))
    chunks = runtime.export_volume("blog", "data")
    first = next(chunks)
    seen = runtime.list()
    found = entries(iter([first, *chunks]))
    assert found["deep/file"] == (0o640, "", 400_000)
    assert found["deep"][0] == 0o700
    assert found["link"][1] == "deep/file"
    assert seen == (), "what copies it is no instance"
    assert not platform.engine.api.containers(all=True, filters=platform.engine.own(platform.id))
    assert not platform.engine.api.images(filters=platform.engine.own(platform.id))


def test_a_copy_that_is_given_up_leaves_nothing_and_the_volume_can_go(
    platform, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Volumes, "path", lambda *_: None)
    runtime = platform.runtime
    runtime.import_volume("blog", "data", tarstream.pack(folder))
    chunks = runtime.export_volume("blog", "data")
    next(chunks)
    chunks.close()
    assert not platform.engine.api.containers(all=True, filters=platform.engine.own(platform.id))
    runtime.remove_volume("blog", "data")
    with pytest.raises(NotFound):
        runtime.export_volume("blog", "data")
