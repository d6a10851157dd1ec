"""Go: modules, workspaces, vendored trees, GOPATH style; versions; which programs are built and started."""

from __future__ import annotations

import pytest

from mini_buildpacks.go import GoBuildpack
from mini_core.errors import ConfigError
from mini_core.planning import make_plan
from mini_core.sources import MemorySource
from mini_core.testing import BuildpackContract
from mini_core.types import BuildSettings, Plan, Strength

MAIN = "package main\n\nfunc main() {}\n"
MOD = "module example.com/shop\n\ngo 1.22\n"
GIN = MOD + "require github.com/gin-gonic/gin v1.10.0\n"


def plan_of(files: dict[str, str], /, **env: str) -> Plan:
    source = MemorySource({name: text.encode() for name, text in files.items()})
    offer = GoBuildpack().detect(source, BuildSettings(env=env))
    assert offer
    return offer.plan


def argv(plan: Plan, name: str = "build") -> str:
    return " ".join(next(step for step in plan.steps if step.name == name).argv)


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def processes(plan: Plan) -> dict[str, str]:
    return {item.name: " ".join(item.command) for item in plan.processes}


@pytest.mark.parametrize(
    ("mod", "files", "version", "source"),
    [
        (MOD, {}, "1.22", "go.mod go"),
        ("module m\n", {}, "1.27", "default"),
        (MOD + "toolchain go1.24.1\n", {}, "1.24.1", "go.mod toolchain"),
        ("// +heroku goVersion go1.25\n" + MOD, {}, "~1.25", "go.mod +heroku goVersion"),
        ("// +heroku goVersion ~1.16.2\n" + MOD, {}, "~1.16.2", "go.mod +heroku goVersion"),
        (MOD, {"mise.toml": '[tools]\ngo = "1.25.3"\n'}, "~1.25.3", "mise.toml"),
        (MOD, {".tool-versions": "golang 1.24.0\n"}, "~1.24.0", ".tool-versions"),
        (MOD, {".go-version": "1.23.4\n"}, "~1.23.4", ".go-version"),
    ],
)
def test_the_version_of_go_names_its_file(mod: str, files: dict[str, str], version: str, source: str) -> None:
    toolchain = plan_of({"go.mod": mod, "main.go": MAIN, **files}).toolchains[0]
    assert (toolchain.version, toolchain.source) == (version, source)


def test_a_build_variable_wins() -> None:
    assert plan_of({"go.mod": MOD, "main.go": MAIN}, GO_VERSION="1.26").toolchains[0].version == "~1.26"


def test_modules_are_downloaded_before_the_source_is_there() -> None:
    plan = plan_of({"go.mod": GIN, "go.sum": "", "main.go": MAIN})
    assert names(plan) == ["download modules", "build"]
    assert plan.steps[0].files == ("go.mod", "go.sum")
    assert argv(plan) == "go build -trimpath -ldflags=-s -w -o bin/shop ."
    assert (plan.framework, plan.package_manager) == ("gin", "gomod")


def test_a_module_without_dependencies_downloads_nothing() -> None:
    assert names(plan_of({"go.mod": MOD, "main.go": MAIN})) == ["build"]


def test_a_missing_sum_is_made_and_said() -> None:
    plan = plan_of({"go.mod": GIN, "main.go": MAIN})
    assert names(plan) == ["tidy modules", "build"]
    assert any("go.sum is missing" in warning for warning in plan.warnings)
    imported = plan_of({"go.mod": MOD, "main.go": 'package main\nimport "github.com/a/b"\nfunc main() { b.C() }\n'})
    assert names(imported) == ["tidy modules", "build"]


def test_a_complete_vendor_folder_is_used_and_an_incomplete_one_is_left_out() -> None:
    listed = "# github.com/gin-gonic/gin v1.10.0\n## explicit\n"
    whole = plan_of({"go.mod": GIN, "go.sum": "", "main.go": MAIN, "vendor/modules.txt": listed})
    assert names(whole) == ["build"]
    assert "-mod=vendor" in argv(whole)
    partial = plan_of({"go.mod": GIN, "go.sum": "", "main.go": MAIN, "vendor/modules.txt": "# github.com/x/y v1.0.0\n"})
    assert names(partial) == ["download modules", "build"]
    assert "-mod=vendor" not in argv(partial)
    assert any("vendor/" in warning for warning in partial.warnings)


