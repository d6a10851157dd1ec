"""A disk that is full, or would be: said with the numbers, and nothing is broken when there is room again."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

import pytest

from mini_core import disk
from mini_core.engine.failures import failure_of
from mini_core.errors import Unavailable
from mini_core.redact import Redactor
from tests.engine.conftest import Lab


def caused(cause: BaseException) -> Exception:
    try:
        raise RuntimeError("as a library reports it") from cause
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        caused(OSError(errno.EDQUOT, "Disk quota exceeded")),
        caused(sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_whatever_a_full_disk_breaks_says_that_it_is_full(error: Exception):
    assert str(disk.full(error)) == "The disk is full."
    failure = failure_of(error, "built", Redactor([]))
    assert (failure.code, failure.step) == ("disk-full", "built")


def test_other_errors_stay_what_they_are():
    assert disk.full(caused(OSError(errno.EACCES, "Permission denied"))) is None
    assert failure_of(ValueError("x"), "built", Redactor([])).code == "bug"


def test_what_will_be_written_counts(tmp_path: Path):
    disk.check(tmp_path, 0, 1)
    with pytest.raises(Unavailable, match=r"free at .*, 1152922 TB are needed for the source, 5 bytes must stay free"):
        disk.check(tmp_path, 5, 1 << 60, "the source")


def test_a_disk_that_is_nearly_full_is_a_problem_that_the_status_names(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    assert lab.controller.status("").problems == ()
    usage = shutil.disk_usage(lab.folder)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=-1))
    (problem,) = lab.controller.status("").problems
    assert problem.startswith("The disk is nearly full: ") and problem.endswith("must stay free. (mini doctor)")


def test_the_store_takes_nothing_by_halves_and_goes_on_when_there_is_room(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    query = lab.store._db._db.query
    pages = next(iter(query("PRAGMA page_count")))["page_count"]
    list(query(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(Exception, match="full") as caught:
        for number in range(1000):
            lab.store.events.add("a", "b", "c", {"x": "y" * 1000, "n": number})
    assert disk.full(caught.value)
    list(query("PRAGMA max_page_count = 1000000"))
    assert lab.set_env(A="1").state == "done"
    assert lab.get() == (200, "hello")


def test_an_archive_stops_before_it_takes_what_must_stay_free(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.deploy(web=["serve", "hello"])
    usage = disk.shutil.disk_usage(lab.paths.data)
    nearly = usage._replace(free=lab.settings.disk_reserve + 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly)
    failed = lab.send(web=["serve", "a longer text than there is room for"])
    ended = lab.ended(failed)
    assert ended.failure and ended.failure.code == "disk-full"
    assert "20 bytes free" in ended.failure.message
    assert not list((lab.paths.data / "work").iterdir())
    assert lab.get() == (200, "hello")
