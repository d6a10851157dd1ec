"""An archive that wants to write outside its folder, fill the disk or hang the server gets nowhere."""

from __future__ import annotations

import gzip
import io
import random
import resource
import shutil
import signal
import stat
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_core.errors import MiniError, SourceError, Unavailable
from mini_core.unpacking import unpack

Build = Callable[[tarfile.TarFile], None]
MEGABYTE = 1024 * 1024


def member(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, item in fields.items():
        setattr(info, key, item)
    tar.addfile(info, io.BytesIO(content) if content else None)


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    member(tar, name, type=kind, linkname=target)


def archive(build: Build, form: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
        build(tar)
    return gzip.compress(raw.getvalue(), 1)


def both(*_: None) -> None:
    """Several entries in one expression."""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder in which only `room/dest` may appear; beside it a secret that must stay as it is."""
    (tmp_path / "secret").write_text("untouched")
    inner = tmp_path / "room"
    inner.mkdir()
    yield inner
    assert (tmp_path / "secret").read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["room", "secret"]


def attempt(room: Path, data: bytes, *, max_bytes: int = MEGABYTE, max_files: int = 1000) -> None:
    file = room / "a.tar.gz"
    file.write_bytes(data)
    unpack(file, room / "dest", max_bytes=max_bytes, max_files=max_files)


def refused(room: Path, data: bytes, *, max_bytes: int = MEGABYTE, max_files: int = 1000) -> SourceError:
    with pytest.raises(SourceError) as caught:
        attempt(room, data, max_bytes=max_bytes, max_files=max_files)
    assert not (room / "dest").exists()
    assert [path.name for path in room.iterdir()] == ["a.tar.gz"]
    assert "\n" not in caught.value.message
    return caught.value


def good(tar: tarfile.TarFile) -> None:
    member(tar, "good/one.txt", b"first")


NAMED: dict[str, tuple[Build, str]] = {
    "a path upwards": (lambda tar: member(tar, "../secret", b"x"), "'../secret' lies outside"),
    "a path upwards in the middle": (lambda tar: member(tar, "a/../../secret", b"x"), "lies outside"),
    "a folder upwards": (lambda tar: member(tar, "../up/", type=tarfile.DIRTYPE), "lies outside"),
    "an absolute path": (lambda tar: member(tar, "/tmp/x", b"x"), "'/tmp/x' lies outside"),
    "a link to an absolute path": (lambda tar: link(tar, "l", "/etc/passwd"), "'l' is a link out of the source"),
    "a link upwards": (lambda tar: link(tar, "a/l", "../../secret"), "'a/l' is a link out"),
    "a link to nothing": (lambda tar: link(tar, "l", ""), "is a link out"),
    "a hard link upwards": (lambda tar: link(tar, "h", "../secret", tarfile.LNKTYPE), "'h' links to '../secret'"),
    "a hard link to an absolute path": (lambda tar: link(tar, "h", "/etc/passwd", tarfile.LNKTYPE), "'h' links to"),
    "a hard link to itself": (lambda tar: link(tar, "h", "h", tarfile.LNKTYPE), "'h' links to"),
    "a character device": (
        lambda tar: member(tar, "d", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        "'d' is a device",
    ),
    "a block device": (lambda tar: member(tar, "d", type=tarfile.BLKTYPE), "'d' is a device"),
    "a named pipe": (lambda tar: member(tar, "p", type=tarfile.FIFOTYPE), "'p' is a named pipe"),
    "a file twice": (lambda tar: both(member(tar, "x", b"1"), member(tar, "./x", b"2")), "'./x' twice"),
    "a file that becomes a link": (lambda tar: both(member(tar, "x", b"1"), link(tar, "x", "y")), "'x' twice"),
    "a link that becomes a file": (lambda tar: both(link(tar, "x", "y"), member(tar, "x", b"1")), "'x' twice"),
    "a file below a link": (
        lambda tar: both(link(tar, "x", "good"), member(tar, "x/y", b"1")),
        "'x/y' lies below 'x', which is no folder",
    ),
    "a file below a file": (
        lambda tar: both(member(tar, "x", b"1"), member(tar, "x/y", b"1")),
        "'x/y' lies below 'x'",
    ),
    "a folder in the place of a link": (
        lambda tar: both(link(tar, "x", "good"), member(tar, "x", type=tarfile.DIRTYPE)),
        "'x' lies below 'x'",
    ),
    "links that lead out together": (
        lambda tar: both(link(tar, "good/up", ".."), link(tar, "m", "good/up/../secret")),
        "'m' is a link out",
    ),
    "links that lead in a circle": (
        lambda tar: both(link(tar, "a", "b"), link(tar, "b", "a")),
        "leads in a circle",
    ),
    "a name that no file system takes": (lambda tar: member(tar, "n" * 300, b"x"), "nnn"),
    "a path that is too long": (lambda tar: member(tar, "/".join(["d" * 200] * 30), b"x"), "ddd"),
    "a path with NUL": (lambda tar: member(tar, "ok", b"x", pax_headers={"path": "a\0b"}), "lies outside"),
    "a link with NUL": (
        lambda tar: member(tar, "l", type=tarfile.SYMTYPE, pax_headers={"linkpath": "a\0b"}),
        "lies outside",
    ),
    "a path upwards in a PAX header": (
        lambda tar: member(tar, "ok", b"x", pax_headers={"path": "../secret"}),
        "'../secret' lies outside",
    ),
    "a sparse file in PAX": (
        lambda tar: member(tar, "s", b"x" * 512, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999"}),
        "'s' is a sparse file",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_an_entry_is_refused_by_name(room: Path, name: str) -> None:
    build, expected = NAMED[name]

    def after_a_good_one(tar: tarfile.TarFile) -> None:
        good(tar)
        build(tar)

    assert expected in refused(room, archive(after_a_good_one)).message


def test_an_old_gnu_sparse_header_is_refused(room: Path) -> None:
    raw = bytearray(gzip.decompress(archive(lambda tar: member(tar, "s", b"x"), tarfile.GNU_FORMAT)))
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:512]))
    assert "'s' is a sparse file" in refused(room, gzip.compress(bytes(raw))).message


def test_too_many_bytes_are_refused_as_soon_as_they_are_seen(room: Path) -> None:
    bomb = archive(lambda tar: member(tar, "zeros", bytes(50 * MEGABYTE)))
    assert len(bomb) < MEGABYTE
    error = refused(room, bomb)
    assert error.code == "too-large" and "'zeros'" in error.message


def test_hard_links_count_as_the_copies_they_become(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        member(tar, "a", bytes(MEGABYTE // 2))
        for number in range(10):
            link(tar, f"l{number}", "a", tarfile.LNKTYPE)

    assert refused(room, archive(build)).code == "too-large"


def test_too_many_entries_are_refused_before_the_rest_is_read(room: Path) -> None:
    block = gzip.compress(tarfile.TarInfo("same").tobuf() * 1000)
    began = time.monotonic()
    assert refused(room, block * 1000, max_files=500).code in ("too-many-files", "source")

    def build(tar: tarfile.TarFile) -> None:
        for number in range(600):
            member(tar, f"d{number}/", type=tarfile.DIRTYPE)

    assert refused(room, archive(build), max_files=500).code == "too-many-files"
    assert time.monotonic() - began < 10


def test_a_few_entries_that_make_a_million_folders_are_refused(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        for number in range(50):
            member(tar, f"{number}/" + "d/" * 500 + "x", b"1")

    assert refused(room, archive(build), max_files=100).code == "too-many-files"


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_gigabytes_is_not_read_into_memory(room: Path, kind: bytes) -> None:
    data = gzip.compress(_header(kind, 2**40) + bytes(4 * MEGABYTE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header that is too large" in refused(room, data).message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


@pytest.mark.parametrize("size", [-1, -512, -(2**40), 2**62])
def test_a_size_that_cannot_be_is_refused(room: Path, size: int) -> None:
    raw = bytearray(_header(tarfile.REGTYPE, 1))
    raw[124:136] = b"\xff" * 4 + struct.pack(">q", size) if size < 0 else b"\x80\0\0\0" + struct.pack(">q", size)
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:512]))
    refused(room, gzip.compress(bytes(raw) + bytes(2048)))


def test_an_archive_cut_off_anywhere_leaves_nothing(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        good(tar)
        member(tar, "noise", random.Random(1).randbytes(20_000))

    whole = archive(build)
    for length in [0, 1, 2, 5, 20, 60, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1]:
        refused(room, whole[:length])
    assert "cut off after 'noise'" in refused(room, whole[: len(whole) // 2]).message


def test_damage_is_noticed(room: Path) -> None:
    whole = bytearray(archive(good))
    whole[-5] ^= 1  # in gzip's sum
    assert "damaged" in refused(room, bytes(whole)).message
    tar = gzip.decompress(archive(good))
    assert "damaged" in refused(room, gzip.compress(tar[:1024] + b"junk" * 128 + tar[1024:])).message
    assert "damaged" in refused(room, gzip.compress(tar[:1024] + b"junk")).message


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x1f\x8b", gzip.compress(b""), gzip.compress(b"x" * 600)])
def test_what_is_no_archive_is_refused(room: Path, data: bytes) -> None:
    refused(room, data)


def test_random_damage_never_raises_anything_else(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        good(tar)
        link(tar, "l", "good")
        member(tar, "long/" * 30 + "x", b"y" * 700, mtime=1.5)

    plain, chance = bytearray(gzip.decompress(archive(build))), random.Random(7)
    for _ in range(400):
        data = bytearray(plain)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            attempt(room, gzip.compress(bytes(data), 1), max_files=20)
        except MiniError:
            assert not (room / "dest").exists()
        else:
            for path in (room / "dest").rglob("*"):
                assert path.resolve().is_relative_to(room / "dest")
            shutil.rmtree(room / "dest")


def test_special_bits_and_odd_modes_are_dropped(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        member(tar, "d/", type=tarfile.DIRTYPE, mode=0)
        member(tar, "d/setuid", b"x", mode=0o6755, uid=0, uname="root")
        member(tar, "d/secretive", b"x", mode=0)
        member(tar, "d/world", b"x", mode=0o1666)
        member(tar, "d/future", b"x", mtime=2**40)
        member(tar, "d/strange", b"x", pax_headers={"mtime": "nan"})

    attempt(room, archive(build))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (room / "dest").rglob("*")}
    assert modes["setuid"] == 0o755
    assert modes["secretive"] == modes["world"] == 0o644
    assert modes["d"] == 0o755
    assert max(path.stat().st_mtime for path in (room / "dest/d").iterdir()) <= time.time()


def test_what_usual_tools_write_is_taken(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        member(tar, "./", type=tarfile.DIRTYPE)
        member(tar, "./a.txt", b"hello", type=tarfile.AREGTYPE)
        member(tar, "./sub/", type=tarfile.DIRTYPE)
        member(tar, "./sub/", type=tarfile.DIRTYPE)
        link(tar, "./sub/again", "./a.txt", tarfile.LNKTYPE)
        link(tar, "./sub/link", "../a.txt")
        member(tar, "Makefile", b"1")
        member(tar, "makefile", b"2")
        member(tar, "back\\slash", b"3")

    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        attempt(room, archive(build, form))
        dest = room / "dest"
        assert [(dest / name).read_text() for name in ("a.txt", "sub/again", "sub/link")] == ["hello"] * 3
        assert sorted(path.name for path in dest.iterdir()) == ["Makefile", "a.txt", "back\\slash", "makefile", "sub"]
        shutil.rmtree(dest)


def test_a_repository_in_the_archive_is_left_out(room: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        good(tar)
        member(tar, ".git/config", b"[remote] url = https://user:token@host")
        member(tar, "sub/.git", b"gitdir: x")

    attempt(room, archive(build))
    assert sorted(path.name for path in (room / "dest").rglob("*")) == ["good", "one.txt"]


def test_a_full_disk_is_said_to_be_full(room: Path) -> None:
    """A limit on the file's size stands in for it: it ends in an error of writing, half way through a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (room / "a.tar.gz").write_bytes(archive(lambda tar: member(tar, "big", bytes(400_000))))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises((SourceError, Unavailable), match="'big': File too large"):
            unpack(room / "a.tar.gz", room / "dest", max_bytes=MEGABYTE, max_files=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not (room / "dest").exists()


def test_a_folder_that_holds_something_is_not_touched(room: Path) -> None:
    (room / "dest").mkdir()
    (room / "dest/mine").write_text("x")
    with pytest.raises(FileExistsError):
        attempt(room, archive(good))
    assert (room / "dest/mine").read_text() == "x"
