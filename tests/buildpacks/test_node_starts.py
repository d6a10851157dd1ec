# ruff: noqa: E501  (a table reads best with a row a line)
"""How Node apps are built and started: scripts, frameworks, sites, files."""

from __future__ import annotations

import json

import pytest

from mini_buildpacks.node import NodeBuildpack
from mini_core.errors import ConfigError, PlanError
from mini_core.planning import make_plan
from mini_core.sources import MemorySource
from mini_core.testing import BuildpackContract
from mini_core.types import BuildSettings, Strength
from tests.buildpacks.node_apps import package, plan_of, started, step


def deps(*names: str, **versions: str) -> dict[str, str]:
    return {**dict.fromkeys(names, "*"), **versions}


ANGULAR = {
    "version": 1,
    "projects": {
        "shop": {
            "projectType": "application",
            "architect": {"build": {"builder": "@angular/build:application", "options": {"outputPath": "dist/shop"}}},
        }
    },
}


def angular(**options: object) -> dict[str, str]:
    text = json.loads(json.dumps(ANGULAR))
    text["projects"]["shop"]["architect"]["build"]["options"] |= options
    return {"angular.json": json.dumps(text)}


EXPORTED = "const app = make()\nexport default app\n"
SRVX = 'exec srvx serve --prod --host "${HOST:-0.0.0.0}" --port "$PORT" --entry '


