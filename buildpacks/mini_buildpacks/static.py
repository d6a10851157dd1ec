"""Static sites: files that are served as they are, and the generators that Debian has.

Never stronger than loose evidence unless a Staticfile or a generator's own configuration says so, so that an
`index.html` beside an app's manifest does not turn the app into a static site.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from mini_core.errors import ConfigError
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Evidence, Offer, Plan, StaticSite, Step, Strength, Toolchain, replace

FOLDERS = ("public", "dist", "build", "_site", "htdocs", "www", "html", "site", "static")
"""Folders that hold a finished site by convention, in order of preference (Heroku, Vite, CRA, Jekyll, Apache)."""

INDEX = ("index.html", "index.htm")


@dataclass(frozen=True)
class Generator:
    """A site generator: `marks` (file names and a pattern one of them contains), argv to build, where to, and
    Debian's package."""

    name: str
    marks: tuple[tuple[str, str], ...]
    argv: tuple[str, ...]
    output: str
    package: str = ""


GENERATORS = (
    Generator("Hugo", (("hugo.toml", ""), ("hugo.yaml", ""), ("hugo.yml", ""), ("hugo.json", ""),
                       ("config.toml", r"(?i)^\s*baseurl\s*="), ("config.yaml", r"(?i)^baseurl:"),
                       ("config.yml", r"(?i)^baseurl:")),
              ("hugo", "--gc", "--minify"), "public", "hugo"),
    Generator("Jekyll", (("_config.yml", ""), ("_config.yaml", "")), ("jekyll", "build"), "_site", "jekyll"),
    Generator("Zola", (("zola.toml", ""), ("config.toml", r"(?m)^\s*base_url\s*=")), ("zola", "build"), "public"),
)  # fmt: skip


class StaticBuildpack:
    """Serves a folder of files."""

    name = "static"
    description = "an index.html (in the root, public/, dist/, build/, _site/ …), a Staticfile, a Hugo or Jekyll site"

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:  # noqa: ARG002
        return _from_staticfile(source) or _from_generator(source) or _from_index(source)


def _from_staticfile(source: Source) -> Offer | None:
    text = source.text("Staticfile")
    if text is None:
        return None
    options = _staticfile_options(text)
    given = str(options.get("root") or _conventional(source) or ".")
    root = "/".join(part for part in given.split("/") if part not in ("", ".")) or "."
    if ".." in root.split("/") or not source.has(root):
        raise ConfigError(f"Staticfile: root: there is no folder {root}", hint="Name the folder that holds the site.")
    push_state = str(options.get("pushstate", "")).lower() in ("enabled", "true")
    warnings = []
    if source.has("Staticfile.auth"):
        warnings.append("Staticfile.auth is not supported: the site is open to everyone who reaches it")
    plan = _plan(source, root, Evidence(file="Staticfile", detail=f"root: {root}"), fallback=push_state)
    return _offer(Strength.PROJECT, "has a Staticfile", plan, warnings)


def _staticfile_options(text: str) -> dict[str, object]:
    """Cloud Foundry's and nixpacks' Staticfile: YAML, or empty."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" (line {line + 1})"
        raise ConfigError(
            f"Staticfile: not valid YAML{where}", hint="It holds lines such as `root: public`."
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"Staticfile: expected lines such as `root: public`, got {type(data).__name__}")
    return {str(key): item for key, item in data.items()}


def _from_generator(source: Source) -> Offer | None:
    for generator in GENERATORS:
        mark = next(_marks(source, generator), None)
        if mark is None or (generator.name != "Jekyll" and not source.glob("content/**")):
            continue
        if generator.name == "Zola" and not source.has("templates"):
            continue
        if not generator.package and source.has(f"{generator.output}/index.html"):
            return None
        plan = Plan(
            buildpack=StaticBuildpack.name,
            framework=generator.name.lower(),
            toolchains=(Toolchain(name="debian"),),
            summary=(f"{generator.name} → static files",),
            evidence=(mark,),
            steps=(Step(name="build", argv=_command(generator)),),
            artifacts=(generator.output,),
            packages=(generator.package,) if generator.package else (),
            static=StaticSite(root=generator.output),
        )
        return _offer(
            Strength.MANIFEST, f"is a {generator.name} site", plan, [] if generator.package else [_missing(generator)]
        )
    return None


def _missing(generator: Generator) -> str:
    line = shlex.join(generator.argv)
    return (
        f"{generator.name} is not in Debian: run {line} before deploying, with {generator.output}/ not in .gitignore, "
        "or add a Dockerfile"
    )


def _command(generator: Generator) -> tuple[str, ...]:
    """What builds the site; for a generator that Debian lacks, it says so where the machine has none either."""
    if generator.package:
        return generator.argv
    test = f"command -v {generator.argv[0]} >/dev/null || {{ echo '{_missing(generator)}' >&2; exit 127; }}"
    return ("sh", "-c", f"{test}; exec {shlex.join(generator.argv)}")


def _marks(source: Source, generator: Generator) -> Iterator[Evidence]:
    for name, pattern in generator.marks:
        text = source.text(name)
        if text is None:
            continue
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            line = text[: match.start()].count("\n") + 1 if pattern else None
            yield Evidence(file=name, line=line, detail=f"{generator.name}'s configuration")


def _from_index(source: Source) -> Offer | None:
    root = _conventional(source)
    if not root:
        return None
    index = next(name for name in INDEX if source.has(_join(root, name)))
    plan = _plan(source, root, Evidence(file=_join(root, index)), fallback=False)
    return _offer(Strength.LOOSE, f"has {_join(root, index)}", plan, [])


def _conventional(source: Source) -> str:
    """The folder with a finished site, "" where none is. A root index.html that a build would use as its template
    is still a site here: whoever can build it makes a stronger offer."""
    for root in (*FOLDERS, "."):
        if any(source.read(_join(root, name)) is not None for name in INDEX):
            return root
    return ""


def _plan(source: Source, root: str, evidence: Evidence, *, fallback: bool) -> Plan:
    page = "index.html" if fallback or _rewrites_all(source, root) else ""
    if not page and source.has(_join(root, "200.html")):
        page = "200.html"
    return Plan(
        buildpack=StaticBuildpack.name,
        toolchains=(Toolchain(name="static"),),
        summary=("static files" if root == "." else f"static files in {root}/",),
        evidence=(evidence,),
        artifacts=(root,),
        static=StaticSite(root=root, fallback=page),
    )


def _rewrites_all(source: Source, root: str) -> bool:
    """Netlify's `_redirects`: a rule that answers every path with index.html, as single-page apps ask for."""
    text = source.text(_join(root, "_redirects")) or ""
    return bool(re.search(r"(?m)^\s*/\*\s+/(?:index\.html)?\s+200\b", text))


def _offer(strength: Strength, reason: str, plan: Plan, warnings: list[str]) -> Offer:
    return Offer(
        buildpack=StaticBuildpack.name, strength=strength, reason=reason, plan=replace(plan, warnings=tuple(warnings))
    )


def _join(root: str, name: str) -> str:
    return name if root == "." else f"{root}/{name}"
