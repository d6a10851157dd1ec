"""`mini backup`, `mini restore` and `mini volumes export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mini_core import api, backups
from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeController


@pytest.fixture
def file(mini: Mini, server: object, tmp_path: Path) -> Path:
    target = tmp_path / "mini.backup"
    mini("backup", str(target))
    return target


def test_a_backup_is_a_file_for_its_owner_and_says_that_it_is_secret(
    mini: Mini, server: object, controller: FakeController, tmp_path: Path
):
    target = tmp_path / "mini.backup"
    result = mini("backup", str(target))
    assert result.out == ""
    assert result.err.splitlines() == [
        "About 100 kB will come.",
        "Warning: Left out: the image of shop: there is no builder kaniko",
        f"Backed up 2 apps, 1 volume, 0 images to {target} (104 kB).",
        "It holds the key that decrypts every secret: keep it as safe as the server.",
    ]
    assert target.stat().st_mode & 0o777 == 0o600
    assert controller.calls == [("backup", True)]
    assert [path.name for path in tmp_path.iterdir()] == ["mini.backup"]


def test_images_can_be_left_out_and_the_contents_printed_as_json(
    mini: Mini, server: object, controller: FakeController, tmp_path: Path
):
    result = mini("backup", str(tmp_path / "b"), "--no-images", "--json")
    assert json.loads(result.out)["apps"] == ["blog", "shop"]
    assert controller.calls == [("backup", False)]


def test_a_backup_that_does_not_fit_on_the_disk_is_not_begun(
    mini: Mini, server: object, controller: FakeController, tmp_path: Path
):
    controller.backup_bytes = 10**18
    result = mini("backup", str(tmp_path / "b"), code=2)
    assert "About 1000000 TB would come, and" in result.err and "are free at" in result.err
    assert "--no-images" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_cut_off_leaves_no_file_and_the_old_one(
    mini: Mini, server: object, controller: FakeController, file: Path
):
    before = file.read_bytes()
    controller.cut = True
    assert "Replace" in mini("backup", str(file), code=2).err
    assert "No answer from" in mini("backup", str(file), "--yes", code=1).err
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_restore_is_told_step_by_step(mini: Mini, controller: FakeController, file: Path):
    result = mini("restore", str(file))
    first, *rest = result.err.splitlines()
    assert first.startswith("Backup of 2 apps (blog, shop) by mini 0.1.0, 1970-01-01")
    assert rest == ["Taking over", "Restored", "The apps are starting: mini status"]
    assert controller.calls[-1] == ("restore", ("blog", "shop"), False)
    lines = mini("restore", str(file), "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["info", "done"]


def test_replacing_names_what_goes_and_asks(mini: Mini, controller: FakeController, file: Path):
    controller.known["shop"] = api.AppInfo(name="shop", state="running", created_at=1.0)
    asked = mini("restore", str(file), "--replace", code=2).err
    assert "Remove shop on" in asked and "with all volumes, for what is in the backup?" in asked
    assert controller.calls[-1][0] == "backup"
    mini("restore", str(file), "--replace", "--yes")
    assert controller.calls[-1] == ("restore", ("blog", "shop"), True)


def test_a_restore_that_fails_says_why(mini: Mini, controller: FakeController, file: Path):
    controller.restored = [api.RestoreEvent(kind="failed", text="No disk.", code="disk", hint="Free some.")]
    result = mini("restore", str(file), code=1)
    assert result.err.splitlines()[1:] == ["Error: No disk", "Free some."]


def test_a_file_that_is_no_backup_or_damaged_is_never_sent(mini: Mini, controller: FakeController, file: Path):
    damaged = file.with_name("damaged")
    damaged.write_bytes(file.read_bytes().replace(b"xxxx", b"xxyx", 1))
    assert (
        "Error: The backup is damaged: volumes/blog/data is not what was written"
        in mini("restore", str(damaged), code=1).err
    )
    damaged.write_text("hello")
    assert mini("restore", str(damaged), code=1).err.splitlines() == [
        "Error: This is no backup",
        "mini backup FILE makes one.",
    ]
    assert controller.calls[-1][0] == "backup"


def test_a_volume_is_exported_into_a_tar(
    mini: Mini, server: object, controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    controller.known["blog"] = api.AppInfo(name="blog", state="running", created_at=1.0)
    mini("volumes", "export", "/data", "-a", "blog")
    assert (tmp_path / "blog-data.tar").read_bytes() == b"a tar"
    mini("volumes", "export", "/data", "-a", "blog", "-o", "other.tar")
    assert (tmp_path / "other.tar").read_bytes() == b"a tar"
    assert controller.calls[-1] == ("export_volume", "blog", "/data")


def test_the_format_is_that_of_the_module(file: Path):
    with file.open("rb") as opened:
        assert backups.verify(opened).head.format == backups.FORMAT