@pytest.mark.parametrize(
    ("files", "dependencies", "scripts", "framework", "expected"),
    [
        # servers
        ({}, ["next"], {"build": "next build", "start": "next start"}, "next", "npm run start"),
        ({}, ["next"], {"build": "next build"}, "next", 'exec next start -H "${HOST:-0.0.0.0}"'),
        (
            {"next.config.mjs": "export default { output: 'standalone' }"}, ["next"],
            {"build": "next build", "start": "next start"}, "next",
            'HOSTNAME="${HOST:-0.0.0.0}" exec node .next/standalone/server.js',
        ),
        ({"nuxt.config.ts": ""}, ["nuxt"], {"build": "nuxt build"}, "nuxt", "node .output/server/index.mjs"),
        ({}, ["@remix-run/dev", "@remix-run/serve"], {"build": "remix build"}, "remix", "exec remix-serve ./build/index.js"),
        (
            {"react-router.config.ts": "export default { ssr: true }"}, ["@react-router/dev", "@react-router/serve"],
            {"build": "react-router build"}, "react-router", "exec react-router-serve ./build/server/index.js",
        ),
        (
            {"svelte.config.js": "import adapter from '@sveltejs/adapter-node'"}, ["@sveltejs/kit", "vite"],
            {"build": "vite build"}, "sveltekit", "node build",
        ),
        (
            {"astro.config.mjs": "export default defineConfig({ output: 'server', adapter: node({mode:'standalone'}) }) // @astrojs/node"},
            ["astro"], {"build": "astro build"}, "astro", "node dist/server/entry.mjs",
        ),
        (angular(ssr={"entry": "server.ts"}), ["@angular/core"], {"start": "ng serve", "build": "ng build"}, "angular",
         "node dist/shop/server/server.mjs"),
        ({}, ["@nestjs/core"], {"build": "nest build", "start": "nest start"}, "nest", "node dist/main.js"),
        ({}, ["@nestjs/core"], {"start": "nest start", "start:prod": "node dist/main"}, "nest", "npm run start:prod"),
        ({}, ["nitropack"], {"build": "nitro build"}, "nitro", "node .output/server/index.mjs"),
        ({}, ["@tanstack/react-start", "nitro", "vite"], {"build": "vite build"}, "tanstack-start",
         "exec srvx serve --prod --static ../client --entry dist/server/server.js"),
        ({}, ["express"], {"start": "node server.js"}, "express", "npm run start"),
        # sites
        ({"next.config.js": "module.exports = { output: 'export' }"}, ["next"], {"start": "next start"}, "next", "static out"),
        ({"index.html": ""}, ["vite"], {"build": "vite build", "start": "vite"}, "vite", "static dist fallback index.html"),
        ({"index.html": "", "public/404.html": ""}, ["vite"], {"build": "vite build"}, "vite", "static dist"),
        (
            {"vite.config.ts": "export default { resolve: {}, build: { outDir: 'public/built' } } // outDir: 'no'"},
            ["vite"], {"build": "vite build"}, "vite", "static public/built fallback index.html",
        ),
        (
            {"vite.config.js": "root: path.resolve(__dirname, 'client'), build: { outDir: path.resolve(__dirname, 'a', 'b') }"},
            ["vite"], {"build": "vite build"}, "vite", "static a/b fallback index.html",
        ),
        ({"index.html": ""}, ["vite"], {"build": "vite build --outDir=www"}, "vite", "static www fallback index.html"),
        ({}, ["react-scripts"], {"start": "react-scripts start", "build": "react-scripts build"}, "cra",
         "static build fallback index.html"),
        ({"vue.config.js": "module.exports = { outputDir: 'site' }"}, ["@vue/cli-service"],
         {"build": "vue-cli-service build"}, "vue-cli", "static site fallback index.html"),
        (angular(), ["@angular/core"], {"start": "ng serve", "build": "ng build"}, "angular",
         "static dist/shop/browser fallback index.html"),
        ({}, ["astro"], {"build": "astro build", "start": "astro dev"}, "astro", "static dist"),
        ({}, ["gatsby"], {"start": "gatsby develop"}, "gatsby", "static public"),
        ({}, ["storybook"], {"build": "storybook build"}, "storybook", "static storybook-static"),
        ({"index.html": ""}, ["storybook", "vite"], {"build": "vite build"}, "vite", "static dist fallback index.html"),
        ({}, ["@dojo/framework"], {"build": "dojo build --mode dist"}, "dojo", "static output/dist fallback index.html"),
        ({".eleventy.js": "return { dir: { input: 'src', output: 'www' } }"}, ["@11ty/eleventy"], {}, "eleventy", "static www"),
        ({}, ["@docusaurus/core"], {"start": "docusaurus start", "build": "docusaurus build"}, "docusaurus", "static build"),
        ({}, ["vitepress"], {"build": "vitepress build docs"}, "vitepress", "static docs/.vitepress/dist"),
        ({}, ["parcel"], {"start": "parcel index.html", "build": "parcel build index.html"}, "parcel", "static dist"),
        (
            {"react-router.config.ts": "export default { ssr: false }"}, ["@react-router/dev"],
            {"build": "react-router build"}, "react-router", "static build/client fallback index.html",
        ),
        (
            {"react-router.config.ts": "ssr: false"}, ["@react-router/dev", "@react-router/serve"],
            {"build": "react-router build", "start": "react-router-serve ./build/server/index.js"}, "react-router",
            "static build/client fallback index.html",
        ),
        ({"svelte.config.js": "import a from '@sveltejs/adapter-static'; adapter: a({ pages: 'out', fallback: '200.html' })"},
         ["@sveltejs/kit"], {"build": "vite build"}, "sveltekit", "static out fallback 200.html"),
        ({}, ["nuxt"], {"build": "nuxt generate"}, "nuxt", "static .output/public fallback 200.html"),
        ({}, ["expo", "react-native-web"], {"start": "expo start", "build": "expo export -p web"}, "expo",
         "static dist fallback index.html"),
        # what only exports a handler is served by srvx, unless Bun does
        ({"src/index.ts": EXPORTED}, ["hono"], {"start": "vercel dev"}, "hono", SRVX + "src/index.ts"),
        ({"index.js": EXPORTED}, ["h3"], {}, "h3", SRVX + "index.js"),
        ({"src/index.ts": EXPORTED, "bun.lock": ""}, ["hono"], {}, "hono", "bun src/index.ts"),
        ({"src/index.ts": EXPORTED + "serve(app)"}, ["hono"], {}, "hono", "node src/index.ts"),
        ({"src/index.ts": EXPORTED}, ["hono"], {"start": "node s.js"}, "hono", "npm run start"),
        # a start script that serves wins over a site
        ({"index.html": ""}, ["vite", "express"], {"build": "vite build", "start": "node server.js"}, "vite", "npm run start"),
        ({}, ["react-scripts", "serve"], {"build": "react-scripts build", "start": "serve -s build"}, "cra", "npm run start"),
    ],
)  # fmt: skip
def test_frameworks(
    files: dict[str, str], dependencies: list[str], scripts: dict[str, str], framework: str, expected: str
) -> None:
    plan = plan_of({"package-lock.json": "{}", **files}, dependencies=deps(*dependencies), scripts=scripts)
    assert plan.framework == framework
    assert started(plan) == expected


