"""The store: migrations from every schema that was ever released, encryption, what the database itself enforces."""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from mini_core import api
from mini_core.errors import ConfigError, Conflict, Denied
from mini_core.store import Store, open_store
from mini_core.store.instances import Taken
from mini_core.store.migrations import SCHEMA
from mini_core.store.records import Instance, Request
from mini_core.types import Endpoint, Secret

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def store(tmp_path: Path):
    store = open_store(tmp_path / "data" / "mini.db", tmp_path / "config" / "secret.key")
    yield store
    store.close()


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_a_database_of_every_released_schema_is_brought_up_to_date(tmp_path: Path, version: int):
    path, key = tmp_path / "mini.db", tmp_path / "secret.key"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"schema-{version}.sql").read_text())
    key.write_text((FIXTURES / "secret.key").read_text())
    store = open_store(path, key)
    try:
        app = store.apps.get("blog")
        assert (app.release, app.state) == (1, "running")
        assert store.apps.env(app.id)["TOKEN"].reveal() == "kept across upgrades"
        stored = store.releases.get(app.id, 1)
        assert stored.release.env["TOKEN"].reveal() == "kept across upgrades"
        assert stored.release.plan.buildpack == "python"
        assert store.deploys.list(app.id)[0].state == "done"
        assert store.cron.last(app.id, "nightly", 1e9) is None
    finally:
        store.close()
    copies = list(tmp_path.glob("mini.db.before-*"))
    assert len(copies) == (1 if version < SCHEMA else 0)


def test_a_database_of_a_newer_mini_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "mini.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"schema {SCHEMA + 1}, this one knows {SCHEMA}"):
        open_store(path, tmp_path / "secret.key")
    assert path.read_bytes()[:100] == before[:100]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "mini.db"
    open_store(path, tmp_path / "secret.key").close()
    broken = ("CREATE TABLE half (id INTEGER)", "NONSENSE")
    monkeypatch.setattr("mini_core.store.database.SCHEMA", SCHEMA + 1)
    from mini_core.store import migrations

    monkeypatch.setattr("mini_core.store.database.MIGRATIONS", (*migrations.MIGRATIONS, broken))
    with pytest.raises(sqlite3.OperationalError):
        open_store(path, tmp_path / "secret.key")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert not connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall()


def test_secrets_are_encrypted_and_the_files_are_the_owners_alone(store: Store, tmp_path: Path):
    app = store.apps.create("blog", "me")
    store.apps.set_env(app.id, {"TOKEN": Secret("sentinel-value")})
    store.plugin_data.set("postgres", app.id, "url", {"password": "sentinel-value"})
    store.deploys.add(app.id, "deploy", Request(env={"TOKEN": Secret("sentinel-value")}), "me")
    assert store.plugin_data.get("postgres", app.id, "url") == {"password": "sentinel-value"}
    files = list((tmp_path / "data").iterdir())
    assert all(b"sentinel-value" not in path.read_bytes() for path in files)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (*files, tmp_path / "config" / "secret.key")}
    assert modes["mini.db"] == modes["secret.key"] == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_another_key_opens_nothing_and_says_so(store: Store, tmp_path: Path):
    app = store.apps.create("blog", "me")
    store.apps.set_env(app.id, {"TOKEN": Secret("sentinel-value")})
    store.close()
    (tmp_path / "config" / "secret.key").unlink()
    other = open_store(tmp_path / "data" / "mini.db", tmp_path / "config" / "secret.key")
    with pytest.raises(ConfigError, match="not the one it was written with"):
        other.apps.env(app.id)
    other.close()


def test_the_database_allows_one_running_deploy_per_app(store: Store):
    app = store.apps.create("blog", "me")
    first = store.deploys.add(app.id, "deploy", Request(), "me")
    second = store.deploys.add(app.id, "deploy", Request(), "me")
    claimed = store.deploys.claim(app.id)
    assert claimed and claimed.id == first.id
    assert store.deploys.claim(app.id) is None
    with pytest.raises(IntegrityError):
        store.deploys.change(second.id, state="running")
    store.deploys.finish(first.id, "done")
    claimed = store.deploys.claim(app.id)
    assert claimed and claimed.id == second.id


def test_a_deploy_does_not_end_before_it_began_where_the_clock_was_set_back(store: Store):
    app = store.apps.create("blog", "me")
    number = store.deploys.add(app.id, "deploy", Request(), "me").id
    store.deploys.change(number, started_at=time.time() + 3600)
    store.deploys.finish(number, "done")
    deploy = store.deploys.get(number)
    assert deploy.finished_at == deploy.started_at


def test_an_address_belongs_to_one_instance(store: Store):
    app = store.apps.create("blog", "me")
    endpoint = Endpoint(host="127.0.0.1", port=20000)
    shared = {"app": app.id, "release": 1, "process": "web", "index": 1, "kind": "web", "phase": "new"}
    store.instances.add(Instance(id="a", endpoint=endpoint, created_at=1.0, **shared))  # type: ignore[arg-type]
    with pytest.raises(Taken):
        store.instances.add(Instance(id="b", endpoint=endpoint, created_at=1.0, **shared))  # type: ignore[arg-type]


