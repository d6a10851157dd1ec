"""Tools that build a site of plain files: single-page apps and generators of static sites."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from mini_buildpacks.node.app import App, Outcome, folder_of, quoted
from mini_buildpacks.node.package import table
from mini_buildpacks.node.rules import Rule, site


def _expo(app: App) -> Outcome | None:
    if not app.dep("expo") or not (app.builds_with("expo", "export") or app.dep("react-native-web")):
        return None
    web = table(app.json("app.json"), "expo", "web")
    fallback = "index.html" if web.get("output", "single") == "single" else ""
    static = site(app, app.build_option("--output-dir") or "dist", fallback=fallback, immutable=("_expo/static/",))
    build = app.manager.exec("expo", "export", "--platform", "web")
    return Outcome(framework="expo", title="Expo (web)", static=static, build=build)


def _vitepress(app: App) -> Outcome | None:
    for name, title in (("vitepress", "VitePress"), ("vuepress", "VuePress")):
        argv = next((item for item in app.build_commands() if item[:2] == [name, "build"]), None)
        if argv is None and not app.dep(name):
            continue
        given = [word for word in (argv or [])[2:] if not word.startswith("-")]
        source = given[0] if given else ("docs" if app.has(f"docs/.{name}") or app.has("docs") else ".")
        root = app.build_option("--outDir", "--dest", "-d") or f"{source}/.{name}/dist"
        static = site(app, root, immutable=("assets/",))
        return Outcome(framework=name, title=title, static=static, build=app.manager.exec(name, "build", source))
    return None


def _vite(app: App) -> Outcome | None:
    if not app.dep("vite", "rolldown-vite") and not app.builds_with("vite", "build"):
        return None
    if not app.builds_with("vite", "build") and not app.has("index.html") and not app.config("vite.config"):
        return None
    config = app.config("vite.config")
    if re.search(r"\blib\s*:\s*\{", config) or app.builds_with("vite", "build", "--ssr"):
        return None  # a library, or a server of the app's own
    root = folder_of(config, "root")
    given = app.build_option("--outDir")
    out = posixpath.join(root, given) if given else folder_of(config, "outDir", root) or posixpath.join(root, "dist")
    assets = quoted(config, "assetsDir") or "assets"
    own_404 = app.has("public/404.html") or (bool(root) and app.has(f"{root}/public/404.html"))
    static = site(app, out, fallback="" if own_404 else "index.html", immutable=(f"{assets}/",))
    return Outcome(framework="vite", title="Vite", static=static, build=app.manager.exec("vite", "build"))


def _react_scripts(app: App) -> Outcome | None:
    if not app.dep("react-scripts", "react-app-rewired", "@craco/craco"):
        return None
    found = re.search(r"(?m)\bBUILD_PATH=['\"]?([^\s'\"]+)", app.text(".env") + "\n" + app.build_line)
    static = site(app, found[1] if found else "build", fallback="index.html", immutable=("static/",))
    build = app.manager.exec("react-scripts", "build")
    return Outcome(framework="cra", title="Create React App", static=static, build=build)


def _vue_cli(app: App) -> Outcome | None:
    if not app.dep("@vue/cli-service"):
        return None
    root = app.build_option("--dest") or folder_of(app.config("vue.config"), "outputDir") or "dist"
    static = site(app, root, fallback="index.html", immutable=("js/", "css/"))
    return Outcome(
        framework="vue-cli", title="Vue CLI", static=static, build=app.manager.exec("vue-cli-service", "build")
    )


def _eleventy(app: App) -> Outcome | None:
    if not app.dep("@11ty/eleventy"):
        return None
    config = app.config("eleventy.config", ".eleventy")
    root = app.build_option("--output") or quoted(re.sub(r"(?s).*\bdir\s*:", "", config), "output") or "_site"
    return Outcome(framework="eleventy", title="Eleventy", static=site(app, root), build=app.manager.exec("eleventy"))


def _stencil(app: App) -> Outcome | None:
    if not app.dep("@stencil/core"):
        return None
    root = quoted(app.config("stencil.config"), "dir") or "www"
    static = site(app, root, fallback="index.html")
    return Outcome(framework="stencil", title="Stencil", static=static, build=app.manager.exec("stencil", "build"))


def _parcel(app: App) -> Outcome | None:
    if not app.dep("parcel", "parcel-bundler"):
        return None
    root = app.build_option("--dist-dir", "-d", "--out-dir") or "dist"
    entry = next((name for name in ("index.html", "src/index.html") if app.has(name)), "")
    build = app.manager.exec("parcel", "build", entry) if entry else ()
    return Outcome(framework="parcel", title="Parcel", static=site(app, root), build=build)


def _storybook(app: App) -> Outcome | None:
    """A component library's pages, where the build script makes them: most apps have it for development only."""
    if not app.builds_with("storybook", "build") and not app.builds_with("build-storybook"):
        return None
    root = app.build_option("--output-dir", "-o") or "storybook-static"
    return Outcome(framework="storybook", title="Storybook", static=site(app, root))