def test_a_workspace_downloads_for_all_its_modules() -> None:
    plan = plan_of(
        {
            "go.work": "go 1.24\n\nuse (\n\t./api\n\t./lib\n)\n",
            "api/go.mod": "module example.com/api\nrequire example.com/lib v0.0.0\nrequire github.com/a/b v1.0.0\n",
            "api/go.sum": "",
            "api/main.go": MAIN,
            "lib/go.mod": "module example.com/lib\n",
            "lib/lib.go": "package lib\n",
        }
    )
    assert plan.steps[0].files == ("go.work", "api/go.mod", "api/go.sum", "lib/go.mod")
    assert argv(plan).endswith("-o bin/api ./api")
    assert plan.toolchains[0].version == "1.24"


def test_a_module_in_the_repository_that_replaces_one_is_read_for_the_download() -> None:
    mod = GIN + "require example.com/lib v0.0.0\nreplace example.com/lib => ./lib\n"
    plan = plan_of({"go.mod": mod, "go.sum": "", "main.go": MAIN, "lib/go.mod": "module example.com/lib\n"})
    assert plan.steps[0].files == ("go.mod", "go.sum", "lib/go.mod")


@pytest.mark.parametrize(
    ("mains", "env", "expected"),
    [
        ([""], {}, {"web": "bin/shop"}),
        (["cmd/server"], {}, {"web": "bin/server"}),
        (["cmd"], {}, {"web": "bin/cmd"}),
        (["", "cmd/tool"], {}, {"web": "bin/shop"}),
        (["cmd/other", "cmd/web"], {}, {"web": "bin/web", "other": "bin/other"}),
        (["cmd/worker", "cmd/server"], {}, {"web": "bin/server", "worker": "bin/worker"}),
        (
            ["greeter_client", "greeter_server"],
            {},
            {"web": "bin/greeter_server", "greeter-client": "bin/greeter_client"},
        ),
        (["cmd/first", "cmd/second"], {}, {"web": "bin/first", "second": "bin/second"}),
        (["cmd/first", "cmd/second"], {"GO_BIN": "cmd/second"}, {"web": "bin/second"}),
        (["cmd/first", "cmd/second"], {"GO_BIN": "second"}, {"web": "bin/second"}),
        (["cmd/first", "cmd/second"], {"GOOGLE_BUILDABLE": "./cmd/first/main.go"}, {"web": "bin/first"}),
        (["scripts/gen", "cmd/app"], {}, {"web": "bin/app"}),
    ],
)
def test_which_programs_are_built(mains: list[str], env: dict[str, str], expected: dict[str, str]) -> None:
    files = {f"{folder}/main.go" if folder else "main.go": MAIN for folder in mains}
    assert processes(plan_of({"go.mod": MOD, **files}, **env)) == expected


def test_a_choice_among_several_is_said() -> None:
    plan = plan_of({"go.mod": MOD, "cmd/first/main.go": MAIN, "cmd/second/main.go": MAIN})
    assert any("cmd/first taken for web. The others: cmd/second" in warning for warning in plan.warnings)
    assert argv(plan).endswith("-o bin/ ./cmd/first ./cmd/second")
    obvious = plan_of({"go.mod": MOD, "cmd/web/main.go": MAIN, "cmd/worker/main.go": MAIN})
    assert obvious.warnings == ()


def test_herokus_install_directive_says_what_is_built() -> None:
    files = {f"{folder}/main.go": MAIN for folder in ("cmd/a", "cmd/b", "other", "more")}
    plan = plan_of({"go.mod": "// +heroku install ./cmd/... ./other\n" + MOD, **files})
    assert argv(plan).endswith("-o bin/ ./cmd/a ./cmd/b ./other")


@pytest.mark.parametrize("main", ["cmd/b", "./cmd/b", "example.com/shop/cmd/b"])
def test_app_engines_main_says_what_is_built(main: str) -> None:
    files = {"go.mod": MOD, "main.go": MAIN, "cmd/b/main.go": MAIN, "app.yaml": f"runtime: go125\nmain: {main}\n"}
    assert processes(plan_of(files)) == {"web": "bin/b"}


def test_what_the_procfile_starts_is_built_too_and_found_on_the_path() -> None:
    files = {"go.mod": MOD, "main.go": MAIN, "cmd/mailer/main.go": MAIN, "cmd/unused/main.go": MAIN}
    plan = plan_of({**files, "Procfile": "web: shop\nmail: bin/mailer -v\n"})
    assert argv(plan).endswith("-o bin/ . ./cmd/mailer")
    assert plan.bin == ("bin",)