@pytest.mark.parametrize(
    ("files", "entries", "expected"),
    [
        ({"server.js": ""}, {}, "node server.js"),
        ({"index.js": "", "app.js": ""}, {}, "node index.js"),
        ({"lib/main.js": ""}, {"main": "lib/main.js"}, "node lib/main.js"),
        ({"lib/main.js": ""}, {"main": "./lib/main"}, "node lib/main.js"),
        ({"bin/www": ""}, {}, "node bin/www"),
        ({"src/index.ts": "", "tsconfig.json": '{"compilerOptions": {"outDir": "./dist"}} // c'},
         {"scripts": {"build": "tsc"}}, "node dist/index.js"),
        ({"server.ts": "", "tsconfig.json": "{}"}, {"scripts": {"build": "tsc -p ."}}, "node server.js"),
        ({"src/index.ts": ""}, {"devDependencies": {"tsx": "4"}}, "tsx src/index.ts"),
        ({"index.ts": ""}, {}, "node index.ts"),
        ({"src/a.ts": ""}, {"main": "dist/a.js", "scripts": {"build": "tsc"}}, "node dist/a.js"),
        ({}, {"main": "dist/a.js"}, ""),
        ({"index.ts": "", "bun.lock": "{}"}, {"module": "index.ts"}, "bun index.ts"),
        ({"server.js": ""}, {"scripts": {"start": "nodemon server.js"}}, "npm run start"),
        ({"lib/api.js": "", "ecosystem.config.js": "apps: [{ script: './lib/api.js' }]"}, {}, "node lib/api.js"),
        ({"api/run.js": "", "process.json": '{"apps": [{"script": "api/run.js"}]}'}, {}, "node api/run.js"),
        ({"a.js": "", "railway.json": '{"deploy": {"startCommand": "node a.js"}}'}, {}, "node a.js"),
        ({"app.yaml": "runtime: nodejs22\nentrypoint: node b.js\n"}, {"scripts": {"start": "node a"}}, "node b.js"),
        ({}, {"scripts": {"start": "nodemon a.js", "start:prod": "node a.js"}}, "npm run start:prod"),
        ({}, {"scripts": {"start": "npm run serve", "serve": "vite preview"}}, "npm run start"),
    ],
)  # fmt: skip
def test_without_a_framework_a_file_is_started(
    files: dict[str, str], entries: dict[str, object], expected: str
) -> None:
    assert started(plan_of(files, **entries)) == expected


def test_a_start_script_for_development_is_said_to_be_one() -> None:
    plan = plan_of(scripts={"start": "webpack-dev-server --hot"})
    assert any("development server" in warning for warning in plan.warnings)
    assert any("watcher" in warning for warning in plan_of(scripts={"start": "nodemon a.js"}).warnings)


def test_the_standalone_server_gets_its_static_files_beside_it() -> None:
    files = {"next.config.js": "output: 'standalone'", "public/a.png": ""}
    last = plan_of(files, dependencies={"next": "15"}).steps[-1]
    assert "cp -r .next/static .next/standalone/.next/" in last.argv[2]
    assert "cp -r public .next/standalone/" in last.argv[2]


