"""What goes into a build and what does not; how it fails; what is cleaned up."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mini_core.errors import BuildError, Cancelled, MiniError, PlanError, Unavailable
from mini_core.interfaces import BuildRequest
from mini_core.testing import RecordingJob, until
from mini_core.types import Cache, Dockerfile, Image, Plan, ProcessType, Step, Toolchain, replace
from mini_process import proc, toolchains
from mini_process.builder import ProcessBuilder
from mini_process.hints import explain
from mini_process.layout import Layout
from mini_process.toolchains import Tool

RequestFor = Callable[..., BuildRequest]


def shell(name: str, line: str, **changes: object) -> Step:
    return replace(Step(name=name, argv=("sh", "-c", line)), **changes)


def plan_of(*steps: Step, **changes: object) -> Plan:
    return replace(Plan(buildpack="test", steps=steps), **changes)


def app_of(layout: Layout, image: Image) -> Path:
    return layout.build_of(image) / "app"


def test_dependency_steps_see_only_the_files_they_name_and_run_first(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    plan = plan_of(
        shell("all", "ls > all.txt"),
        shell("dependencies", "ls -R > named.txt", files=("lock.txt", "packages/*/manifest.txt", "missing.txt")),
    )
    files = {"lock.txt": "1", "main.txt": "", "packages/a/manifest.txt": "", "packages/a/code.txt": ""}
    job = RecordingJob()
    image = builder.build(request_for(plan, files), job)
    named = (app_of(layout, image) / "named.txt").read_text()
    assert "lock.txt" in named and "manifest.txt" in named
    assert "main.txt" not in named and "code.txt" not in named
    assert "named.txt" in (app_of(layout, image) / "all.txt").read_text()


def test_a_changed_dependency_runs_its_step_again_with_its_cache(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    step = shell(
        "dependencies",
        'cat "$STORE/seen" > seen.txt 2>/dev/null; cat lock.txt >> "$STORE/seen"',
        files=("lock.txt",),
        caches=(Cache(name="store-of-a-test", variable="STORE"),),
    )
    for lock, seen in (("1", ""), ("2", "1")):
        image = builder.build(request_for(plan_of(step), {"lock.txt": lock}), RecordingJob())
        assert (app_of(layout, image) / "seen.txt").read_text() == seen


def test_a_file_whose_name_is_no_utf_8_is_built_as_any_other(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    request = request_for(plan_of(shell("build", "ls > names.txt")), {"main.txt": ""})
    (request.source / os.fsdecode(b"caf\xe9.txt")).write_text("")
    image = builder.build(request, RecordingJob())
    assert b"caf\xe9.txt\n" in (app_of(layout, image) / "names.txt").read_bytes()


def test_a_build_step_that_changes_a_dependency_changes_it_for_this_build_only(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    plan = plan_of(
        shell("dependencies", "mkdir deps; echo installed > deps/state", files=("lock.txt",)),
        shell("build", "cat main.txt >> deps/state"),
    )
    images = [builder.build(request_for(plan, {"lock.txt": "", "main.txt": text}), RecordingJob()) for text in "ab"]
    states = [(app_of(layout, image) / "deps" / "state").read_text() for image in images]
    assert states == ["installed\na", "installed\nb"]


def test_installed_packages_are_linked_until_a_step_writes_into_them(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    install = shell(
        "install",
        "for d in node_modules/package node_modules/.cache; do mkdir -p $d; echo installed > $d/file; done",
        files=("lock.txt",),
    )
    harmless = plan_of(install, shell("build", "echo $RANDOM >> node_modules/.cache/file"))
    images = [builder.build(request_for(harmless, {"lock.txt": "", "a": text}), RecordingJob()) for text in "12"]
    first, second = (app_of(layout, image) / "node_modules" for image in images)
    assert (first / "package/file").samefile(second / "package/file")
    assert not (first / ".cache/file").samefile(second / ".cache/file")

    patching = plan_of(install, shell("build", "sleep 0.01; echo patched >> node_modules/package/file"))
    for number in range(3):
        image = builder.build(request_for(patching, {"lock.txt": "2", "a": str(number)}), RecordingJob())
        assert (app_of(layout, image) / "node_modules/package/file").read_text() == "installed\npatched\n"


def test_steps_run_in_a_clean_environment_and_see_the_build_time_one(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SECRET", "sentinel-of-the-server")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    plan = plan_of(
        shell("with", "env > with.txt; echo token is $TOKEN", env={"OWN": "1"}),
        shell("without", "env > without.txt", secrets=False),
    )
    job = RecordingJob()
    image = builder.build(request_for(plan, {"main.txt": ""}, TOKEN="sentinel-token"), job)
    seen = (app_of(layout, image) / "with.txt").read_text()
    assert "TOKEN=sentinel-token" in seen and "OWN=1" in seen and "HTTPS_PROXY=http://proxy.example:3128" in seen
    assert "sentinel" not in (app_of(layout, image) / "without.txt").read_text()
    assert "sentinel-of-the-server" not in seen
    assert "token is [REDACTED]" in job.text()
    assert "sentinel" not in job.text() + repr(image) + (layout.build_of(image) / "build.json").read_text()


def test_a_changed_build_time_variable_builds_anew(builder: ProcessBuilder, request_for: RequestFor) -> None:
    plan = plan_of(shell("build", "true"))
    images = [builder.build(request_for(plan, {"a": ""}, FLAG=flag), RecordingJob()) for flag in ("1", "2", "1")]
    assert images[0] == images[2] != images[1]


def test_without_caches_everything_is_made_anew(builder: ProcessBuilder, request_for: RequestFor) -> None:
    plan = plan_of(shell("dependencies", "true", files=("lock.txt",)))
    first = builder.build(request_for(plan, {"lock.txt": ""}), RecordingJob())
    job = RecordingJob()
    second = builder.build(request_for(plan, {"lock.txt": ""}, no_cache=True), job)
    assert first.ref != second.ref
    assert "unchanged" not in job.text()


def test_a_failed_step_says_how_it_ended_why_and_what_to_do_and_leaves_nothing(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    line = "echo 'error: No matching distribution found for flaskk==1'; exit 7"
    with pytest.raises(BuildError) as caught:
        builder.build(request_for(plan_of(shell("install", line)), {"a": ""}), RecordingJob())
    error = caught.value
    assert error.message == "install failed (exit code 7): no usable release of flaskk==1"
    assert (error.step, error.code, error.tail) == (
        "install",
        "no-such-package",
        ("error: No matching distribution found for flaskk==1",),
    )
    assert list(layout.builds.iterdir()) == []

    with pytest.raises(BuildError, match="no-such-tool: command not found"):
        builder.build(request_for(plan_of(Step(name="x", argv=("no-such-tool",))), {"a": ""}), RecordingJob())


def test_cancelling_ends_what_a_step_started_elsewhere_too(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    plan = plan_of(shell("slow", "setsid sleep 600 & trap '' TERM; echo started; sleep 600; sleep 600"))
    job = RecordingJob()
    ends: list[BaseException] = []

    def build() -> None:
        try:
            builder.build(request_for(plan, {"a": ""}), job)
        except MiniError as error:
            ends.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    until(lambda: ("output", "started") in job.lines, what="the step")
    running = [pid for pid in proc.numbers_in_proc() if str(layout.builds) in proc.environment(pid).get("PATH", "")]
    started = time.monotonic()
    job.cancelled.set()
    thread.join(10)
    assert time.monotonic() - started < 5
    assert [type(end) for end in ends] == [Cancelled]
    assert len(running) >= 3
    until(lambda: not [pid for pid in running if proc.environment(pid)], what="the end of all of them")
    assert list(layout.builds.iterdir()) == []


def test_the_steps_of_a_killed_controller_are_ended_by_the_next_build(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    environment = {"MINI_BUILD": f"{layout.platform}.1.left-over"}
    with subprocess.Popen(["sleep", "600"], env=environment) as orphan:
        until(lambda: proc.environment(orphan.pid), what="its environment")
        builder.build(request_for(plan_of(), {"a": ""}), RecordingJob())
        assert orphan.wait(5) == -9


def test_a_background_process_of_a_step_does_not_hold_up_the_build(
    builder: ProcessBuilder, request_for: RequestFor
) -> None:
    started = time.monotonic()
    builder.build(request_for(plan_of(shell("daemon", "sleep 600 & echo done")), {"a": ""}), RecordingJob())
    assert time.monotonic() - started < 5


def test_a_dockerfile_needs_docker(builder: ProcessBuilder, request_for: RequestFor) -> None:
    plan = plan_of(dockerfile=Dockerfile(), processes=(ProcessType(name="web"),))
    with pytest.raises(PlanError, match="Dockerfile needs Docker") as caught:
        builder.build(request_for(plan, {"Dockerfile": "FROM scratch"}), RecordingJob())
    assert "--runtime docker" in caught.value.hint
    assert builder.render(plan) == {}


@pytest.mark.parametrize("path", ["../outside", "/etc", "missing"])
def test_an_app_folder_outside_the_source_is_refused(
    builder: ProcessBuilder, request_for: RequestFor, path: str
) -> None:
    with pytest.raises((PlanError, BuildError)):
        builder.build(request_for(plan_of(path=path), {"a": ""}), RecordingJob())


def test_only_the_apps_folder_of_a_monorepo_is_built(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    image = builder.build(request_for(plan_of(path="apps/web"), {"apps/web/a.txt": "", "b.txt": ""}), RecordingJob())
    assert [path.name for path in app_of(layout, image).iterdir()] == ["a.txt"]


def test_modes_and_links_of_the_source_are_kept(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    request = request_for(plan_of(), {"run.sh": "#!/bin/sh\n", "data/a.txt": "a"})
    (request.source / "run.sh").chmod(0o755)
    (request.source / "link").symlink_to("data")
    app = app_of(layout, builder.build(request, RecordingJob()))
    assert (app / "run.sh").stat().st_mode & 0o111
    assert (app / "link").readlink() == Path("data")


def test_pruning_keeps_what_is_asked_for_and_its_layer_and_counts_what_it_frees(
    builder: ProcessBuilder, layout: Layout, request_for: RequestFor
) -> None:
    plan = plan_of(shell("dependencies", "cp lock.txt deps.txt", files=("lock.txt",)))
    kept, old = (builder.build(request_for(plan, {"lock.txt": text}), RecordingJob()) for text in ("1", "2"))
    half = layout.builds / "0123456789abcdef"
    half.mkdir()
    (half / "part").write_bytes(b"x" * 5000)
    assert builder.prune([kept], ["blog"]) >= 5000
    assert builder.exists(kept) and not builder.exists(old) and not half.exists()
    assert len(list(layout.layers.iterdir())) == 1
    assert builder.build(request_for(plan, {"lock.txt": "1"}), RecordingJob()) == kept


def test_rendering_gives_a_script_for_people(builder: ProcessBuilder) -> None:
    plan = plan_of(
        Step(name="build", argv=("go", "build", "-o", "bin/web", "./cmd/my app"), env={"CGO_ENABLED": "0"}),
        toolchains=(Toolchain(name="go", version="1.22"),),
    )
    script = builder.render(plan)["build.sh"]
    assert "#   go 1.22" in script
    assert "CGO_ENABLED=0 go build -o bin/web './cmd/my app'" in script


# --- toolchains


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with these, whatever the real one has."""
    versions = {"python": ("3.13.1", "3.11.7"), "node": ("22.3.0", "20.20.2"), "go": ("1.26.8",)}

    def installed(name: str, extra: object = ()) -> tuple[Tool, ...]:
        return tuple(Tool(name=name, version=text, path=Path(f"/opt/{name}-{text}")) for text in versions.get(name, ()))

    monkeypatch.setattr(toolchains, "installed", installed)