def test_c_is_compiled_only_where_it_is_needed() -> None:
    def cgo(files: dict[str, str]) -> str:
        return next(step for step in plan_of({"main.go": MAIN, **files}).steps if step.name == "build").env[
            "CGO_ENABLED"
        ]

    assert cgo({"go.mod": MOD}) == "0"
    assert cgo({"go.mod": MOD, "c.go": 'package main\n\n// #include <stdio.h>\nimport "C"\n'}) == "1"
    assert cgo({"go.mod": MOD + "require github.com/mattn/go-sqlite3 v1.14.0\n", "go.sum": ""}) == "1"
    bound = plan_of(
        {"go.mod": MOD + "require github.com/davidbyttow/govips/v2 v2.1.0\n", "go.sum": "", "main.go": MAIN}
    )
    assert ("libvips-dev" in bound.packages, "libvips42" in bound.runtime_packages) == (True, True)


def test_a_program_behind_a_build_tag_is_built_with_it() -> None:
    plan = plan_of({"go.mod": MOD, "main.go": f"//go:build heroku\n\n{MAIN}"})
    assert "-tags heroku" in argv(plan)
    ignored = plan_of({"go.mod": MOD, "main.go": MAIN, "gen/gen.go": f"//go:build ignore\n\n{MAIN}"})
    assert "-tags" not in argv(ignored)
    assert argv(ignored).endswith("-o bin/shop .")


def test_without_modules_it_is_built_in_gopath_style() -> None:
    plan = plan_of({"main.go": MAIN, "vendor/github.com/a/b/b.go": "package b\n", ".godir": "example.com/shop\n"})
    step = plan.steps[0]
    assert step.env["GO111MODULE"] == "off"
    assert ".mini/gopath/src/example.com/shop" in step.argv[2]
    assert processes(plan) == {"web": "bin/shop"}
    assert plan.package_manager == "none"


def test_loose_files_with_dependencies_become_a_module_and_that_is_said() -> None:
    plan = plan_of({"main.go": 'package main\nimport "github.com/a/b"\nfunc main() { b.C() }\n'})
    assert names(plan) == ["make a module", "build"]
    assert any("no go.mod" in warning for warning in plan.warnings)


def test_only_what_the_program_may_read_goes_along() -> None:
    files = {"go.mod": GIN, "go.sum": "", "main.go": MAIN, "templates/a.html": "", "internal/x/x.go": "package x\n",
             "README.md": "", "vendor/modules.txt": "", "internal/x/testdata/a.json": ""}  # fmt: skip
    plan = plan_of(files)
    assert plan.artifacts == ("bin", "templates")
    assert plan.runtime == ""
    assert set(plan.runtime_packages) == {"ca-certificates", "tzdata"}


def test_herokus_hooks_run_around_the_build() -> None:
    files = {"go.mod": MOD, "main.go": MAIN, "bin/go-pre-compile": "", "bin/go-post-compile": ""}
    assert names(plan_of(files)) == ["go-pre-compile", "build", "go-post-compile"]


@pytest.mark.parametrize(
    ("files", "strength"),
    [
        ({"go.mod": MOD, "main.go": MAIN}, Strength.PROJECT),
        ({"go.mod": MOD, "lib.go": "package lib\n"}, Strength.MANIFEST),
        ({"main.go": MAIN}, Strength.LOOSE),
        ({"main.go": MAIN, ".godir": "x\n"}, Strength.MANIFEST),
    ],
)
def test_the_strength_of_an_offer(files: dict[str, str], strength: Strength) -> None:
    source = MemorySource({name: text.encode() for name, text in files.items()})
    offer = GoBuildpack().detect(source, BuildSettings())
    assert offer
    assert offer.strength == strength


def test_a_go_mod_without_a_module_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"go\.mod: no module line"):
        plan_of({"go.mod": "go 1.22\n", "main.go": MAIN})


class TestGoContract(BuildpackContract):
    @pytest.fixture
    def buildpack(self) -> GoBuildpack:
        return GoBuildpack()

    @pytest.fixture
    def recognised(self) -> dict[str, str]:
        return {"go.mod": GIN, "go.sum": "", "cmd/web/main.go": MAIN, "cmd/job/main.go": MAIN, "static/a.css": ""}


def test_a_path_to_a_module_that_go_work_uses_is_built_from_the_root() -> None:
    files = {"go.work": "go 1.24\nuse (\n ./api\n ./web\n)\n", "api/go.mod": "module m/api\n", "api/main.go": MAIN,
             "web/go.mod": "module m/web\n", "web/main.go": MAIN}  # fmt: skip
    source = MemorySource({name: text.encode() for name, text in files.items()})
    planned = make_plan(source, [GoBuildpack()], path="api")
    assert planned.plan.path == "."
    assert processes(planned.plan) == {"web": "bin/api"}
