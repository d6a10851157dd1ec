"""Sources answer alike, whatever they are kept in."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core import sources
from mini_core.errors import SourceError
from mini_core.sources import BaseSource, FolderSource, MemorySource, TarSource

FILES = {
    "app.py": "print(1)",
    "pkg/__init__.py": "",
    "pkg/deep/mod.py": "x = 1",
    "bin/start": "#!/bin/sh\n",
    "ü.txt": "ü",
}
LINKS = {"current": "pkg", "alias.py": "pkg/deep/mod.py", "out": "../secret", "abs": "/etc/passwd", "loop": "loop"}


def in_folder(root: Path) -> BaseSource:
    folder = root / "app"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (folder / "bin/start").chmod(0o755)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("[remote]")
    (root / "secret").write_text("s3cret")
    return FolderSource(folder)


def in_tar(root: Path) -> TarSource:
    target = root / "app.tar.gz"
    with tarfile.open(target, "w:gz") as tar:
        for name, text in FILES.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text.encode())
            info.mode = 0o755 if name == "bin/start" else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
        for name, to in LINKS.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, to
            tar.addfile(info)
        for name in ("../evil", "/abs/evil", ".git/config"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    return TarSource(target)


def in_memory(_: Path) -> BaseSource:
    return MemorySource(FILES, links=LINKS, executable=["bin/start"])


@pytest.fixture(params=[in_memory, in_folder, in_tar], ids=["memory", "folder", "tar"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseSource]:
    made = request.param(tmp_path)
    yield made
    if isinstance(made, TarSource):
        made.close()


def test_all_files_and_links_are_listed_sorted_and_nothing_from_outside(source: BaseSource) -> None:
    assert source.files() == tuple(sorted([*FILES, *LINKS]))


def test_files_are_read_through_links_inside_the_tree(source: BaseSource) -> None:
    assert source.read("app.py") == b"print(1)"
    assert source.text("alias.py") == "x = 1"
    assert source.text("current/deep/mod.py") == "x = 1"
    assert source.text("pkg/../app.py") == "print(1)"


@pytest.mark.parametrize("path", ["out", "abs", "loop", "../secret", "/etc/passwd", "none.py", "pkg", "loop/x"])
def test_nothing_is_read_from_outside_or_where_no_file_is(source: BaseSource, path: str) -> None:
    assert source.read(path) is None
    assert source.text(path) is None


def test_folders_files_and_links_are_there(source: BaseSource) -> None:
    assert all(source.has(path) for path in ("app.py", "pkg", "pkg/deep", "current", "current/deep", "."))
    assert not any(source.has(path) for path in ("out", "abs", "loop", "pkg/no", "/", "../app"))


def test_the_executable_bit_is_seen(source: BaseSource) -> None:
    assert source.is_executable("bin/start")
    assert not source.is_executable("app.py")
    assert not source.is_executable("none")


def test_patterns_match_within_and_across_folders(source: BaseSource) -> None:
    assert source.glob("*.py") == ("alias.py", "app.py")
    assert source.glob("**/*.py") == ("alias.py", "app.py", "pkg/__init__.py", "pkg/deep/mod.py")
    assert source.glob("pkg/**") == ("pkg/__init__.py", "pkg/deep/mod.py")
    assert source.glob("app.p?") == ("app.py",)


def test_a_folder_is_a_source_of_its_own(source: BaseSource) -> None:
    inner = source.sub("pkg")
    assert inner.files() == ("__init__.py", "deep/mod.py")
    assert inner.text("deep/mod.py") == "x = 1"
    assert inner.has("deep") and not inner.has("../app.py")
    assert inner.read("../app.py") is None
    assert inner.sub("deep").files() == ("mod.py",)
    assert source.sub("current").files() == inner.files()
    with pytest.raises(SourceError, match="no such folder"):
        source.sub("nothing")


def test_text_is_decoded_by_its_marks() -> None:
    source = MemorySource(
        {"bom": b"\xef\xbb\xbfx", "16": "x\n".encode("utf-16"), "latin": b"caf\xe9", "utf8": "ü".encode()}
    )
    assert [source.text(name) for name in ("bom", "16", "latin", "utf8")] == ["x", "x\n", "café", "ü"]


def test_a_file_that_is_too_large_counts_as_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "READ_LIMIT", 4)
    assert in_memory(tmp_path).read("app.py") is None
    assert in_folder(tmp_path).read("app.py") is None
    with in_tar(tmp_path) as tar:
        assert tar.read("app.py") is None


def test_a_broken_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    for data in (b"\x1f\x8bnonsense", b"no tar at all" * 100):
        (tmp_path / "x.tar.gz").write_bytes(data)
        with pytest.raises(SourceError, match=r"x\.tar\.gz: not a readable"):
            TarSource(tmp_path / "x.tar.gz")


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_tar(tmp_path).close()
    monkeypatch.setattr(sources, "TAR_LIMIT", 100)
    with pytest.raises(SourceError, match="holds more than"):
        TarSource(tmp_path / "app.tar.gz")


def test_only_the_files_that_would_be_sent_are_seen(tmp_path: Path) -> None:
    in_folder(tmp_path)
    assert FolderSource(tmp_path / "app", only=["app.py", "gone.py"]).files() == ("app.py",)


def test_folders_that_cannot_be_read_and_devices_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.txt").write_text("x")
    assert FolderSource(tmp_path).files() == ("a.txt",)
    with pytest.raises(SourceError, match="no such folder"):
        FolderSource(tmp_path / "nothing")


def test_a_folder_of_ten_thousand_files_is_listed_quickly(tmp_path: Path) -> None:
    for number in range(100):
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        for inner in range(100):
            (folder / f"f{inner}.txt").touch()
    begun = time.perf_counter()
    source = FolderSource(tmp_path)
    assert len(source.glob("**/*.txt")) == 10_000
    assert time.perf_counter() - begun < 1.0
