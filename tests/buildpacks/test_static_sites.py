"""Static sites: which folder is served, and that no app is taken for one."""

from __future__ import annotations

import pytest

from mini_buildpacks.go import GoBuildpack
from mini_buildpacks.node import NodeBuildpack
from mini_buildpacks.python import PythonBuildpack
from mini_buildpacks.static import StaticBuildpack
from mini_core.errors import ConfigError
from mini_core.planning import make_plan
from mini_core.sources import MemorySource
from mini_core.types import BuildSettings, Offer, StaticSite, Strength

PAGE = "<h1>hi</h1>"


def offer_of(files: dict[str, str]) -> Offer | None:
    return StaticBuildpack().detect(MemorySource(files), BuildSettings())


def site_of(files: dict[str, str]) -> StaticSite:
    offer = offer_of(files)
    assert offer is not None and offer.plan.static is not None
    return offer.plan.static


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"index.html": PAGE}, "."),
        ({"index.htm": PAGE}, "."),
        ({"public/index.html": PAGE, "index.html": PAGE}, "public"),
        ({"dist/index.html": PAGE, "src/x.js": ""}, "dist"),
        ({"build/index.html": PAGE}, "build"),
        ({"_site/index.html": PAGE}, "_site"),
        ({"htdocs/index.html": PAGE, "httpd.conf": ""}, "htdocs"),
        ({"Staticfile": "root: site", "site/x.html": PAGE}, "site"),
        ({"Staticfile": "root: ./site/", "site/x.html": PAGE}, "site"),
        ({"Staticfile": "", "public/index.html": PAGE}, "public"),
        ({"Staticfile": "", "a.txt": ""}, "."),
    ],
)
def test_the_folder_that_is_served(files: dict[str, str], root: str) -> None:
    assert site_of(files).root == root


@pytest.mark.parametrize(
    ("files", "fallback"),
    [
        ({"index.html": PAGE}, ""),
        ({"index.html": PAGE, "200.html": PAGE}, "200.html"),
        ({"index.html": PAGE, "_redirects": "/old /new 301\n/*  /index.html  200\n"}, "index.html"),
        ({"index.html": PAGE, "_redirects": "/* /404.html 404\n"}, ""),
        ({"Staticfile": "pushstate: enabled", "index.html": PAGE}, "index.html"),
    ],
)
def test_unknown_paths_get_the_page_only_where_the_site_asks_for_it(files: dict[str, str], fallback: str) -> None:
    assert site_of(files).fallback == fallback


def test_nothing_is_offered_without_a_page() -> None:
    assert offer_of({"README.md": "", "page.html": PAGE}) is None


def test_a_staticfile_is_strong_evidence_and_a_page_is_loose() -> None:
    staticfile, page = offer_of({"Staticfile": "", "index.html": PAGE}), offer_of({"index.html": PAGE})
    assert staticfile is not None and staticfile.strength is Strength.PROJECT
    assert page is not None and page.strength is Strength.LOOSE


@pytest.mark.parametrize(
    ("text", "message"),
    [("root: gone", "Staticfile: root: there is no folder gone"), ("a: [", "Staticfile: not valid YAML (line 1)")],
)
def test_a_wrong_staticfile_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        offer_of({"Staticfile": text, "index.html": PAGE})
    assert caught.value.message == message


def test_passwords_that_would_not_be_asked_for_are_pointed_out() -> None:
    offer = offer_of({"Staticfile": "", "Staticfile.auth": "bob:x", "index.html": PAGE})
    assert offer is not None and "open to everyone" in offer.plan.warnings[0]


@pytest.mark.parametrize(
    ("files", "argv", "root"),
    [
        ({"hugo.toml": "", "content/a.md": ""}, ("hugo", "--gc", "--minify"), "public"),
        ({"config.toml": "\nbaseURL = 'x'", "content/a.md": ""}, ("hugo", "--gc", "--minify"), "public"),
        ({"_config.yml": "", "index.md": ""}, ("jekyll", "build"), "_site"),
    ],
)
def test_a_generator_s_site_is_built(files: dict[str, str], argv: tuple[str, ...], root: str) -> None:
    offer = offer_of(files)
    assert offer is not None and offer.plan.steps[0].argv == argv
    assert offer.plan.static == StaticSite(root=root)
    assert offer.plan.artifacts == (root,)


def test_a_generator_that_debian_lacks_says_so_unless_the_site_is_built_already() -> None:
    files = {"config.toml": "base_url = 'x'", "content/a.md": "", "templates/x.html": ""}
    offer = offer_of(files)
    assert offer is not None and offer.plan.packages == ()
    assert "Zola is not in Debian: run zola build before deploying" in offer.plan.warnings[0]
    assert offer.plan.warnings[0] in offer.plan.steps[0].argv[2]
    built = offer_of({**files, "public/index.html": PAGE})
    assert built is not None and (built.plan.steps, built.plan.static) == ((), StaticSite(root="public"))


@pytest.mark.parametrize(
    ("files", "buildpack"),
    [
        ({"requirements.txt": "flask", "app.py": "from flask import Flask\napp = Flask('x')"}, "python"),
        ({"package.json": '{"scripts": {"start": "node s.js"}}', "s.js": ""}, "node"),
        ({"go.mod": "module x\ngo 1.25", "main.go": "package main\nfunc main() {}"}, "go"),
    ],
)
def test_an_app_with_a_page_is_not_taken_for_a_site(files: dict[str, str], buildpack: str) -> None:
    buildpacks = [StaticBuildpack(), PythonBuildpack(), NodeBuildpack(), GoBuildpack()]
    for page in ("index.html", "public/index.html", "static/index.html", "dist/index.html"):
        assert make_plan(MemorySource({**files, page: PAGE}), buildpacks).plan.buildpack == buildpack
