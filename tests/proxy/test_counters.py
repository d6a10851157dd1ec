"""Requests in flight, counted over all workers, on a disk that may be full."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from mini_proxy.counters import Counters


def test_workers_see_each_others_counts_and_forget_those_of_one_that_is_gone(tmp_path: Path) -> None:
    master, one, two = Counters(tmp_path), Counters(tmp_path, 0), Counters(tmp_path, 1)
    row = one.row("blog")
    one.set(row, 3)
    two.set(two.row("blog"), 4)
    one.refresh()
    assert one.total(row) == 7
    master.clear(1)
    one.refresh()
    assert one.total(row) == 3


def test_what_is_written_to_has_its_place_on_the_disk(tmp_path: Path) -> None:
    counters = Counters(tmp_path, 0)
    before = (tmp_path / "counters").stat().st_blocks
    row = counters.row("blog")
    assert (tmp_path / "counters").stat().st_blocks * 512 >= before * 512 + mmap.PAGESIZE
    counters.set(row, 1)


def test_a_page_gets_its_place_as_a_whole_where_the_disks_blocks_are_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _, start, size: placed.append((start, size)))
    counters = Counters(tmp_path, 3)
    counters.row("blog")
    assert placed and all((start % mmap.PAGESIZE, size) == (0, mmap.PAGESIZE) for start, size in placed)


def test_on_a_full_disk_apps_share_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters(tmp_path, 0)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert counters.row("blog") == counters.row("shop") == 0
    counters.set(0, 2)
    assert counters.total(0) == 2
