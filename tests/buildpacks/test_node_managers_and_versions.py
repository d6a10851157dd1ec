"""Which package manager and which Node an app gets, by the files that say so."""

from __future__ import annotations

import pytest

from mini_buildpacks.node import NodeBuildpack
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings
from tests.buildpacks.node_apps import install, plan_of, step

PNPM = "lockfileVersion: '{}'\n"
BERRY = "__metadata:\n  version: {}\n  cacheKey: 8\n"
CLASSIC = "# yarn lockfile v1\n"


@pytest.mark.parametrize(
    ("files", "entries", "label", "tool", "command"),
    [
        ({}, {}, "npm", "", "npm install"),
        ({"package-lock.json": "{}"}, {}, "npm", "", "npm ci"),
        ({"npm-shrinkwrap.json": "{}"}, {}, "npm", "", "npm ci"),
        ({"package-lock.json": "{}"}, {"packageManager": "npm@10.9.2"}, "npm@10.9.2", "npm@10.9.2", "npm ci"),
        ({}, {"engines": {"npm": "10.x"}}, "npm@10.x", "npm@10.x", "npm install"),
        ({}, {"engines": {"npm": ">=9"}}, "npm@>=9", "", "npm install"),
        ({"pnpm-lock.yaml": PNPM.format("5.3")}, {}, "pnpm", "pnpm@7", "pnpm install --frozen-lockfile"),
        ({"pnpm-lock.yaml": PNPM.format("5.4")}, {}, "pnpm", "pnpm@7", "pnpm install --frozen-lockfile"),
        ({"pnpm-lock.yaml": PNPM.format("6.0")}, {}, "pnpm", "pnpm@8", "pnpm install --frozen-lockfile"),
        ({"pnpm-lock.yaml": PNPM.format("9.0")}, {}, "pnpm", "pnpm@9", "pnpm install --frozen-lockfile"),
        (
            {"pnpm-lock.yaml": PNPM.format("9.0"), "pnpm-workspace.yaml": "onlyBuiltDependencies: [esbuild]\n"},
            {}, "pnpm", "pnpm@10", "pnpm install --frozen-lockfile",
        ),
        (
            {"pnpm-lock.yaml": PNPM.format("9.0")}, {"packageManager": "pnpm@9.9.0+sha512.abc"},
            "pnpm@9.9.0", "pnpm@9.9.0", "pnpm install --frozen-lockfile",
        ),
        ({}, {"packageManager": "pnpm@10.1.0"}, "pnpm@10.1.0", "pnpm@10.1.0", "pnpm install --no-frozen-lockfile"),
        ({"yarn.lock": CLASSIC}, {}, "yarn", "yarn@1.22.22", "yarn install --frozen-lockfile"),
        ({"yarn.lock": CLASSIC}, {"engines": {"yarn": "1.22.5"}}, "yarn@1.22.5", "yarn@1.22.5", "yarn install"),
        ({"yarn.lock": CLASSIC}, {"engines": {"yarn": ">=1 <2"}}, "yarn@>=1 <2", "yarn@>=1 <2", "yarn install"),
        ({"yarn.lock": BERRY.format(8)}, {}, "yarn", "@yarnpkg/cli-dist@4.x", "yarn install --immutable"),
        ({"yarn.lock": BERRY.format(6)}, {}, "yarn", "@yarnpkg/cli-dist@3.x", "yarn install --immutable"),
        ({"yarn.lock": BERRY.format(4)}, {"engines": {"yarn": "2.4.3"}}, "yarn@2.4.3", "yarn@2.4.3", "yarn install"),
        (
            {"yarn.lock": BERRY.format(6), ".yarnrc.yml": "yarnPath: .yarn/releases/yarn-3.2.4.cjs\n",
             ".yarn/releases/yarn-3.2.4.cjs": ""},
            {"packageManager": "yarn@3.2.4"}, "yarn@3.2.4", "yarn@1.22.22", "yarn install --immutable",
        ),
        ({".yarnrc.yml": "nodeLinker: node-modules\n"}, {}, "yarn", "@yarnpkg/cli-dist@4.x", "yarn install"),
        ({"bun.lockb": ""}, {}, "bun", "bun@1", "bun install --frozen-lockfile"),
        ({"bun.lock": "{}"}, {}, "bun", "bun@1", "bun install --frozen-lockfile"),
        ({}, {"engines": {"bun": "1.1.0"}}, "bun@1.1.0", "bun@1.1.0", "bun install"),
        ({"mise.toml": '[tools]\npnpm = "9.5.0"\n'}, {}, "pnpm@9.5.0", "pnpm@9.5.0", "pnpm install"),
        ({}, {"volta": {"yarn": "1.22.19"}}, "yarn@1.22.19", "yarn@1.22.19", "yarn install"),
    ],
)  # fmt: skip
def test_the_manager_comes_from_the_strongest_sign(
    files: dict[str, str], entries: dict[str, object], label: str, tool: str, command: str
) -> None:
    plan = plan_of(files, **entries)
    assert plan.package_manager == label
    tools = [item.argv[-1] for item in plan.steps if item.argv[:3] == ("npm", "install", "--global")]
    assert tools == ([tool] if tool else [])
    assert " ".join(install(plan).argv).startswith(command)