def test_a_misspelt_column_is_an_error_and_no_new_column(store: Store):
    app = store.apps.create("blog", "me")
    with pytest.raises(ValueError, match="no column sleepy"):
        store.apps.change(app.id, sleepy=1)
    with pytest.raises(ValueError, match="no column phaes"):
        store.instances.find(phaes="new")


def test_who_reads_does_not_wait_for_who_writes_and_sees_what_was_committed_last(store: Store):
    store.apps.create("blog", "me")
    with ThreadPoolExecutor(1) as other, store.transaction():
        store.apps.create("shop", "me")
        assert [app.name for app in store.apps.all()] == ["blog", "shop"]
        assert [app.name for app in other.submit(store.apps.all).result(5)] == ["blog"]
    assert [app.name for app in store.apps.all()] == ["blog", "shop"]


def test_who_waits_for_events_is_woken_when_they_can_be_seen(store: Store):
    def read() -> list[str]:
        count = store.events.count
        if not (found := store.events.last()):
            store.events.wait(count, 10)
            found = store.events.last()
        return [event.kind for event in found]

    with ThreadPoolExecutor(1) as other:
        with store.transaction():
            store.events.add("app.created", "me", "blog")
            reading = other.submit(read)
            with pytest.raises(TimeoutError):
                reading.result(0.1)
        assert reading.result(5) == ["app.created"]


def test_nobody_is_woken_for_what_was_undone(store: Store):
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.events.add("app.created", "me", "blog")
        raise ZeroDivisionError
    assert store.events.count == 0
    store.events.add("app.created", "me", "shop")
    assert store.events.count == 1


def test_many_threads_read_while_others_write(store: Store):
    app = store.apps.create("blog", "me")

    def write(number: int) -> None:
        with store.transaction():
            store.apps.set_env(app.id, {"FIRST": Secret(f"value-{number}")})
            store.apps.set_env(app.id, {"SECOND": Secret(f"value-{number}")})

    def read(_: int) -> set[str]:
        with store.transaction():
            return {item.reveal() for item in store.apps.env(app.id).values()}

    write(0)
    with ThreadPoolExecutor(24) as pool:
        writes = [pool.submit(write, number) for number in range(60)]
        reads = [pool.submit(read, number) for number in range(60)]
        names = [pool.submit(store.apps.get, "blog") for _ in range(300)]
        assert all(len(item.result(20)) == 1 for item in reads)
        assert {item.result(20).id for item in names} == {app.id}
        assert [item.result(20) for item in writes] == [None] * 60


def test_a_transaction_is_all_or_nothing(store: Store):
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.apps.create("blog", "me")
        store.events.add("app.created", "me", "blog")
        raise ZeroDivisionError
    assert store.apps.all() == ()
    assert store.events.last() == ()


def test_many_threads_write_at_once(store: Store):
    def write(number: int) -> None:
        for _ in range(20):
            with store.transaction():
                store.events.add(f"kind-{number}", "me")
                store.meta.next_generation()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.events.last(limit=1000)) == store.meta.generation == 160


def test_keys_are_hashed_limited_and_revoked(store: Store, tmp_path: Path):
    key = store.keys.create(api.NewKey(name="ci", app="blog"))
    assert (store.keys.check(key).name, store.keys.check(key).app) == ("ci", "blog")
    assert store.keys.list()[0].used_at is not None
    assert all(key.encode() not in path.read_bytes() for path in (tmp_path / "data").iterdir())
    with pytest.raises(Denied):
        store.keys.check(key + "x")
    with pytest.raises(Conflict):
        store.keys.create(api.NewKey(name="ci"))
    expired = store.keys.create(api.NewKey(name="old", expires_in=-1.0))
    with pytest.raises(Denied, match="expired"):
        store.keys.check(expired)
    store.keys.revoke("ci")
    with pytest.raises(Denied):
        store.keys.check(key)


def test_a_thread_goes_on_after_a_transaction_that_could_not_be_committed(store: Store):
    def without_its_app() -> None:
        with store.transaction():
            store._db.execute("PRAGMA defer_foreign_keys = ON")  # checked when it is committed
            store._db.execute("INSERT INTO cron_runs (app, entry, slot, instance) VALUES (999, 'nightly', 100, 'a')")

    with pytest.raises(Exception, match="FOREIGN KEY"):
        without_its_app()
    assert store.cron.last(999, "nightly", 100.0) is None
    store.events.add("app.created", "me", "blog")
    assert [event.kind for event in store.events.last()] == ["app.created"]


def test_a_cron_slot_is_taken_once(store: Store):
    app = store.apps.create("blog", "me")
    assert store.cron.take(app.id, "nightly", 100.0, "a")
    assert not store.cron.take(app.id, "nightly", 100.0, "b")
    assert store.cron.last(app.id, "nightly", 100.0) == 100.0
    assert store.cron.last(app.id, "nightly", 99.0) is None


def test_destroying_an_app_takes_all_its_rows_along(store: Store):
    app = store.apps.create("blog", "me")
    store.apps.set_env(app.id, {"A": Secret("1")})
    store.apps.add_domain(app.id, "example.com")
    store.plugin_data.set("x", app.id, "k", 1)
    store.deploys.add(app.id, "deploy", Request(), "me")
    store.apps.delete(app.id)
    again = store.apps.create("blog", "me")
    store.apps.add_domain(again.id, "example.com")
    assert store.apps.env(again.id) == {}
    assert store.deploys.list() == ()
