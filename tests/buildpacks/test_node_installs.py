"""What a dependency install reads: as little as it can, so that a change of code installs nothing anew."""

from __future__ import annotations

import pytest

from tests.buildpacks.node_apps import install, package, plan_of, step

LOCK = {"package-lock.json": "{}"}


def test_it_reads_manifests_locks_and_settings_and_no_code() -> None:
    files = {**LOCK, ".npmrc": "", "server.js": "", "src/a.js": "", "README.md": ""}
    assert install(plan_of(files, scripts={"start": "node server.js"})).files == (
        "package.json", "package-lock.json", ".npmrc",
    )  # fmt: skip


def test_it_reads_what_yarn_carries_in_the_repository() -> None:
    files = {
        "yarn.lock": "__metadata:\n  version: 8\n",
        ".yarnrc.yml": "yarnPath: .yarn/releases/yarn-4.0.0.cjs\n",
        ".yarn/releases/yarn-4.0.0.cjs": "",
        ".yarn/patches/left-pad.patch": "",
        "index.js": "",
    }
    assert set(install(plan_of(files)).files) == {
        "package.json", "yarn.lock", ".yarnrc.yml", ".yarn/releases", ".yarn/patches",
        ".yarn/releases/yarn-4.0.0.cjs",
    }  # fmt: skip


def test_it_reads_the_packages_of_a_workspace_and_folders_that_dependencies_point_to() -> None:
    files = {
        **LOCK,
        "packages/ui/package.json": package(name="ui"),
        "packages/ui/index.js": "",
        "vendor/thing/package.json": package(name="thing"),
        "node_modules/x/package.json": package(name="x"),
    }
    plan = plan_of(files, workspaces=["packages/*"], dependencies={"thing": "file:./vendor/thing"})
    assert set(install(plan).files) == {
        "package.json", "package-lock.json", "packages/ui/package.json", "vendor/thing",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "husky",
        "husky install",
        "echo done",
        "npx only-allow pnpm",
        "is-ci || husky install",
        "node -v",
        "patch-package",
    ],
)
def test_scripts_that_read_no_code_do_not_hold_up_the_install(line: str) -> None:
    files = {**LOCK, "patches/a.patch": "", "index.js": ""}
    plan = plan_of(files, scripts={"prepare": line, "start": "node index.js"})
    assert [item.name for item in plan.steps] == ["install dependencies"]
    assert "." not in install(plan).files
    assert install(plan).files


@pytest.mark.parametrize("name", ["postinstall", "prepare", "install"])
def test_scripts_that_need_the_source_run_after_it_and_the_packages_are_installed_before(name: str) -> None:
    plan = plan_of({**LOCK, "server.ts": ""}, scripts={name: "tsc -p .", "start": "node server.js"})
    assert install(plan).files
    assert f'["{name}"]' in install(plan).argv[2]  # it is taken out for the install
    assert install(plan).argv[2].endswith("mv .mini-package.json package.json")
    assert step(plan, name).argv == ("npm", "run", name)
    assert step(plan, name).files == ()


def test_a_script_before_the_install_that_needs_the_source_makes_the_install_wait_for_it() -> None:
    plan = plan_of(LOCK, scripts={"preinstall": "node scripts/check.js", "start": "node a.js"})
    assert install(plan).files == ()
    assert install(plan).argv[:2] == ("npm", "ci")


def test_scripts_of_a_workspaces_member_make_the_install_wait_for_the_source() -> None:
    files = {**LOCK, "packages/ui/package.json": package(name="ui", scripts={"prepare": "tsc"})}
    assert install(plan_of(files, workspaces=["packages/*"])).files == ()


def test_prisma_gets_its_schema_before_the_install() -> None:
    files = {**LOCK, "prisma/schema.prisma": "", "src/index.ts": ""}
    plan = plan_of(files, scripts={"postinstall": "prisma generate"}, dependencies={"@prisma/client": "5"})
    assert "prisma" in install(plan).files
    assert "openssl" in plan.runtime_packages
    elsewhere = plan_of({**LOCK, "db/x.prisma": ""}, scripts={"postinstall": "prisma generate"})
    assert [item.name for item in elsewhere.steps] == ["install dependencies", "postinstall"]


def test_yarn_2_runs_no_prepare() -> None:
    plan = plan_of({"yarn.lock": "__metadata:\n  version: 8\n"}, scripts={"prepare": "tsc"})
    assert "prepare" not in [item.name for item in plan.steps]