def _webpack(app: App) -> Outcome | None:
    """A bundler with a page: without an index.html there is nothing to serve, and a library says nothing."""
    for name, title in (("webpack", "webpack"), ("@rspack/core", "Rspack"), ("@rsbuild/core", "Rsbuild")):
        program = name.rpartition("/")[2] if name == "webpack" else title.lower()
        if not app.dep(name) or not (app.builds_with(program) or app.builds_with("webpack-cli")):
            continue
        page = app.has("public/index.html") or app.has("src/index.html") or app.has("index.html")
        if not page and not app.dep("html-webpack-plugin") and name != "@rsbuild/core":
            continue
        root = folder_of(app.config("webpack.config"), "path") or "dist"
        return Outcome(framework=program, title=title, static=site(app, root, fallback="index.html"))
    return None


def _simple(
    package: str, title: str, root: str, *build: str, fallback: str = "", immutable: tuple[str, ...] = ()
) -> Rule:
    """A tool whose output folder is the same everywhere."""

    def rule(app: App) -> Outcome | None:
        if not app.dep(package):
            return None
        static = site(app, root, fallback=fallback, immutable=immutable)
        return Outcome(framework=title.lower(), title=title, static=static, build=app.manager.exec(*build))

    return rule


SITES: tuple[Callable[[App], Outcome | None], ...] = (
    _expo,
    _simple("gatsby", "Gatsby", "public", "gatsby", "build"),
    _simple("@docusaurus/core", "Docusaurus", "build", "docusaurus", "build", immutable=("assets/",)),
    _vitepress,
    _eleventy,
    _simple("hexo", "Hexo", "public", "hexo", "generate"),
    _stencil,
    _vue_cli,
    _react_scripts,
    _simple("preact-cli", "Preact", "build", "preact", "build", fallback="index.html"),
    _simple("gridsome", "Gridsome", "dist", "gridsome", "build"),
    _simple("rspress", "Rspress", "doc_build", "rspress", "build"),
    _simple("vocs", "Vocs", "docs/dist", "vocs", "build"),
    _simple("brunch", "Brunch", "public", "brunch", "build", "--production"),
    _simple("ember-cli", "Ember", "dist", "ember", "build", "--environment=production", fallback="index.html"),
    _simple("@slidev/cli", "Slidev", "dist", "slidev", "build", fallback="index.html"),
    _simple("umi", "Umi", "dist", "umi", "build", fallback="index.html"),
    _simple("@umijs/max", "Umi", "dist", "max", "build", fallback="index.html"),
    _simple("polymer-cli", "Polymer", "build/default", "polymer", "build", fallback="index.html"),
    _simple("snowpack", "Snowpack", "build", "snowpack", "build", fallback="index.html"),
    _simple("@dojo/framework", "Dojo", "output/dist", "dojo", "build", "--mode", "dist", fallback="index.html"),
    _simple("saber", "Saber", "public", "saber", "build"),
    _storybook,
    _vite,
    _parcel,
    _webpack,
)