def test_an_old_node_gets_the_pnpm_that_works_with_it() -> None:
    plan = plan_of({"pnpm-lock.yaml": PNPM.format("5.3")}, engines={"node": "16.x"})
    assert step(plan, "install pnpm@6")


def test_package_json5_is_pnpms() -> None:
    source = MemorySource({"package.json5": b"{name: 'app', scripts: {start: 'node a.js'}, /* why not */}"})
    offer = NodeBuildpack().detect(source, BuildSettings())
    assert offer
    assert offer.plan.package_manager == "pnpm"
    assert install(offer.plan).files == ("package.json5",)
    assert all("package.json" not in item.files for item in offer.plan.steps)


def test_several_locks_are_settled_by_engines_and_named() -> None:
    both = {"yarn.lock": CLASSIC, "pnpm-lock.yaml": PNPM.format("9.0")}
    assert plan_of(both).package_manager == "pnpm"
    chosen = plan_of(both, engines={"yarn": "1.x"})
    assert chosen.package_manager == "yarn@1.x"
    assert any("pnpm-lock.yaml" in warning for warning in chosen.warnings)


def test_a_lock_of_yarn_2_wins_over_engines_that_ask_for_yarn_1_and_says_so() -> None:
    plan = plan_of({"yarn.lock": BERRY.format(4)}, engines={"yarn": "1.x"})
    assert step(plan, "install @yarnpkg/cli-dist@2.4.x")
    assert any("Yarn 2 and later" in warning for warning in plan.warnings)


def test_zipped_packages_stay_in_the_app_where_it_finds_them_when_it_runs() -> None:
    plan = plan_of({"yarn.lock": BERRY.format(8), "server.js": ""}, main="server.js")
    assert install(plan).env["YARN_ENABLE_GLOBAL_CACHE"] == "false"
    assert plan.process("web").command == ("yarn", "node", "server.js")  # type: ignore[union-attr]


def test_development_dependencies_are_installed_though_node_env_is_production() -> None:
    assert [(entry.name, entry.value) for entry in plan_of().env] == [("NODE_ENV", "production")]
    assert "--include=dev" in install(plan_of()).argv
    assert "--production=false" in install(plan_of({"yarn.lock": CLASSIC})).argv
    assert "--prod=false" in install(plan_of({"pnpm-lock.yaml": PNPM.format("9.0")})).argv


@pytest.mark.parametrize(
    ("files", "entries", "version", "source"),
    [
        ({}, {}, "24", "default"),
        ({}, {"engines": {"node": "22.x"}}, "22.x", "package.json engines.node"),
        ({".nvmrc": "lts/iron\n"}, {}, "lts/iron", ".nvmrc"),
        ({".node-version": "v22.12.0\n"}, {}, "v22.12.0", ".node-version"),
        ({".tool-versions": "ruby 3.3.0\nnodejs 20.1.0 # ours\n"}, {}, "20.1.0", ".tool-versions"),
        ({"mise.toml": '[tools]\nnode = "20"\n'}, {}, "20", "mise.toml"),
        ({"mise.toml": '[tools.node]\nversion = "22"\n'}, {}, "22", "mise.toml"),
        ({}, {"volta": {"node": "20.11.1"}}, "20.11.1", "package.json volta.node"),
        ({}, {"devEngines": {"runtime": {"name": "node", "version": "^22"}}}, "^22", "package.json devEngines.runtime"),
        ({".nvmrc": "20"}, {"engines": {"node": ">=18"}}, "20", ".nvmrc"),
        ({".nvmrc": "16"}, {"engines": {"node": ">=18"}}, ">=18", "package.json engines.node"),
        ({".nvmrc": "20.11.1"}, {"engines": {"node": "20.x"}}, "20.11.1", ".nvmrc"),
    ],
)
def test_the_version_of_node_names_its_file(
    files: dict[str, str], entries: dict[str, object], version: str, source: str
) -> None:
    toolchain = plan_of(files, **entries).toolchains[0]
    assert (toolchain.name, toolchain.version, toolchain.source) == ("node", version, source)


def test_a_build_variable_wins_over_all_files_also_under_another_platforms_name() -> None:
    assert plan_of({".nvmrc": "20"}, {"NODE_VERSION": "22"}).toolchains[0].version == "22"
    assert plan_of({".nvmrc": "20"}, {"RAILPACK_NODE_VERSION": "22"}).toolchains[0].version == "22"


def test_contradictions_and_nonsense_are_named() -> None:
    assert any("excludes" in text for text in plan_of({".nvmrc": "16"}, engines={"node": ">=18"}).warnings)
    nonsense = plan_of({".nvmrc": "the newest one"})
    assert nonsense.toolchains[0].source == "default"
    assert any(".nvmrc" in text for text in nonsense.warnings)


def test_the_app_that_needs_only_bun_runs_without_node() -> None:
    alone = plan_of({"bun.lock": "{}"}, scripts={"start": "bun index.ts"})
    assert alone.runtime == ""
    assert plan_of({"bun.lock": "{}"}, scripts={"start": "node index.js"}).runtime == "node"


def test_an_empty_lock_file_is_said_to_be_empty() -> None:
    assert "yarn.lock is empty: yarn install makes it anew" in plan_of({"yarn.lock": "\n"}).warnings
    assert not any("empty" in warning for warning in plan_of({"yarn.lock": CLASSIC}).warnings)