def test_caches_are_named_by_the_managers_own_variables() -> None:
    def variables(files: dict[str, str]) -> list[str]:
        return [cache.variable for cache in install(plan_of(files)).caches]

    assert variables(LOCK) == ["npm_config_cache"]
    assert variables({"yarn.lock": "# yarn lockfile v1\n"}) == ["YARN_CACHE_FOLDER"]
    assert variables({"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}) == ["npm_config_store_dir"]
    assert variables({"bun.lock": "{}"}) == ["BUN_INSTALL_CACHE_DIR"]


def test_heroku_prebuild_runs_before_the_install_and_postbuild_in_place_of_build() -> None:
    plan = plan_of(LOCK, scripts={"heroku-prebuild": "node x.js", "build": "a", "heroku-postbuild": "b"})
    assert [item.name for item in plan.steps] == ["heroku-prebuild", "install dependencies", "heroku-postbuild"]


def test_tools_of_tests_download_no_browsers() -> None:
    env = install(plan_of(LOCK, devDependencies={"cypress": "13", "playwright": "1"})).env
    assert env["CYPRESS_INSTALL_BINARY"] == "0"
    assert env["PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"] == "1"
    assert "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD" not in install(plan_of(LOCK, dependencies={"playwright": "1"})).env


@pytest.mark.parametrize(
    ("entries", "build", "run"),
    [
        ({"dependencies": {"canvas": "2"}}, "libcairo2-dev", "libcairo2"),
        ({"dependencies": {"better-sqlite3": "11"}}, "python3", ""),
        ({"dependencies": {"fluent-ffmpeg": "2"}}, "", "ffmpeg"),
        ({"dependencies": {"a": "github:someone/a"}}, "git", ""),
        ({"dependencies": {"sharp": "0.33"}}, "", ""),
    ],
)
def test_packages_of_the_system_that_dependencies_need(entries: dict[str, object], build: str, run: str) -> None:
    plan = plan_of({"server.js": ""}, main="server.js", **entries)
    assert (build in plan.packages) if build else not plan.packages
    assert (run in plan.runtime_packages) if run else not plan.runtime_packages


def test_the_lock_file_tells_of_what_others_depend_on() -> None:
    lock = '{"packages": {"node_modules/argon2": {"version": "0.40.0"}}}'
    assert "g++" in plan_of({"package-lock.json": lock}).packages
    assert "g++" not in plan_of({"package-lock.json": lock.replace("argon2", "argon2-browser")}).packages


def test_programs_that_scripts_call_and_nothing_brings_are_installed() -> None:
    plan = plan_of({"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}, scripts={"start": "bun index.ts"})
    assert [item.name for item in plan.steps][:2] == ["install bun@1", "install pnpm@9"]
    assert step(plan_of(scripts={"start": "serve -s dist"}), "install serve@14")
    brought = plan_of(scripts={"start": "serve -s dist"}, dependencies={"serve": "14"})
    assert [item.name for item in brought.steps] == ["install dependencies"]


def test_tools_on_webpack_4_get_the_switch_that_lets_them_build_with_openssl_3() -> None:
    scripts = {"build": "react-scripts build"}
    old = plan_of(scripts=scripts, dependencies={"react-scripts": "^4.0.3"})
    assert step(old, "build").env["NODE_OPTIONS"] == "--openssl-legacy-provider"
    assert "NODE_OPTIONS" not in step(plan_of(scripts=scripts, dependencies={"react-scripts": "5"}), "build").env
    on_16 = plan_of(scripts=scripts, dependencies={"react-scripts": "4"}, engines={"node": "16"})
    assert "NODE_OPTIONS" not in step(on_16, "build").env


def test_an_install_inside_of_a_build_script_gets_its_build_tools() -> None:
    def env(build: str, files: dict[str, str] | None = None) -> dict[str, str]:
        return dict(step(plan_of({**LOCK, **(files or {})}, scripts={"build": build}), "build").env)

    assert env("cd client && npm install && npm run build") == {"NPM_CONFIG_INCLUDE": "dev"}
    assert env("npm --prefix client ci") == {"NPM_CONFIG_INCLUDE": "dev"}
    assert env("cd client && yarn && yarn build") == {"YARN_PRODUCTION": "false"}
    assert env("tsc && npm run copy-install-files") == {}


def test_yarn_1_takes_engines_of_dependencies_seriously_only_where_the_app_says_which_node() -> None:
    lock = {"yarn.lock": "# yarn lockfile v1\n"}
    assert "--ignore-engines" in install(plan_of(lock)).argv
    assert "--ignore-engines" not in install(plan_of(lock, engines={"node": "20.x"})).argv


def test_a_vendored_yarn_of_unknown_age_gets_no_setting_that_it_may_not_know() -> None:
    lock = {"yarn.lock": "__metadata:\n  version: 4\n"}
    for name, quiet in (("yarn-berry.cjs", False), ("yarn-3.2.0.cjs", True)):
        vendored = {".yarnrc.yml": f"yarnPath: .yarn/releases/{name}\n", f".yarn/releases/{name}": ""}
        assert ("YARN_ENABLE_TELEMETRY" in install(plan_of({**lock, **vendored})).env) is quiet