def test_a_site_takes_nothing_but_its_files_along() -> None:
    plan = plan_of({"index.html": ""}, dependencies={"vite": "5"}, scripts={"build": "vite build"})
    assert (plan.artifacts, plan.runtime, plan.processes) == (("dist",), "", ())
    assert plan.static
    assert plan.static.immutable == ("assets/",)


def test_a_site_that_is_built_outside_of_what_is_deployed_is_refused() -> None:
    with pytest.raises(PlanError, match=r"writes to \.\./backend/public, outside"):
        plan_of(
            {"vite.config.js": "outDir: '../backend/public'"},
            dependencies={"vite": "5"},
            scripts={"build": "vite build"},
        )


def test_next_keeps_its_build_cache() -> None:
    plan = plan_of(dependencies={"next": "15"}, scripts={"build": "next build"})
    assert [cache.path for cache in step(plan, "build").caches] == [".next/cache"]


def test_ci_is_never_set_for_it_turns_warnings_into_errors() -> None:
    plan = plan_of(dependencies={"react-scripts": "5"}, scripts={"build": "react-scripts build"})
    assert not any("CI" in item.env for item in plan.steps)


# --- workspaces


def workspace(*members: str, **root: object) -> dict[str, str]:
    """A root with apps and packages; members are "FOLDER:DEPENDENCY,…"."""
    files = {
        "package.json": package(private=True, workspaces=["apps/*", "packages/*"], **root),
        "package-lock.json": "{}",
    }
    for member in members:
        folder, _, names = member.partition(":")
        needs = dict.fromkeys(filter(None, names.split(",")), "*")
        scripts = {"build": "next build", "start": "next start"} if "next" in needs else {"build": "tsc"}
        name = folder.rpartition("/")[2]
        files[f"{folder}/package.json"] = package(name=name, main="index.js", scripts=scripts, dependencies=needs)
        files[f"{folder}/index.js"] = ""
    return files


def test_the_likeliest_app_of_a_workspace_is_taken_and_the_others_are_named() -> None:
    plan = plan_of(workspace("apps/docs:next", "apps/web:next,ui", "packages/ui"))
    assert started(plan) == "npm run start --workspace apps/web"
    assert any("apps/web taken. The others: apps/docs" in warning for warning in plan.warnings)


def test_what_the_app_needs_of_the_workspace_is_built_before_it() -> None:
    plan = plan_of(workspace("apps/web:next,ui", "packages/ui:core", "packages/core", "packages/other"))
    assert [item.name for item in plan.steps] == ["install dependencies", "build core", "build ui", "build"]


def test_turborepo_builds_the_app_and_what_it_needs() -> None:
    files = workspace("apps/web:next", "apps/docs:next", scripts={"build": "turbo run build"})
    plan = plan_of({**files, "turbo.json": "{}"})
    assert step(plan, "build").argv == ("turbo", "run", "build", "--filter=web")
    without = plan_of(files)  # the script cannot work then
    assert step(without, "build").argv == ("npm", "run", "build", "--workspace", "apps/web")


def test_a_root_with_a_file_of_its_own_to_run_is_the_app() -> None:
    files = workspace("packages/a", module="index.ts")
    files.pop("package-lock.json")
    assert started(plan_of({**files, "bun.lock": "{}", "index.ts": ""})) == "bun index.ts"


def test_an_app_can_be_asked_for() -> None:
    files = workspace("apps/web:next", "apps/docs:next")
    assert started(plan_of(files, {"APP": "apps/docs"})) == "npm run start --workspace apps/docs"
    assert started(plan_of(files, {"NIXPACKS_TURBO_APP_NAME": "docs"})) == "npm run start --workspace apps/docs"


