"""A platform in a file, and back: on the same machine, on another, and what is refused before anything is touched."""

from __future__ import annotations

import io
import re
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mini_core import api, backups
from mini_core.engine import transfer
from mini_core.errors import ConfigError, Conflict, MiniError, SourceError
from mini_core.hooks import Hooks
from mini_core.hookspecs import hookimpl
from mini_core.plugins import Plugins
from mini_core.testing import until
from mini_core.types import replace
from tests.engine.conftest import Lab
from tests.engine.fakes import FakePlugin


@pytest.fixture
def make_two(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Platforms on different machines: each with a folder and an engine of its own."""
    labs: list[Lab] = []

    def make(**options: object) -> Lab:
        folder = tmp_path / f"machine-{len(labs)}"
        folder.mkdir()
        labs.append(Lab(folder, **options))
        return labs[-1]

    yield make
    for item in labs:
        item.close()


def back_up(lab: Lab, *, images: bool = True) -> io.BytesIO:
    return io.BytesIO(b"".join(lab.controller.backup("me", images=images)))


def restore(lab: Lab, file: io.BytesIO, *, replacing: bool = False) -> list[api.RestoreEvent]:
    file.seek(0)
    return list(lab.controller.restore(file, "me", replacing=replacing))


def full(lab: Lab) -> None:
    """Two apps, one with a volume, a domain, configuration and a key."""
    lab.deploy(web=["greet", "GREETING"], options=api.DeployOptions(env={"GREETING": "good morning"}))
    lab.deploy("shop", web=["serve", "shop"])
    lab.ended(lab.controller.add_volume("blog", api.VolumeChange(target="/data", name="data"), "me"))
    lab.controller.add_domain("blog", "blog.example.com", "me", "")
    lab.world.volumes["blog", "data"] = b"precious"


def answers(lab: Lab, app: str, text: str) -> None:
    until(lambda: lab.get(app) == (200, text), what=f"{app} answering {text}")


def test_a_platform_comes_back_on_another_machine_without_a_build(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    key = old.controller.create_key(api.NewKey(name="ci"), "me").key
    events = restore(new, back_up(old))
    assert events[-1].kind == "done"
    assert events[0].text.startswith("Backup of 2 apps (blog, shop) by mini ")
    answers(new, "blog", "good morning")
    answers(new, "shop", "shop")
    assert new.world.builds == 0
    assert new.world.volumes["blog", "data"] == b"precious"
    assert new.controller.env("blog") == {"GREETING": "good morning"}
    assert new.controller.authenticate(key).name == "ci"
    assert [item.version for item in new.controller.releases("blog")] == [2, 1]
    assert "blog.example.com" in [route.host for route in new.world.table.routes]
    assert (old.get("blog"), old.get("shop")) == ((200, "good morning"), (200, "shop"))


def test_a_restored_platform_has_an_id_of_its_own_and_other_addresses(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    restore(new, back_up(old))
    answers(new, "blog", "good morning")
    assert new.controller.platform == new.store.meta.get("platform") != old.controller.platform
    labels = {item.spec.labels["mini.platform"] for item in new.world.of("blog")}
    assert labels == {new.controller.platform}
    addresses = [{item.endpoint for item in lab.store.instances.find()} for lab in (old, new)]
    assert not addresses[0] & addresses[1]
    assert new.events("platform.restored")[0].data["from"] == old.controller.platform


def test_what_was_restored_lives_on_and_is_deployed_rolled_back_and_restarted(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    restore(new, back_up(old))
    answers(new, "blog", "good morning")
    new.reopen()
    answers(new, "blog", "good morning")
    assert new.set_env(GREETING="good evening").state == "done"
    answers(new, "blog", "good evening")
    assert new.ended(new.controller.rollback("blog", api.Rollback(), "me")).state == "done"
    answers(new, "blog", "good morning")
    assert new.deploy("shop", web=["serve", "new shop"]).state == "done"
    answers(new, "shop", "new shop")


def test_apps_are_replaced_only_on_demand_and_are_all_gone_then(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    new.deploy("blog", web=["serve", "somebody else's"])
    file = back_up(old)
    with pytest.raises(Conflict, match=r"This platform has apps: blog\."):
        restore(new, file)
    assert new.get() == (200, "somebody else's")
    assert restore(new, file, replacing=True)[-1].kind == "done"
    answers(new, "blog", "good morning")
    until(lambda: "app blog" in new.world.gone, what="the end of what was there")
    assert {item.spec.app for item in new.world.instances.values()} == {"blog-2", "shop"}
    assert new.world.volumes["blog-2", "data"] == b"precious"


def test_apps_keep_answering_as_they_did_until_the_new_platform_takes_over(
    make_two: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
):
    old, new = make_two(), make_two()
    full(old)
    new.deploy("blog", web=["serve", "before"])
    seen = []
    commit = transfer.commit
    monkeypatch.setattr(transfer, "commit", lambda paths: (seen.append(new.get()), commit(paths)))
    restore(new, back_up(old), replacing=True)
    assert seen == [(200, "before")]


def test_without_images_the_apps_say_that_they_are_to_be_deployed(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    restore(new, back_up(old, images=False))
    until(lambda: new.controller.app("blog", "").note == "its image is not here: deploy again", what="the note")
    assert "blog: its image is not here: deploy again" in new.controller.status("").problems
    assert not new.world.instances
    assert new.deploy("shop", web=["serve", "shop"]).state == "done"
    answers(new, "shop", "shop")
    assert new.controller.app("shop", "").note == ""
    assert new.world.volumes["blog", "data"] == b"precious"


def test_an_image_that_this_machine_cannot_use_costs_its_app_only(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    old.deploy("shop", web=["serve", "new shop"])
    new.world.import_errors["shop"] = "no Python 3.13 here"
    events = restore(new, back_up(old))
    warnings = [event.text for event in events if event.kind == "warning"]
    assert warnings == [
        "shop has to be deployed again: no Python 3.13 here",
        "shop cannot be rolled back to v1: no Python 3.13 here",
    ]
    assert events[-1].kind == "done"
    answers(new, "blog", "good morning")


def test_what_is_restored_can_be_rolled_back_to_all_that_could_be(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    for number in range(4):
        old.deploy(web=["serve", f"number {number}"])
    old.controller.stop("blog", "me")
    restore(new, back_up(old))
    kept = {item.version for item in old.controller.releases("blog") if item.image_kept}
    assert {item.version for item in new.controller.releases("blog") if item.image_kept} == kept
    new.ended(new.controller.start_app("blog", "me"))
    assert new.ended(new.controller.rollback("blog", api.Rollback(version=2), "me")).state == "done"
    answers(new, "blog", "number 1")
    assert new.world.builds == 0


def test_how_large_a_backup_will_be_is_known_before(make_two: Callable[..., Lab]):
    lab = make_two()
    full(lab)
    assert lab.controller.backup_size(images=True) == lab.controller.backup_size(images=False) + 2 * 1000


def test_stopped_and_sleeping_apps_stay_so(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    old.controller.stop("shop", "me")
    old.controller._engine.sleeper.put_to_sleep(old.store.apps.get("blog"))
    restore(new, back_up(old))
    assert [new.controller.app(app, "").state for app in ("blog", "shop")] == ["asleep", "stopped"]
    new.controller.wake("blog")
    answers(new, "blog", "good morning")
    assert new.ended(new.controller.start_app("shop", "me")).state == "done"


def test_a_backup_is_made_while_a_deploy_runs_and_says_that_it_was_interrupted(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    running = old.send("shop", web=["serve", "x"], steps=[["hang"]])
    until(lambda: old.controller.deploy_info(running.id).step == "planned", what="the build")
    restore(new, back_up(old))
    info = new.controller.deploy_info(running.id)
    assert (info.state, info.failure and info.failure.code) == ("failed", "restored")
    answers(new, "shop", "shop")
    old.controller.cancel_deploy(running.id, "me")


# --- refused, or given up: nothing is touched


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], r"damaged|cut off"),
        (lambda data: data[:-3000], r"damaged|cut off"),
        (lambda data: data.replace(b"precious", b"preciouz"), r"volumes/blog/data is not what was written"),
        (lambda data: b"hello", "This is no backup"),
        (lambda data: data.replace(b'"format":1', b'"format":9', 1), r"newer mini \(format 9, this one knows 1\)"),
    ],
)
def test_a_damaged_file_is_refused(make_two: Callable[..., Lab], damage: Callable[[bytes], bytes], message: str):
    old, new = make_two(), make_two()
    full(old)
    new.deploy("other", web=["serve", "other"])
    before = new.controller.platform
    file = io.BytesIO(damage(back_up(old).getvalue()))
    try:
        event = restore(new, file, replacing=True)[-1]
        assert event.kind == "failed"
        text = event.text
    except (SourceError, ConfigError) as error:
        text = error.message
    assert re.search(message, text), text
    assert new.controller.platform == before
    assert new.get("other") == (200, "other")
    assert not (new.paths.data / "transfer" / "restore").exists()


def test_a_backup_of_a_newer_schema_is_refused_naming_both(make_two: Callable[..., Lab], monkeypatch):
    old, new = make_two(), make_two()
    full(old)
    monkeypatch.setattr("mini_core.engine.backup.schema_of", lambda path: 99)
    with pytest.raises(ConfigError, match=r"newer than this one \(schema 99, this one knows \d+\)"):
        restore(new, back_up(old))


def test_a_backup_for_another_runtime_is_refused(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    object.__setattr__(new.controller._parts, "settings", replace(new.settings, runtime="docker"))
    with pytest.raises(Conflict, match="The backup's apps run on fake; this platform is set to docker"):
        restore(new, back_up(old))


def test_a_disk_that_is_too_full_refuses_with_the_numbers(make_two: Callable[..., Lab]):
    old, new = make_two(), make_two()
    full(old)
    new.reopen(disk_reserve=1 << 60)
    event = restore(new, back_up(old))[-1]
    assert (event.kind, event.code) == ("failed", "disk-full")
    assert re.search(
        r"\d+ [GM]B free at .*, \d+ kB are needed for what is restored, .* [GT]B must stay free", event.text
    )
    assert not new.controller.restoring


def test_a_store_of_an_older_schema_is_migrated(make_two: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch):
    old, new = make_two(), make_two()
    full(old)
    fixtures = Path(__file__).parent / "fixtures"

    def older(path: Path) -> None:
        path.unlink()
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript((fixtures / "schema-1.sql").read_text())
        transfer.key_file(old.paths).write_text((fixtures / "secret.key").read_text())

    monkeypatch.setattr("mini_core.engine.backup.settle", older)
    file = back_up(old, images=False)
    assert backups.read_head(file).schema == 1
    assert restore(new, file)[-1].kind == "done"
    assert new.controller.env("blog")["TOKEN"] == "kept across upgrades"


def test_one_that_fails_half_way_leaves_the_platform_and_nothing_of_its_own(
    make_two: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
):
    old, new = make_two(), make_two()
    full(old)
    new.deploy("other", web=["serve", "other"])
    file = back_up(old)
    monkeypatch.setattr("mini_core.engine.restore._rename_handles", lambda *_: 1 / 0)
    event = restore(new, file, replacing=True)[-1]
    assert (event.kind, event.code) == ("failed", "internal")
    assert new.get("other") == (200, "other")
    assert new.controller.app("other", "").state == "running"
    assert {"app blog", "app shop"} <= set(new.world.gone), "what it had begun is gone"
    assert not new.controller.restoring
    monkeypatch.undo()
    assert restore(new, file, replacing=True)[-1].kind == "done"


def test_a_client_that_leaves_ends_it_before_the_change_over(make_two: Callable[..., Lab], monkeypatch):
    old, new = make_two(), make_two()
    full(old)
    arrived, go = threading.Event(), threading.Event()

    def slow(self: object, app: str, name: str, data: Iterator[bytes]) -> None:
        arrived.set()
        go.wait(10)
        b"".join(data)

    monkeypatch.setattr("tests.engine.fakes.FakeRuntime.import_volume", slow)
    file = back_up(old)
    file.seek(0)
    events = new.controller.restore(file, "me", replacing=False)
    next(events)
    assert arrived.wait(10)
    with pytest.raises(Conflict, match="is being restored already"):
        new.controller.restore(back_up(old), "me", replacing=False)
    events.close()  # type: ignore[attr-defined]
    go.set()
    until(lambda: not new.controller.restoring, what="the end")
    assert new.controller.apps("") == ()


# --- a process that ends in the middle


@pytest.mark.parametrize("moved", [[], [transfer.KEY], [transfer.KEY, transfer.DATABASE]])
def test_a_process_that_ends_after_the_commit_goes_on_as_the_new_platform(
    make_two: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, moved: list[str]
):
    """As `finish` would leave it when it is killed after each of its moves."""
    old, new = make_two(), make_two()
    full(old)

    def die(paths: object) -> None:
        transfer.staging(new.paths).replace(transfer.folder(new.paths) / "commit")
        done = transfer.folder(new.paths) / "commit"
        if transfer.KEY in moved:
            transfer.key_file(new.paths).write_bytes((done / transfer.KEY).read_bytes())
        if transfer.DATABASE in moved:
            for suffix in ("-wal", "-shm"):
                new.paths.database.with_name("mini.db" + suffix).unlink(missing_ok=True)
            (done / transfer.DATABASE).replace(new.paths.database)
        raise MiniError("killed")

    monkeypatch.setattr(transfer, "commit", die)
    restore(new, back_up(old))
    answers(new, "blog", "good morning")
    assert not (transfer.folder(new.paths) / "commit").exists()


def test_what_a_process_that_ended_before_the_commit_had_made_is_removed_at_the_next_start(
    make_two: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
):
    old, new = make_two(), make_two()
    full(old)
    with monkeypatch.context() as patch:
        patch.setattr("mini_core.engine.restore.discard", lambda parts: None)
        patch.setattr(transfer, "commit", lambda paths: (_ for _ in ()).throw(MiniError("killed")))
        assert restore(new, back_up(old))[-1].kind == "failed"
        assert transfer.abandoned(new.paths) is not None
    new.reopen()
    assert transfer.abandoned(new.paths) is None
    assert {"app blog", "app shop"} <= set(new.world.gone)
    assert new.controller.apps("") == ()


# --- plugins' parts, settings, the file itself


class Keeper(FakePlugin):
    """A plugin with something of its own."""

    kept = ""
    broken = False

    @hookimpl
    def mini_backup(self, folder: Path) -> None:
        if self.broken:
            raise OSError("its disk is gone")
        (folder / "deep").mkdir()
        (folder / "deep" / "notes").write_text(self.kept)

    @hookimpl
    def mini_restore(self, folder: Path) -> None:
        self.kept = (folder / "deep" / "notes").read_text()


def with_keeper(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    keeper = Keeper(lab.world)
    monkeypatch.setattr(lab, "hooks", lambda: Hooks(Plugins.of({"fake": keeper})))
    lab.reopen()
    return keeper


def test_plugins_back_up_and_restore_their_own_parts(make_two: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch):
    old, new = make_two(), make_two()
    full(old)
    with_keeper(old, monkeypatch).kept = "remember"
    keeper = with_keeper(new, monkeypatch)
    restore(new, back_up(old))
    until(lambda: keeper.kept == "remember", what="the plugin's part")
    until(lambda: not list((new.paths.data / "restored").glob("*")), what="its folder being removed")


def test_a_plugin_that_cannot_back_up_is_named_before_the_first_byte(make_two: Callable[..., Lab], monkeypatch):
    lab = make_two()
    with_keeper(lab, monkeypatch).broken = True
    with pytest.raises(MiniError, match="The plugin fake could not back up its part: its disk is gone"):
        next(lab.controller.backup("me", images=True))
    assert not list((lab.paths.data / "transfer").glob("*"))


def test_settings_come_along_where_the_machine_has_none_of_its_own(make_two: Callable[..., Lab]):
    old, fresh, own = make_two(), make_two(), make_two()
    old.paths.settings.write_text("keep = 7\n")
    own.paths.settings.write_text("keep = 3\n")
    file = back_up(old)
    restore(fresh, file)
    assert fresh.paths.settings.read_text() == "keep = 7\n"
    events = restore(own, file)
    assert own.paths.settings.read_text() == "keep = 3\n"
    assert own.paths.settings.with_name("server.toml.restored").read_text() == "keep = 7\n"
    assert [event.text for event in events if event.kind == "warning"] == [
        "This machine's server.toml stays; the backup's is put beside it: server.toml.restored"
    ]


def test_the_file_says_what_is_in_it_and_can_be_read_with_tar(make_two: Callable[..., Lab]):
    lab = make_two()
    full(lab)
    file = back_up(lab)
    manifest = backups.verify(file)
    assert manifest.apps == ("blog", "shop")
    assert [(part.kind, part.app) for part in manifest.parts] == [
        ("store", ""),
        ("key", ""),
        ("volume", "blog"),
        ("image", ""),
    ]
    assert len(manifest.of("image")[0].items) == 2
    with tarfile.open(fileobj=file) as tar:
        names = tar.getnames()
        assert (names[0], names[-1]) == ("mini-backup.json", "manifest.json")
        assert all(info.mode == 0o600 for info in tar)


def test_a_volume_is_exported_by_its_target_or_its_name(make_two: Callable[..., Lab]):
    lab = make_two()
    full(lab)
    for target in ("/data", "data"):
        assert b"".join(lab.controller.export_volume("blog", target, "me")) == b"precious"
    with pytest.raises(MiniError, match="blog has no volume /other"):
        lab.controller.export_volume("blog", "/other", "me")