@pytest.mark.parametrize(
    ("name", "wanted", "source", "chosen", "warned"),
    [
        ("python", "", "default", "3.13.1", False),
        ("python", "3.11", ".python-version", "3.11.7", False),
        ("python", ">=3.10,<3.12", "pyproject.toml", "3.11.7", False),
        ("python", "3.11.9", ".python-version", "3.11.7", True),
        ("python", "3.14", "default", "3.13.1", True),
        ("node", "^20.1", "package.json", "20.20.2", False),
        ("node", "22.99.0", ".nvmrc", "22.3.0", True),
        ("go", "1.22", "go.mod", "1.26.8", False),
        ("static", "", "default", None, False),
        ("debian", "", "default", None, False),
    ],
)
def test_toolchains_are_the_newest_that_fit(
    machine: None, name: str, wanted: str, source: str, chosen: str | None, warned: bool
) -> None:
    choice = toolchains.resolve(Toolchain(name=name, version=wanted, source=source))
    assert (choice.tool.version if choice.tool else None, bool(choice.warning)) == (chosen, warned)


def test_a_missing_toolchain_is_named_with_what_is_there_and_what_would_do(machine: None) -> None:
    with pytest.raises(Unavailable) as caught:
        toolchains.resolve(Toolchain(name="python", version="3.12", source=".python-version"))
    assert caught.value.message == (
        "python 3.12 (from .python-version) is not on this machine; installed: 3.11.7, 3.13.1"
    )
    for way in ("install it", "change the version in .python-version", "--runtime docker"):
        assert way in caught.value.hint
    with pytest.raises(Unavailable, match="no ruby is installed"):
        toolchains.resolve(Toolchain(name="ruby"))