def test_a_root_that_starts_is_the_app_unless_it_starts_all_at_once() -> None:
    assert started(plan_of(workspace("apps/web:next", scripts={"start": "node apps/web"}))) == "npm run start"
    everything = workspace("apps/web:next", scripts={"start": "turbo run start"})
    assert started(plan_of(everything)) == "npm run start --workspace apps/web"


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"pnpm-workspace.yaml": "packages: ['apps/*']\n", "pnpm-lock.yaml": "lockfileVersion: '9.0'\n"},
         "pnpm --dir apps/web run start"),
        ({"lerna.json": '{"packages": ["apps/*"]}', "yarn.lock": "# yarn lockfile v1\n"}, "yarn --cwd apps/web run start"),
        ({"bun.lock": "{}"}, "bun run --cwd apps/web start"),
    ],
)  # fmt: skip
def test_every_manager_has_its_way_to_start_a_member(files: dict[str, str], command: str) -> None:
    every = workspace("apps/web:next")
    every.pop("package-lock.json")
    if "bun.lock" not in files:
        every["package.json"] = package(private=True)
    assert started(plan_of({**every, **files})) == command


# --- evidence


@pytest.mark.parametrize(
    ("files", "strength"),
    [
        ({"package.json": package(scripts={"start": "node a"})}, Strength.PROJECT),
        ({"package.json": package(), "package-lock.json": "{}", "server.js": ""}, Strength.PROJECT),
        ({"package.json": package(), "package-lock.json": "{}"}, Strength.MANIFEST),
        ({"package.json": "{}"}, Strength.MANIFEST),
        ({"server.js": ""}, Strength.LOOSE),
        ({"index.html": "", "app.js": "const http = require('http')"}, Strength.LOOSE),
    ],
)
def test_the_strength_of_an_offer(files: dict[str, str], strength: Strength) -> None:
    source = MemorySource({name: text.encode() for name, text in files.items()})
    offer = NodeBuildpack().detect(source, BuildSettings())
    assert offer
    assert offer.strength == strength


def test_the_assets_of_an_app_in_another_language_are_no_site() -> None:
    files = {
        "composer.json": b"{}",
        "package.json": package(devDependencies={"vite": "5"}).encode(),
        "vite.config.js": b"1",
    }
    assert NodeBuildpack().detect(MemorySource(files), BuildSettings()) is None
    assert NodeBuildpack().detect(MemorySource(files), BuildSettings(buildpack="node")) is not None


def test_scripts_of_a_page_are_no_app() -> None:
    source = MemorySource({"index.html": b"", "app.js": b"document.title = 'hi'"})
    assert NodeBuildpack().detect(source, BuildSettings()) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "a",\n "scripts": {,}}', "package.json: not valid JSON: line 2, column 14"),
        ("[]", "package.json: expected an object, got list"),
    ],
)
def test_a_broken_manifest_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of({"package.json": text})
    assert message in caught.value.message


class TestNodeContract(BuildpackContract):
    @pytest.fixture
    def buildpack(self) -> NodeBuildpack:
        return NodeBuildpack()

    @pytest.fixture
    def recognised(self) -> dict[str, str]:
        return {**workspace("apps/web:next,ui", "packages/ui"), "apps/web/next.config.js": "output: 'export'"}


def test_a_path_to_a_workspaces_member_is_built_from_the_root_and_started_there() -> None:
    files = workspace("apps/web:next", "apps/docs:next,ui", "packages/ui")
    source = MemorySource(
        {name: text.encode() for name, text in {**files, "apps/docs/Procfile": "job: node job.js"}.items()}
    )
    planned = make_plan(source, [NodeBuildpack()], path="apps/docs")
    assert planned.plan.path == "."
    assert "package-lock.json" in planned.plan.steps[0].files
    assert [item.name for item in planned.plan.steps] == ["install dependencies", "build ui", "build"]
    assert planned.plan.process("job").command == ("sh", "-c", "cd apps/docs && node job.js")  # type: ignore[union-attr]


def test_a_path_to_a_package_of_its_own_is_deployed_alone() -> None:
    source = MemorySource({"api/package.json": package(scripts={"start": "node a"}).encode(), "package.json": b"{}"})
    planned = make_plan(source, [NodeBuildpack()], path="api")
    assert planned.plan.path == "api"
