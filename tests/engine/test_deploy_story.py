"""What a deploy does when all goes well: steps, releases, environment, rollback, scaling."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mini_core import api
from mini_core.engine import requests
from mini_core.engine.routing import Publisher
from mini_core.errors import Conflict, NotFound, UsageError
from mini_core.store.database import Database
from mini_core.testing import free_port, until
from tests.engine.conftest import Lab


def steps(lab: Lab, info: api.DeployInfo) -> list[tuple[str, str]]:
    events = lab.controller.deploy_events(info.id, follow=False)
    return [(item.text, item.data["phase"]) for item in events if item.kind == "step"]


def test_a_deploy_goes_through_its_steps_and_is_live(lab: Lab):
    info = lab.deploy(web=["serve", "first"])
    assert (info.state, info.step, info.release, info.url) == ("done", "done", 1, "http://blog.localhost:18080")
    named = ("planned", "built", "released", "starting", "healthy", "routed", "drained")
    assert steps(lab, info) == [(step, phase) for step in named for phase in ("begin", "end")]
    assert lab.get() == (200, "first")
    last = list(lab.controller.deploy_events(info.id))[-1]
    assert (last.kind, last.data["state"], last.data["release"]) == ("done", "done", 1)


def test_the_same_source_and_configuration_builds_and_restarts_nothing(lab: Lab):
    lab.deploy(web=["serve", "first"])
    before = set(lab.world.instances)
    info = lab.deploy(web=["serve", "first"])
    assert info.unchanged and info.state == "done"
    assert lab.world.builds == 1
    assert set(lab.world.instances) == before
    assert "Unchanged: nothing was built or restarted" in lab.lines(info)
    assert [item.version for item in lab.controller.releases("blog")] == [1]


def test_an_earlier_source_again_is_a_new_release_with_the_image_that_is_there(lab: Lab):
    lab.deploy(web=["serve", "first"])
    lab.deploy(web=["serve", "second"])
    info = lab.deploy(web=["serve", "first"])
    assert (info.release, lab.get(), lab.world.builds) == (3, (200, "first"), 2)


def test_a_monorepo_s_app_is_deployed_anew_only_by_what_it_watches(lab: Lab):
    toml = '[apps.shop]\npath = "shop"\nwatch = ["shared/*"]\n[apps.blog]\npath = "blog"\n'
    wish = '{"web": ["serve", "hello"]}'

    def unchanged(**more: str) -> list[bool]:
        files = {"mini.toml": toml, "shop/fake.json": wish, "blog/fake.json": wish, "shared/a": "1", **more}
        sent = {f"file_{name}": text for name, text in files.items()}
        return [lab.deploy(name, **sent).unchanged for name in ("shop", "blog")]

    assert unchanged() == [False, False]
    assert unchanged() == [True, True]
    assert unchanged(**{"elsewhere/b": "2"}) == [True, False]
    assert unchanged(**{"elsewhere/b": "2", "shared/a": "2"}) == [False, False]
    assert unchanged(**{"elsewhere/b": "2", "shared/a": "2", "shop/new": ""}) == [False, False]


def test_old_instances_go_only_after_the_new_ones_are_routed(lab: Lab):
    lab.deploy(web=["serve", "first"])
    first = next(iter(lab.world.instances.values()))
    lab.deploy(web=["serve", "second"])
    assert lab.get() == (200, "second")
    lab.at_rest()
    routed = [table for table in lab.world.tables if any(route.targets for route in table.routes)]
    assert first.ended_at is not None
    assert [item.instance for item in routed[-1].routes[0].targets] == list(lab.world.instances)


def test_env_set_makes_a_release_and_restarts(lab: Lab):
    lab.deploy(web=["greet", "COLOUR"])
    assert lab.get() == (200, "nothing")
    info = lab.set_env(COLOUR="crimson")
    assert (info.release, info.reason, lab.get()) == (2, "env set COLOUR", (200, "crimson"))
    assert lab.controller.env("blog") == {"COLOUR": "crimson"}
    assert lab.controller.change_env("blog", api.EnvChange(set={"COLOUR": "crimson"}), "me") is None


def test_an_env_that_breaks_the_app_is_not_kept(lab: Lab):
    lab.deploy(web=["serve", "fine"])
    lab.set_env(COLOUR="crimson")
    lab.world.images.clear()
    info = lab.set_env(COLOUR="black")
    assert info.state == "failed"
    assert lab.controller.env("blog") == {"COLOUR": "crimson"}
    assert lab.get() == (200, "fine")


def test_build_time_variables_restart_nothing(lab: Lab):
    lab.deploy(web=["greet", "TOKEN"])
    assert lab.controller.change_env("blog", api.EnvChange(set={"TOKEN": "for-the-build"}, build=True), "me") is None
    assert lab.controller.env("blog", build=True) == {"TOKEN": "for-the-build"}
    assert lab.controller.env("blog") == {}


def test_a_rollback_restores_source_and_environment_without_a_build(lab: Lab):
    lab.deploy(web=["greet", "COLOUR"])
    lab.set_env(COLOUR="crimson")
    lab.deploy(web=["serve", "mistake"], options=api.DeployOptions(env={"EXTRA": "1"}))
    assert lab.controller.env("blog") == {"COLOUR": "crimson", "EXTRA": "1"}
    info = lab.ended(lab.controller.rollback("blog", api.Rollback(), "me"))
    assert (info.release, info.reason, lab.world.builds) == (4, "rollback to v2", 2)
    assert lab.get() == (200, "crimson")
    assert lab.controller.env("blog") == {"COLOUR": "crimson"}


def test_a_rollback_to_before_a_volume_says_that_its_files_are_kept(lab: Lab):
    lab.deploy()
    lab.ended(lab.controller.add_volume("blog", api.VolumeChange(target="/data"), "me"))
    back = lab.ended(lab.controller.rollback("blog", api.Rollback(version=1), "me"))
    said = [event.text for event in lab.controller.deploy_events(back.id) if event.kind == "warning"]
    assert said == ["That release has no volume at /data: its files are kept for mini volumes add /data -a blog"]
    assert lab.events("deploy.created")[-1].data["reason"] == "rollback to v1"


def test_a_rollback_behind_a_deploy_has_to_name_its_release(lab: Lab):
    lab.deploy(web=["serve", "one"])
    lab.deploy(web=["serve", "two"])
    deploy = lab.send(web=["serve", "three"], steps=[["hang"]])
    with pytest.raises(Conflict, match="is under way") as caught:
        lab.controller.rollback("blog", api.Rollback(), "me")
    assert caught.value.hint == f"mini deploys cancel {deploy.id}, or name the release: mini rollback vN -a blog"
    back = lab.controller.rollback("blog", api.Rollback(version=1), "me")
    lab.controller.cancel_deploy(deploy.id, "me")
    assert lab.ended(back).state == "done"
    assert lab.get() == (200, "one")


def test_a_rollback_to_what_never_was_is_refused(lab: Lab):
    with pytest.raises(NotFound):
        lab.controller.rollback("blog", api.Rollback(), "me")
    lab.deploy(web=["serve", "first"])
    with pytest.raises(Conflict, match="no earlier release"):
        lab.controller.rollback("blog", api.Rollback(), "me")
    lab.deploy(web=["exit", "1"])
    with pytest.raises(Conflict, match="never went live"):
        lab.controller.rollback("blog", api.Rollback(version=2), "me")
    with pytest.raises(NotFound, match="no release v0"):
        lab.controller.rollback("blog", api.Rollback(version=0), "me")


def test_generated_entries_are_made_once_and_kept(lab: Lab):
    env = [{"name": "SECRET_KEY", "kind": "generated"}]
    lab.deploy(web=["greet", "SECRET_KEY"], env=env)
    secret = lab.controller.env("blog")["SECRET_KEY"]
    assert len(secret) > 40
    assert lab.get() == (200, secret)
    lab.deploy(web=["greet", "SECRET_KEY"], env=env, file_change="x")
    assert lab.controller.env("blog")["SECRET_KEY"] == secret


def test_the_environment_is_composed_with_the_apps_own_strongest(lab: Lab):
    lab.world.addons = {"DATABASE_URL": "postgres://added", "THEME": "addon"}
    env = [{"name": "THEME", "value": "plan"}, {"name": "MODE", "value": "plan"}]
    lab.deploy(web=["serve", "x"], env=env, options=api.DeployOptions(env={"MODE": "mine"}))
    spec = next(iter(lab.world.instances.values())).spec
    given = {name: item.reveal() for name, item in spec.env.items()}
    assert spec.endpoint is not None
    assert given == {
        "DATABASE_URL": "postgres://added",
        "THEME": "addon",
        "MODE": "mine",
        "HOST": "127.0.0.1",
        "PORT": str(spec.endpoint.port),
    }
    assert lab.controller.env("blog") == {"MODE": "mine"}


def test_scaling_starts_only_what_is_missing_and_makes_no_release(lab: Lab):
    lab.deploy(web=["serve", "hello"], worker=["work"], clock=["work"])
    assert "Not started: clock. Start it: mini scale clock=1" in lab.lines(lab.controller.deploys("blog")[0])
    before = set(lab.world.instances)
    lab.ended(lab.controller.scale("blog", api.Scale(quantities={"web": 3, "clock": 1}), "me"))
    assert before < set(lab.world.instances)
    assert lab.controller.app("blog", "").formation == {"web": 3, "worker": 1, "clock": 1}
    assert [item.name for item in lab.controller.ps("blog")] == ["clock.1", "web.1", "web.2", "web.3", "worker.1"]
    lab.ended(lab.controller.scale("blog", api.Scale(quantities={"web": 1, "worker": 0}), "me"))
    lab.at_rest()
    assert [item.name for item in lab.controller.ps("blog")] == ["clock.1", "web.1"]
    assert lab.controller.scale("blog", api.Scale(quantities={"web": 1}), "me") is None
    assert [item.version for item in lab.controller.releases("blog")] == [1]


def test_limits_make_a_release_and_0_takes_them_back(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    mega = 1024 * 1024
    lab.ended(lab.controller.scale("blog", api.Scale(memory=64 * mega, process="web"), "me"))
    lab.at_rest()
    assert [item.spec.limits.memory for item in lab.world.of("blog")] == [64 * mega]
    lab.deploy(web=["serve", "next"])
    lab.at_rest()
    assert [item.spec.limits.memory for item in lab.world.of("blog")] == [64 * mega]
    lab.ended(lab.controller.scale("blog", api.Scale(memory=0, process="web"), "me"))
    lab.at_rest()
    assert [item.spec.limits.memory for item in lab.world.of("blog")] == [256 * mega]
    assert lab.controller.app("blog", "").release == 4


def test_an_app_that_needs_more_memory_for_its_first_release_gets_it(lab: Lab):
    failure = lab.deploy(web=["oom"]).failure
    assert failure and failure.hint == "Give it more, and deploy again: mini scale --memory 512m -a blog"
    assert lab.controller.scale("blog", api.Scale(memory=512 * 1024 * 1024), "me") is None
    with pytest.raises(UsageError):
        lab.controller.scale("blog", api.Scale(memory=1), "me")
    lab.deploy(web=["serve", "hello"])
    assert lab.controller.releases("blog")[0].limits[""].memory == 512 * 1024 * 1024


def test_what_cannot_be_scaled_is_refused(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    for wrong in (api.Scale(quantities={"wbe": 1}), api.Scale(quantities={"web": -1}), api.Scale(memory=5)):
        with pytest.raises(UsageError):
            lab.controller.scale("blog", wrong, "me")


def test_a_restart_replaces_every_instance_while_the_app_answers(lab: Lab):
    lab.deploy(web=["serve", "hello"], worker=["work"])
    before = set(lab.world.instances)
    info = lab.ended(lab.controller.restart("blog", "me", process="web"))
    lab.at_rest()
    assert info.release == 1
    assert len(before & set(lab.world.instances)) == 1, "the worker stays"
    lab.ended(lab.controller.restart("blog", "me"))
    lab.at_rest()
    assert not before & set(lab.world.instances)
    assert lab.get() == (200, "hello")


def test_a_stopped_app_stays_stopped_until_it_is_started(lab: Lab):
    lab.deploy(web=["greet", "COLOUR"])
    lab.controller.stop("blog", "me")
    assert lab.world.instances == {}
    assert lab.get()[0] == 503
    info = lab.set_env(COLOUR="crimson")
    assert (info.state, lab.world.instances) == ("done", {})
    lab.reopen()
    assert lab.world.instances == {}
    lab.ended(lab.controller.start_app("blog", "me"))
    assert lab.get() == (200, "crimson")


def test_an_app_that_ignores_port_is_found_and_its_releases_change_over(lab: Lab):
    port = free_port()
    code = {"file_app.py": f"import http\n# {port}1 is none\nserve(port={port})\n"}
    first = lab.deploy(web=["serve-on", str(port), "first"], timeout=5, **code)
    assert f"Listens on {port}, ignoring PORT (app.py:3)" in lab.lines(first)
    assert lab.get() == (200, "first")
    second = lab.deploy(web=["serve-on", str(port), "second"], timeout=5)
    assert second.state == "done"
    assert any("Requests waited for" in line for line in lab.lines(second))
    assert lab.get() == (200, "second")
    broken = lab.deploy(web=["exit", "3"], timeout=5)
    assert broken.state == "failed"
    until(lambda: lab.get() == (200, "second"), what="the old release back")


def test_the_release_command_runs_once_with_the_new_environment_before_traffic(lab: Lab):
    lab.deploy(web=["serve", "hello"], release=["exit", "0", "migrated 3 tables"])
    info = lab.controller.deploys("blog")[0]
    assert "migrated 3 tables" in lab.lines(info)
    assert lab.world.starts["release"] == 1
    lab.ended(lab.controller.restart("blog", "me"))
    assert lab.world.starts["release"] == 1
    lab.set_env(COLOUR="crimson")
    assert lab.world.starts["release"] == 2
    lab.at_rest()


def test_scripts_of_app_json_run_when_they_should(lab: Lab):
    scripts = '{"scripts": {"postdeploy": "seed", "dokku": {"predeploy": "check", "postdeploy": "warm"}}}'
    wish = {"web": ["serve", "hello"], "file_app.json": scripts}
    lab.deploy(**wish)
    lab.deploy(**wish, file_more="1")
    assert {name: lab.world.starts[name] for name in ("predeploy", "postdeploy", "dokku-postdeploy")} == {
        "predeploy": 2,
        "postdeploy": 1,
        "dokku-postdeploy": 2,
    }


def test_only_so_many_images_are_kept(make_lab: Callable[..., Lab]):
    lab = make_lab(keep=2)
    for number in range(4):
        lab.deploy(web=["serve", str(number)])
        lab.at_rest()
    assert lab.deploy(web=["serve", "3"]).unchanged
    kept = [item.image_kept for item in lab.controller.releases("blog")]
    assert kept == [True, True, False, False]
    assert len(lab.world.images) == 2
    back = lab.ended(lab.controller.rollback("blog", api.Rollback(version=1), "me"))
    assert back.failure and back.failure.code == "image-gone"
    assert back.failure.message == "The image of v1 is gone: those of the last 2 releases are kept."
    assert back.failure.hint == "Go back to v3, or deploy its source again: mini deploy . blog"


def test_releases_that_share_an_image_count_as_one(make_lab: Callable[..., Lab]):
    lab = make_lab(keep=2)
    lab.deploy(web=["serve", "hello"])
    for number in range(4):
        lab.set_env(NUMBER=str(number))
    back = lab.ended(lab.controller.rollback("blog", api.Rollback(version=1), "me"))
    assert (back.state, lab.controller.env("blog")) == ("done", {})


def test_a_renamed_app_goes_on_without_a_restart(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    before = set(lab.world.instances)
    lab.controller.rename_app("blog", "diary", "me")
    assert lab.get("diary") == (200, "hello")
    assert lab.get("blog")[0] == 404
    assert set(lab.world.instances) == before
    lab.deploy("diary", web=["serve", "again"])
    lab.deploy("blog", web=["serve", "another"])
    assert (lab.get("diary"), lab.get("blog")) == ((200, "again"), (200, "another"))


def test_a_router_with_https_is_named_only_where_it_is_installed(lab: Lab):
    lab.deploy()
    parts = replace(lab.controller._parts, https_routers=("caddy",))
    info = requests.domain_info(parts, "example.com", "http://192.0.2.7:18080", default=False)
    assert info.note == "No HTTPS with this router: mini up --router caddy"


def test_the_table_routes_every_host_to_its_own_app_and_asks_no_more_for_more_apps(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    for app in ("blog", "shop", "wiki"):
        lab.deploy(app, web=["serve", app])
        lab.controller.add_domain(app, f"{app}.example.org", "me", "")
    asked, find, me = [], Database.find, threading.get_ident()

    def noted(self: Database, table: str, **more: Any) -> Any:
        if threading.get_ident() == me:
            asked.append(table)
        return find(self, table, **more)

    monkeypatch.setattr(Database, "find", noted)
    table = Publisher(lab.controller._parts).table()
    assert sorted(set(asked)) == ["apps", "domains", "instances"] and len(asked) == 3
    for app in ("blog", "shop", "wiki"):
        owner = lab.store.apps.get(app)
        (instance,) = lab.store.instances.find(app=owner.id)
        routed = {route.host: route.targets for route in table.routes if route.app == app}
        assert routed.keys() == {f"{app}.localhost", f"{app}.nip.io", f"{app}.example.org"}
        assert all([target.instance for target in targets] == [instance.id] for targets in routed.values())


def test_domains_are_routed_and_belong_to_one_app(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.controller.create_app(api.NewApp(name="shop"), "me", "")
    info = lab.controller.add_domain("blog", "WWW.Example.com.", "me", "http://192.0.2.7:18080")
    assert (info.domain, info.dns) == ("www.example.com", "www.example.com A 192.0.2.7")
    assert info.note == "No HTTPS with this router: put a server that ends TLS in front of it"
    with pytest.raises(Conflict, match="belongs to blog"):
        lab.controller.add_domain("shop", "www.example.com", "me", "")
    for wrong in ("other.localhost", "localhost", "no-dot", "1.2.3.4", "a b.com"):
        with pytest.raises(UsageError):
            lab.controller.add_domain("blog", wrong, "me", "")
    assert any(route.host == "www.example.com" for route in lab.world.table.routes)
    lab.controller.remove_domain("blog", "www.example.com", "me")
    assert all(route.host != "www.example.com" for route in lab.world.table.routes)


def test_volumes_are_mounted_by_a_release_and_removed_on_demand(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    info = lab.ended(lab.controller.add_volume("blog", api.VolumeChange(target="/data/"), "me"))
    assert info.release == 2
    lab.at_rest()
    assert [v.target for item in lab.world.of("blog") for v in item.spec.volumes] == ["/data"]
    with pytest.raises(Conflict):
        lab.controller.add_volume("blog", api.VolumeChange(target="/data"), "me")
    lab.ended(lab.controller.remove_volume("blog", "/data", "me"))
    until(lambda: "volume blog/data" in lab.world.gone, what="the volume's end")
    assert lab.controller.volumes("blog") == ()


def test_what_mini_toml_says_stays_its_own_after_a_rollback(lab: Lab):
    toml = '[volumes]\ndb = "/data"\n[limits]\nmemory = "64m"\n'
    lab.deploy(web=["serve", "hello"], **{"file_mini.toml": toml})
    lab.ended(lab.controller.add_volume("blog", api.VolumeChange(target="/more"), "me"))
    lab.ended(lab.controller.rollback("blog", api.Rollback(version=2), "me"))
    with pytest.raises(Conflict, match=r"mini\.toml has the volume /data"):
        lab.controller.remove_volume("blog", "db", "me")
    later = lab.deploy(web=["serve", "hello"], **{"file_mini.toml": '[limits]\nmemory = "128m"\n'})
    said = [event.text for event in lab.controller.deploy_events(later.id) if event.kind == "warning"]
    assert said == [
        "That release has no volume at /data: its files are kept for mini volumes add /data --name db -a blog"
    ]
    stored = lab.store.releases.get(lab.store.apps.get("blog").id, later.release).release
    assert [item.target for item in stored.volumes] == ["/more"]
    assert stored.limits[""].memory == 128 * 1024**2


def test_a_volume_that_is_added_again_before_the_files_are_gone_is_another_one(lab: Lab):
    lab.deploy()
    data = api.VolumeChange(target="/data")
    lab.ended(lab.controller.add_volume("blog", data, "me"))
    lab.world.destroy_error = "still busy"
    lab.ended(lab.controller.remove_volume("blog", "/data", "me"))
    with pytest.raises(Conflict, match="are being removed"):
        lab.controller.add_volume("blog", api.VolumeChange(target="/data", name="data"), "me")
    lab.ended(lab.controller.add_volume("blog", data, "me"))
    assert lab.controller.volumes("blog") == (api.VolumeChange(target="/data", name="data-2"),)
    lab.world.destroy_error = ""
    until(lambda: not lab.store.jobs.all(), what="the end of the old one")
    assert lab.world.gone == ["volume blog/data"]


def test_a_rollback_brings_a_volume_back_whose_files_are_still_there(lab: Lab):
    lab.deploy()
    lab.ended(lab.controller.add_volume("blog", api.VolumeChange(target="/data"), "me"))
    lab.world.destroy_error = "still busy"
    lab.ended(lab.controller.remove_volume("blog", "/data", "me"))
    lab.ended(lab.controller.rollback("blog", api.Rollback(version=2), "me"))
    lab.world.destroy_error = ""
    until(lambda: not lab.store.jobs.all(), what="the end of the removal")
    assert lab.world.gone == []


def test_volumes_that_are_added_at_once_are_all_there(lab: Lab):
    lab.deploy()
    changes = [lab.controller.add_volume("blog", api.VolumeChange(target=f"/{name}"), "me") for name in ("b", "a")]
    for info in changes:
        lab.ended(info)
    assert [item.target for item in lab.controller.volumes("blog")] == ["/a", "/b"]
    lab.at_rest()
    assert [item.name for item in lab.world.running("blog")[0].spec.volumes] == ["a", "b"]


def test_maintenance_answers_for_the_app_and_ends(lab: Lab):
    lab.deploy(web=["serve", "hello"])
    lab.controller.maintenance("blog", True, "me")
    assert lab.get() == (503, "maintenance")
    assert lab.controller.app("blog", "").state == "maintenance"
    lab.controller.maintenance("blog", False, "me")
    assert lab.get() == (200, "hello")


def test_destroying_leaves_nothing_and_frees_the_name(lab: Lab):
    lab.deploy(web=["serve", "hello"], worker=["work"])
    lab.controller.destroy_app("blog", "me")
    assert (lab.world.instances, lab.world.images, lab.get()[0]) == ({}, set(), 404)
    until(lambda: lab.world.gone == ["app blog", "plugin's blog"], what="the plugin's part")
    assert not (lab.paths.logs / "blog").exists()
    assert lab.deploy(web=["serve", "anew"]).release == 1


def test_destroying_what_is_stuck_says_so_and_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mini_core.controller.DESTROY_PATIENCE", 0.5)
    lab.deploy(web=["serve", "hello"])
    lab.world.destroy_error = "the engine is busy"
    with pytest.raises(Exception, match="the engine is busy"):
        lab.controller.destroy_app("blog", "me")
    assert any("destroy blog: failed" in line for line in lab.controller.status("").problems)
    lab.world.destroy_error = ""
    until(lambda: "app blog" in lab.world.gone, what="the app's end")
    until(lambda: not lab.controller.status("").problems, what="no more problems")


def test_a_scaling_that_undoes_one_on_its_way_is_no_nothing(lab: Lab):
    lab.deploy()
    lab.world.hold_starts.clear()
    lab.controller.scale("blog", api.Scale(quantities={"web": 2}), "me")
    back = lab.controller.scale("blog", api.Scale(quantities={"web": 1}), "me")
    lab.world.hold_starts.set()
    assert lab.ended(back).state == "done"
    assert lab.controller.app("blog", "").formation == {"web": 1}
    assert lab.controller.scale("blog", api.Scale(quantities={"web": 1}), "me") is None


def test_a_value_that_no_variable_can_have_is_refused_before_anything_starts(lab: Lab):
    lab.deploy()
    with pytest.raises(UsageError, match="zero byte"):
        lab.set_env(A="a\0b")


def test_what_scaling_changes_is_said_in_the_units_that_were_typed(lab: Lab):
    lab.deploy()
    lab.ended(lab.controller.scale("blog", api.Scale(memory=300 * 1024 * 1024, cpu=0.5, process="web"), "me"))
    assert lab.controller.release("blog", 2).reason == "scale memory=300m cpu=0.5 for web"
    assert "The fake runtime cannot hold a CPU limit" in lab.lines(lab.controller.deploys("blog")[0])
    lab.ended(lab.controller.scale("blog", api.Scale(memory=0, cpu=0, process="web"), "me"))
    release = lab.controller.release("blog", 3)
    assert (release.reason, release.limits) == ("scale memory=none cpu=none for web", {})
