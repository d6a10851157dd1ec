"""Frameworks: what each builds, and how that is served or started.

Every rule is a function from an App to an Outcome, or None where the framework is not in use. Configuration is
read as text and never executed: what is computed there counts as not set. The first rule that knows the app wins,
so frameworks that build upon others come before them (SvelteKit, Astro and Angular before Vite).
"""

from __future__ import annotations

import re

from mini_buildpacks.node.app import App, Outcome, flag, folder_of, quoted
from mini_buildpacks.node.handlers import handler
from mini_buildpacks.node.package import table
from mini_buildpacks.node.rules import Rule, node, shell, site
from mini_buildpacks.node.sites import SITES
from mini_core.types import Cache, EnvEntry, Step

_FORWARDED = (
    EnvEntry(name="PROTOCOL_HEADER", value="x-forwarded-proto", description="SvelteKit: the router's headers count"),
    EnvEntry(name="HOST_HEADER", value="x-forwarded-host", description="SvelteKit: the router's headers count"),
)
_HOST = '"${HOST:-0.0.0.0}"'


def recognise(app: App) -> Outcome | None:
    """The app's framework, as far as it decides how the app is built or started."""
    return next((outcome for rule in (*SERVERS, *SITES, handler) if (outcome := rule(app))), None)


_LIBRARIES = {
    "express": "express", "fastify": "fastify", "koa": "koa", "hono": "hono", "@hapi/hapi": "hapi", "polka": "polka",
    "restify": "restify", "elysia": "elysia", "@adonisjs/core": "adonis", "sails": "sails", "@feathersjs/feathers":
    "feathers", "@loopback/rest": "loopback", "connect": "connect", "h3": "h3", "socket.io": "socket.io",
}  # fmt: skip


def library(app: App) -> str:
    """The library that the app's own server is made with: said to the user, and of no consequence."""
    return next((name for package, name in _LIBRARIES.items() if app.dep(package)), "")


def _next(app: App) -> Outcome | None:
    if not app.dep("next"):
        return None
    config = app.config("next.config")
    caches = (Cache(name="next", path=app.path(".next/cache")),)
    output = quoted(config, "output")
    build = app.manager.exec("next", "build")
    exporting = app.builds_with("next", "export")
    if output == "export" or exporting:
        root = app.build_option("-o", "--outdir") if exporting else quoted(config, "distDir")
        static = site(app, root or "out", immutable=("_next/static/",))
        return Outcome(framework="next", title="Next.js (exported)", static=static, build=build, caches=caches)
    if output == "standalone" and not app.folder:
        folder = quoted(config, "distDir") or ".next"
        return Outcome(
            framework="next", title="Next.js (standalone)", build=build, caches=caches, own_start=True,
            start=("sh", "-c", f'HOSTNAME="${{HOST:-0.0.0.0}}" exec node {folder}/standalone/server.js'),
            after=(_standalone(app, folder),),
        )  # fmt: skip
    start = shell(app, "exec next start -H " + _HOST)
    return Outcome(framework="next", title="Next.js", start=_exec(app, start), build=build, caches=caches)


def _standalone(app: App, folder: str) -> Step:
    """The standalone server leaves its static files to a CDN; without one, it serves what lies beside it."""
    copies = [f"mkdir -p {folder}/standalone/{folder}", f"cp -r {folder}/static {folder}/standalone/{folder}/"]
    if app.has("public"):
        copies.append(f"cp -r public {folder}/standalone/")
    return Step(name="collect static files", argv=("sh", "-c", " && ".join(copies)))