def test_the_machines_own_toolchains_are_found() -> None:
    found = toolchains.installed("python")
    assert found
    assert [tool.version for tool in found] == sorted((tool.version for tool in found), key=toolchains.order)[::-1]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("OSError: [Errno 28] No space left on device", "disk-full"),
        ("npm error code EUSAGE", "stale-lock"),
        ("Error: pg_config executable not found.", "missing-library"),
        ("src/x.c:1:10: fatal error: ffi.h: No such file or directory", "missing-library"),
        ("go: go.mod requires go >= 1.99 (running go 1.26.8; GOTOOLCHAIN=local)", "wrong-version"),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "out-of-memory"),
        ("error: the lock file is not up to date with pyproject.toml", "stale-lock"),
        ("sh: 1: vite: not found", "command-not-found"),
        ("something else", "build"),
    ],
)
def test_likely_causes_are_told_from_the_last_lines(line: str, code: str) -> None:
    cause = explain(("tool",), 1, ("before", line, "after"))
    assert cause.code == code
    assert cause.hint


def test_a_killed_step_probably_had_no_memory() -> None:
    assert explain(("tool",), -9, ()).code == "out-of-memory"


def test_what_cannot_be_found_without_a_network_is_not_said_not_to_exist() -> None:
    offline = (
        "WARNING: Retrying: Failed to establish a new connection: [Errno 101] Network is unreachable: /simple/flask/",
        "ERROR: No matching distribution found for flask",
    )
    assert explain(("pip",), 1, offline).code == "unreachable"