def _exec(app: App, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The same with yarn in front of the program, where packages stay zipped."""
    if not app.manager.pnp:
        return argv
    return (*argv[:-1], argv[-1].replace("exec ", "exec yarn run ", 1))


def _nuxt(app: App) -> Outcome | None:
    if not app.dep("nuxt", "nuxt3", "nuxt-edge", "nuxt-start"):
        return None
    config = app.config("nuxt.config")
    second = (app.major("nuxt") or 3) < 3 and not app.dep("nuxt3")
    generating = any(app.builds_with(name, "generate") for name in ("nuxt", "nuxi"))
    if second and (generating or quoted(config, "target") == "static"):
        root = quoted(re.sub(r"(?s).*\bgenerate\s*:", "", config), "dir") or "dist"
        static = site(app, root, fallback="200.html" if flag(config, "ssr", "false") else "", immutable=("_nuxt/",))
        return Outcome(
            framework="nuxt", title="Nuxt (generated)", static=static, build=app.manager.exec("nuxt", "generate")
        )
    if second:
        start = _exec(app, shell(app, "exec nuxt start"))
        return Outcome(framework="nuxt", title="Nuxt 2", start=start, build=app.manager.exec("nuxt", "build"))
    if generating or quoted(config, "preset") == "static":
        static = site(app, ".output/public", fallback="200.html", immutable=("_nuxt/",))
        return Outcome(framework="nuxt", title="Nuxt (generated)", static=static)
    return Outcome(
        framework="nuxt", title="Nuxt", start=node(app, ".output/server/index.mjs"),
        build=app.manager.exec("nuxt", "build"),
    )  # fmt: skip


def _react_router(app: App) -> Outcome | None:
    """React Router as a framework, and Remix before it."""
    remix = app.dep("@remix-run/dev", "@remix-run/serve")
    if not remix and not app.dep("@react-router/dev"):
        return None
    name, title = ("remix", "Remix") if remix else ("react-router", "React Router")
    config = app.config("vite.config") if remix else app.config("react-router.config")
    build = app.manager.exec(*(["remix", "vite:build"] if remix and config else [name, "build"]))
    folder = quoted(config, "buildDirectory") or "build"
    if flag(config, "ssr", "false"):
        static = site(app, f"{folder}/client", fallback="index.html", immutable=("assets/",))
        return Outcome(framework=name, title=f"{title} (single page)", static=static, build=build)
    server = "remix-serve" if remix else "react-router-serve"
    entry = f"{folder}/server/index.js" if config or not remix else "build/index.js"
    brought = app.dep("@remix-run/serve", "@react-router/serve")
    start = _exec(app, shell(app, f"exec {server} ./{entry}"))
    scope = "@remix-run" if remix else "@react-router"
    tools = () if brought else (_same_version(app, f"{scope}/serve", f"{scope}/dev"),)
    return Outcome(framework=name, title=title, start=start, build=build, tools=tools)


def _same_version(app: App, wanted: str, beside: str) -> str:
    """A package to install in the version that another one of its family is asked for."""
    spec = app.package.dependencies.get(beside, "")
    return f"{wanted}@{spec}" if re.fullmatch(r"[\^~]?\d[\w.-]*", spec) else wanted


def _sveltekit(app: App) -> Outcome | None:
    if not app.dep("@sveltejs/kit"):
        return None
    config = app.config("svelte.config") + app.config("vite.config")
    build = app.manager.exec("vite", "build")
    used = set(re.findall(r"[\"'](?:@[\w-]+/|svelte-)adapter-([\w-]+)[\"']", config))
    if "static" in used:
        root = quoted(config, "pages") or "build"
        static = site(app, root, fallback=quoted(config, "fallback"), immutable=("_app/immutable/",))
        return Outcome(framework="sveltekit", title="SvelteKit (static)", static=static, build=build)
    if "node" in used or ("auto" not in used and app.dep("@sveltejs/adapter-node")):
        start = node(app, quoted(config, "out") or "build")
        return Outcome(framework="sveltekit", title="SvelteKit", start=start, build=build, env=_FORWARDED)
    warning = "SvelteKit has no adapter for servers here: `npm install --save-dev @sveltejs/adapter-node` and name it"
    start = _exec(app, shell(app, f'exec vite preview --host {_HOST} --port "${{PORT:-3000}}"'))
    return Outcome(
        framework="sveltekit", title="SvelteKit (preview server)", start=start, build=build,
        warnings=(f"{warning} in svelte.config.js; until then `vite preview` serves the app",),
    )  # fmt: skip


def _astro(app: App) -> Outcome | None:
    if not app.dep("astro"):
        return None
    config = app.config("astro.config")
    build = app.manager.exec("astro", "build")
    folder = folder_of(config, "outDir") or "dist"
    if quoted(config, "output") in ("server", "hybrid") or re.search(r"\bnode\s*\(\s*\{", config):
        warnings: tuple[str, ...] = ()
        if not re.search(r"@astrojs/node", config):
            warnings = ("Astro renders on the server without @astrojs/node: run `npx astro add node`",)
        start = node(app, f"{folder}/server/entry.mjs")
        return Outcome(framework="astro", title="Astro", start=start, build=build, warnings=warnings)
    static = site(app, folder, immutable=("_astro/",))
    return Outcome(framework="astro", title="Astro (static)", static=static, build=build)


def _tanstack(app: App) -> Outcome | None:
    if not app.dep("@tanstack/react-start", "@tanstack/solid-start", "@tanstack/start"):
        return None
    config = app.config("vite.config") + app.config("app.config")
    if re.search(r"\bspa\s*:\s*\{[^}]*enabled\s*:\s*true", config):
        static = site(app, "dist/client", fallback="_shell.html", immutable=("assets/",))
        return Outcome(framework="tanstack-start", title="TanStack Start (single page)", static=static)
    build = app.manager.exec("vite", "build")
    if re.search(r"nitro", config) or app.dep("vinxi"):
        start = node(app, ".output/server/index.mjs")
        return Outcome(framework="tanstack-start", title="TanStack Start", start=start, build=build)
    line = "exec srvx serve --prod --static ../client --entry dist/server/server.js"
    return Outcome(
        framework="tanstack-start", title="TanStack Start → srvx", start=shell(app, line), build=build,
        tools=("srvx@1",),
    )  # fmt: skip


def _nitro(app: App) -> Outcome | None:
    """Nitro's own apps and what is built on it (SolidStart, Analog)."""
    solid = app.dep("@solidjs/start", "solid-start")
    if not solid and not app.dep("nitro", "nitropack", "@analogjs/platform"):
        return None
    name, title = ("solidstart", "SolidStart") if solid else ("nitro", "Nitro")
    folder = "dist/analog" if app.dep("@analogjs/platform") else ".output"
    build = app.manager.exec("vinxi" if app.dep("vinxi") else "nitro", "build")
    return Outcome(framework=name, title=title, start=node(app, f"{folder}/server/index.mjs"), build=build)


def _angular(app: App) -> Outcome | None:
    """angular.json names where each project is built to; server rendering is an option of the build."""
    if not app.dep("@angular/core") or not app.has("angular.json"):
        return None
    angular = app.json("angular.json")
    projects = table(angular, "projects")
    name = str(angular.get("defaultProject") or "")
    if name not in projects:
        name = next((key for key, item in projects.items() if table(item).get("projectType") != "library"), "")
    target = table(projects, name, "architect", "build") or table(projects, name, "targets", "build")
    options = {**table(target, "options")}
    options |= table(target, "configurations", str(target.get("defaultConfiguration") or "production"))
    output = options.get("outputPath") or f"dist/{name}"
    base = str(table(output).get("base", f"dist/{name}") if isinstance(output, dict) else output).rstrip("/")
    browser = str(table(output).get("browser", "browser"))
    application = str(target.get("builder", "")).endswith(":application")
    build = app.manager.exec("ng", "build")
    if application and (options.get("ssr") or options.get("outputMode") == "server"):
        start = node(app, f"{base}/server/server.mjs")
        return Outcome(framework="angular", title="Angular (server)", start=start, build=build)
    root = f"{base}/{browser}" if application and browser else base
    return Outcome(framework="angular", title="Angular", static=site(app, root, fallback="index.html"), build=build)


def _sapper(app: App) -> Outcome | None:
    if not app.dep("sapper"):
        return None
    if app.builds_with("sapper", "export"):
        return Outcome(framework="sapper", title="Sapper (exported)", static=site(app, "__sapper__/export"))
    build = app.manager.exec("sapper", "build")
    return Outcome(framework="sapper", title="Sapper", start=node(app, "__sapper__/build"), build=build)


def _nest(app: App) -> Outcome | None:
    if not app.dep("@nestjs/core"):
        return None
    entry = str(table(app.json("nest-cli.json")).get("entryFile") or "main")
    start = node(app, f"dist/{entry}.js")
    return Outcome(framework="nest", title="Nest", start=start, own_start=True, build=app.manager.exec("nest", "build"))


def _command(package: str, title: str, *argv: str, build: tuple[str, ...] = ()) -> Rule:
    """A framework whose server is a program of its own."""

    def rule(app: App) -> Outcome | None:
        if not app.dep(package):
            return None
        start = _exec(app, shell(app, "exec " + " ".join(argv)))
        return Outcome(framework=argv[0], title=title, start=start, build=app.manager.exec(*build) if build else ())

    return rule


SERVERS: tuple[Rule, ...] = (
    _command("blitz", "Blitz", "blitz", "start", build=("blitz", "build")),
    _next,
    _nuxt,
    _tanstack,
    _react_router,
    _sveltekit,
    _astro,
    _nitro,
    _angular,
    _sapper,
    _nest,
    _command("@strapi/strapi", "Strapi", "strapi", "start", build=("strapi", "build")),
    _command("directus", "Directus", "directus", "start"),
    _command("@medusajs/medusa", "Medusa", "medusa", "start", build=("medusa", "build")),
    _command("@keystone-6/core", "Keystone", "keystone", "start", build=("keystone", "build")),
)
