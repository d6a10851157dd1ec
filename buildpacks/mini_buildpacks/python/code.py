"""Reads Python source with `ast`: which modules make a web application, under which name, of which framework.

Nothing is imported or executed. Files that don't parse (Python 2, templates) are treated as if they were empty.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from mini_core.interfaces import Source

Interface = Literal["wsgi", "asgi", "own"]

CONSTRUCTORS: dict[str, tuple[str, Interface]] = {
    "flask.Flask": ("Flask", "wsgi"),
    "apiflask.APIFlask": ("APIFlask", "wsgi"),
    "flask_openapi3.OpenAPI": ("Flask", "wsgi"),
    "bottle.Bottle": ("Bottle", "wsgi"),
    "bottle.default_app": ("Bottle", "wsgi"),
    "bottle.app": ("Bottle", "wsgi"),
    "falcon.App": ("Falcon", "wsgi"),
    "falcon.API": ("Falcon", "wsgi"),
    "falcon.asgi.App": ("Falcon", "asgi"),
    "pyramid.config.Configurator.make_wsgi_app": ("Pyramid", "wsgi"),
    "hug.API": ("Hug", "wsgi"),
    "werkzeug.middleware.dispatcher.DispatcherMiddleware": ("WSGI", "wsgi"),
    "socketio.WSGIApp": ("Socket.IO", "wsgi"),
    "django.core.wsgi.get_wsgi_application": ("Django", "wsgi"),
    "django.core.asgi.get_asgi_application": ("Django", "asgi"),
    "channels.routing.ProtocolTypeRouter": ("Django", "asgi"),
    "fastapi.FastAPI": ("FastAPI", "asgi"),
    "fastapi.applications.FastAPI": ("FastAPI", "asgi"),
    "starlette.applications.Starlette": ("Starlette", "asgi"),
    "quart.Quart": ("Quart", "asgi"),
    "fasthtml.FastHTML": ("FastHTML", "asgi"),
    "fasthtml.fast_app": ("FastHTML", "asgi"),
    "fasthtml.common.FastHTML": ("FastHTML", "asgi"),
    "fasthtml.common.fast_app": ("FastHTML", "asgi"),
    "fasthtml.core.FastHTML": ("FastHTML", "asgi"),
    "fasthtml.fastapp.fast_app": ("FastHTML", "asgi"),
    "litestar.Litestar": ("Litestar", "asgi"),
    "blacksheep.Application": ("BlackSheep", "asgi"),
    "blacksheep.server.Application": ("BlackSheep", "asgi"),
    "esmerald.Esmerald": ("Esmerald", "asgi"),
    "responder.API": ("Responder", "asgi"),
    "connexion.AsyncApp": ("Connexion", "asgi"),
    "connexion.FlaskApp": ("Connexion", "asgi"),
    "connexion.App": ("Connexion", "asgi"),
    "socketio.ASGIApp": ("Socket.IO", "asgi"),
    "gradio.mount_gradio_app": ("FastAPI", "asgi"),
    "asgiref.wsgi.WsgiToAsgi": ("ASGI", "asgi"),
    "dash.Dash": ("Dash", "own"),
    "sanic.Sanic": ("Sanic", "own"),
    "robyn.Robyn": ("Robyn", "own"),
    "aiohttp.web.Application": ("aiohttp", "own"),
    "tornado.web.Application": ("Tornado", "own"),
    "gradio.Blocks": ("Gradio", "own"),
    "gradio.Interface": ("Gradio", "own"),
    "gradio.ChatInterface": ("Gradio", "own"),
    "gradio.TabbedInterface": ("Gradio", "own"),
}
"""What is called to make an application: its framework and how it is served ("own": by itself)."""

SERVING_MODULES = frozenset({
    "aiohttp", "asyncio.start_server", "bottle", "cherrypy", "chainlit", "dash", "falcon", "fastapi",
    "fasthtml", "flask", "gevent.pywsgi", "gradio", "grpc", "gunicorn", "http.server", "hypercorn", "litestar",
    "nicegui", "panel", "quart", "robyn", "sanic", "socketserver", "starlette", "streamlit", "tornado",
    "twisted", "uvicorn", "waitress", "websockets", "werkzeug", "wsgiref", "xmlrpc.server",
    "mcp.server.fastmcp", "fastmcp", "microdot", "solara",
})  # fmt: skip
"""Modules whose import means that a script answers requests."""

FACTORY_NAMES = ("create_app", "make_app", "build_app", "get_app", "app_factory", "create_application", "application")
INSTANCE_NAMES = ("app", "application", "server", "api", "asgi_app", "wsgi_app", "demo")
STEMS = (
    "wsgi", "asgi", "main", "app", "application", "server", "run", "api", "web", "index", "start", "site", "backend",
    "bot", "hello", "service", "streamlit_app", "Home", "__init__",
)  # fmt: skip
"""Names of modules that hold an application by convention, the likeliest first."""

SCRIPT_STEMS = (
    "main", "app", "application", "server", "start", "run", "index", "bot", "hello", "web", "api", "worker", "script",
    "custom", "__main__",
)  # fmt: skip

_IGNORED = re.compile(
    r"(?:^|/)(?:\.[^/]*|tests?|testing|migrations|alembic|docs?|examples?|scripts|venv|env|node_modules|site-packages"
    r"|__pycache__|build|dist|vendor|notebooks|benchmarks?|fixtures|e2e)/"
)
_IGNORED_FILES = re.compile(
    r"(?:^|/)(?:test_[^/]*|[^/]*_tests?|__main__|conftest|setup|noxfile[^/]*|tasks|fabfile|manage|settings|config|models|"
    r"gunicorn[^/]*|hypercorn[^/]*)\.py$"
)
_HINT = re.compile(
    r"flask|bottle|falcon|pyramid|hug|fastapi|starlette|quart|fasthtml|litestar|blacksheep|esmerald|responder|connexion"
    r"|socketio|gradio|dash|sanic|robyn|aiohttp|tornado|get_[aw]sgi_application|channels|create_app|make_app|build_app"
    r"|get_app|app_factory|create_application|start_response|receive"
    r"|streamlit|nicegui|chainlit|panel|import app|asgiref",
    re.IGNORECASE,
)
MAX_MODULES = 400
"""Modules that are looked at; the likeliest come first."""


@dataclass(frozen=True)
class App:
    """An application object. path: its file. name: the variable, or with `factory` the function that makes it."""

    path: str
    name: str
    framework: str
    interface: Interface
    line: int
    factory: bool = False


@dataclass(frozen=True)
class Module:
    """What a module's top level says. names: local name → dotted name of what was imported."""

    path: str
    text: str
    tree: ast.Module
    names: dict[str, str]
    stars: tuple[str, ...]
    imports: frozenset[str]


class Code:
    """The Python modules of a source. without: folders that are projects of their own, and not looked at."""

    def __init__(self, source: Source, without: tuple[str, ...] = ()) -> None:
        self._source = source
        self._without = tuple(f"{folder}/" for folder in without)
        self._modules: dict[str, Module | None] = {}
        self._apps: dict[str, tuple[App, ...]] = {}

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The modules that could hold an application, the likeliest first."""
        found = [path for path in self._source.files() if path.endswith(".py") and path.count("/") <= 3]
        found = [path for path in found if not _IGNORED.search(path) and not _IGNORED_FILES.search(path)]
        found = [path for path in found if not path.startswith(self._without)] if self._without else found
        return tuple(sorted(found, key=_file_rank)[:MAX_MODULES])

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(path for path in self._source.files() if path.endswith(".py"))

    def manage_files(self) -> tuple[str, ...]:
        """Django's manage.py, at most two folders down, the nearest first."""
        found = [path for path in self._all if path.rpartition("/")[2] == "manage.py" and path.count("/") <= 2]
        found = [path for path in found if not (self._without and path.startswith(self._without))]
        return tuple(sorted(found, key=lambda path: (path.count("/"), path)))

    def module(self, path: str) -> Module | None:
        """A parsed module; None where there is none or it does not parse."""
        if path not in self._modules:
            text = self._source.text(path)
            self._modules[path] = None if text is None else _parse(path, text)
        return self._modules[path]

    def apps(self) -> Iterator[App]:
        """Application objects of all modules, the likeliest first."""
        for path in self.files:
            text = self._source.text(path)
            if text is not None and _HINT.search(text):
                yield from self.apps_in(path)

    def apps_in(self, path: str) -> tuple[App, ...]:
        """Application objects of one module, the likeliest first."""
        if path not in self._apps:
            self._apps[path] = ()  # modules that import each other end here
            module = self.module(path)
            if module is not None:
                self._apps[path] = tuple(sorted(self._find(module), key=_app_rank))
        return self._apps[path]

    def _find(self, module: Module) -> Iterator[App]:
        made: dict[str, App] = {}
        for statement in statements(module.tree.body):
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                targets = targets_of(statement)
                for name, app in self._assigned(module, targets, statement.value, made):
                    made[name] = app
            elif isinstance(statement, ast.ImportFrom):
                made.update(self._imported(module, statement))
            elif isinstance(statement, ast.With):
                made.update(self._with(module, statement))
            elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                found = _raw_application(module, statement) or self._factory(module, statement)
                if found is not None:
                    made[found.name] = found
        yield from made.values()

    def _assigned(
        self, module: Module, targets: list[ast.expr], assigned: ast.expr, made: dict[str, App]
    ) -> Iterator[tuple[str, App]]:
        app = self._evaluate(module, assigned, made)
        if app is None:
            return
        for target in targets:
            first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
            if isinstance(first, ast.Name):
                yield first.id, replace(app, path=module.path, name=first.id, line=assigned.lineno, factory=False)

    def _evaluate(self, module: Module, node: ast.expr, made: dict[str, App]) -> App | None:
        """The application that an expression makes, as far as it can be told."""
        if isinstance(node, ast.Name):
            return made.get(node.id)
        if isinstance(node, ast.Attribute) and node.attr in ("server", "app", "wsgi_app", "asgi"):
            owner = self._evaluate(module, node.value, made)
            if owner is None:
                return None
            return replace(owner, interface="wsgi") if owner.framework == "Dash" else owner
        if not isinstance(node, ast.Call):
            return None
        known = self.constructor(module, node.func)
        if known is not None:
            return App(module.path, "", known[0], known[1], node.lineno)
        if isinstance(node.func, ast.Name) and node.func.id in made and made[node.func.id].factory:
            return made[node.func.id]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "make_wsgi_app":
            return App(module.path, "", "Pyramid", "wsgi", node.lineno)
        for argument in node.args:  # middleware: app = Wrapped(app)
            inner = self._evaluate(module, argument, made) if isinstance(argument, ast.Name | ast.Call) else None
            if inner is not None and not inner.factory and inner.interface != "own":
                return inner
        return None

    def constructor(self, module: Module, function: ast.expr) -> tuple[str, Interface] | None:
        """Framework and interface of a called constructor."""
        dotted = dotted_name(function)
        if not dotted:
            return None
        head, _, rest = dotted.partition(".")
        candidates = []
        if head in module.names:
            candidates.append(f"{module.names[head]}.{rest}" if rest else module.names[head])
        elif not rest:
            candidates += [f"{star}.{head}" for star in module.stars]
        return next((CONSTRUCTORS[name] for name in candidates if name in CONSTRUCTORS), None)

    def _imported(self, module: Module, statement: ast.ImportFrom) -> dict[str, App]:
        """Applications and factories that a module takes from another one of the repository."""
        path = self._resolve(module.path, statement.module or "", statement.level)
        if path is None or path == module.path:
            return {}
        theirs = {app.name: app for app in self.apps_in(path)}
        found = {}
        for alias in statement.names:
            app = theirs.get(alias.name)
            if app is not None:
                name = alias.asname or alias.name
                found[name] = replace(app, path=module.path, name=name, line=statement.lineno)
        return found

    def _resolve(self, importer: str, dotted: str, level: int) -> str | None:
        folder = importer.rpartition("/")[0]
        tail = dotted.replace(".", "/")
        if level:
            parts = folder.split("/") if folder else []
            bases = ["/".join(parts[: len(parts) - level + 1])]
        else:
            bases = [folder, "", "src", folder.partition("/")[0]]
        for base in bases:
            stem = "/".join(part for part in (base, tail) if part)
            for path in (f"{stem}.py", f"{stem}/__init__.py"):
                if path in self._all:
                    return path
        return None

    def _with(self, module: Module, statement: ast.With) -> dict[str, App]:
        """`with gr.Blocks() as demo:`"""
        found = {}
        for item in statement.items:
            app = self._evaluate(module, item.context_expr, {})
            if app is not None and isinstance(item.optional_vars, ast.Name):
                found[item.optional_vars.id] = replace(app, name=item.optional_vars.id)
        return found

    def _factory(self, module: Module, function: ast.FunctionDef | ast.AsyncFunctionDef) -> App | None:
        if isinstance(function, ast.AsyncFunctionDef) or _required_arguments(function):
            return None
        local: dict[str, App] = {}
        for statement in statements(function.body):
            if isinstance(statement, ast.Assign):
                local.update(self._assigned(module, statement.targets, statement.value, local))
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                local.update(self._assigned(module, [statement.target], statement.value, local))
            elif isinstance(statement, ast.ImportFrom):
                local.update(self._imported(module, statement))
            elif isinstance(statement, ast.Return) and statement.value is not None:
                app = self._evaluate(module, statement.value, local)
                if app is not None:
                    return replace(app, path=module.path, name=function.name, line=function.lineno, factory=True)
        return None

    # --- scripts

    def serves(self, path: str, depth: int = 3) -> bool:
        """Whether a script seems to answer requests: it, or a module of the repository that it imports, imports
        something that serves, or speaks of PORT."""
        return self._serves(path, depth, set())

    def _serves(self, path: str, depth: int, seen: set[str]) -> bool:
        module = self.module(path)
        if module is None or path in seen:
            return False
        seen.add(path)
        if any(_serving(name) for name in module.imports) or re.search(r"[\"']PORT[\"']|start_server", module.text):
            return True
        if not depth:
            return False
        for statement in ast.walk(module.tree):
            if isinstance(statement, ast.ImportFrom):
                inner = [self._resolve(path, statement.module or "", statement.level)]
            elif isinstance(statement, ast.Import):
                inner = [self._resolve(path, alias.name, 0) for alias in statement.names]
            else:
                continue
            if any(item is not None and self._serves(item, depth - 1, seen) for item in inner):
                return True
        return False

    def imports(self, path: str, name: str) -> bool:
        """Whether a module imports `name` (or something of it)."""
        if name.partition(".")[0] not in (self._source.text(path) or ""):
            return False  # most modules: parsing all of them would take longer than all the rest
        module = self.module(path)
        return module is not None and any(item == name or item.startswith(f"{name}.") for item in module.imports)

    def import_root(self, path: str) -> tuple[str, str]:
        """(folder to import from, "" for the root; dotted name there) of a module."""
        folder, _, file = path.rpartition("/")
        stem = file.removesuffix(".py")
        parts = folder.split("/") if folder else []
        depth = len(parts)
        while depth and f"{'/'.join(parts[:depth])}/__init__.py" in self._all:
            depth -= 1
        if depth and depth == len(parts) and not self._imports_itself_from_root(path, parts):
            root, dotted = parts, [stem]  # a folder that is no package: its modules import each other directly
        elif depth and parts[0] == "src":
            root, dotted = parts[:depth], [*parts[depth:], stem]
        elif depth == len(parts):
            root, dotted = [], [*parts, stem]
        else:
            root, dotted = parts[:depth], [*parts[depth:], stem]
        if dotted[-1] == "__init__":
            dotted = dotted[:-1]
        return "/".join(root), ".".join(dotted)

    def _imports_itself_from_root(self, path: str, parts: list[str]) -> bool:
        """Whether modules of a folder without `__init__.py` are imported by the folder's name."""
        module = self.module(path)
        head = parts[0]
        return module is not None and any(name == head or name.startswith(f"{head}.") for name in module.imports)


def _parse(path: str, text: str) -> Module | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names: dict[str, str] = {}
    stars: list[str] = []
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports.add(alias.name)
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            imports.add(node.module)
            for alias in node.names:
                if alias.name == "*":
                    stars.append(node.module)
                else:
                    imports.add(f"{node.module}.{alias.name}")
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return Module(path, text, tree, names, tuple(stars), frozenset(imports))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements in order, those inside of `if`, `try`, `with` and loops included, those of functions not."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            if not is_main_guard(statement):
                yield from statements(statement.body)
            yield from statements(statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from statements(statement.body)
            for handler in statement.handlers:
                yield from statements(handler.body)
            yield from statements(statement.orelse)
            yield from statements(statement.finalbody)
        elif isinstance(statement, ast.With | ast.For | ast.While):
            yield from statements(statement.body)


def is_main_guard(statement: ast.If) -> bool:
    """`if __name__ == "__main__":`"""
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test))


def targets_of(statement: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    """What an assignment assigns to."""
    return list(statement.targets) if isinstance(statement, ast.Assign) else [statement.target]


def dotted_name(node: ast.expr) -> str:
    """`a.b.c` of an expression, "" for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted_name(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _raw_application(module: Module, function: ast.FunctionDef | ast.AsyncFunctionDef) -> App | None:
    """A function that is itself a WSGI or ASGI application (PEP 3333, the ASGI specification)."""
    names = [argument.arg for argument in function.args.args]
    if isinstance(function, ast.AsyncFunctionDef):
        if names == ["scope", "receive", "send"]:
            return App(module.path, function.name, "ASGI", "asgi", function.lineno)
    elif len(names) == 2 and names[1] == "start_response":
        return App(module.path, function.name, "WSGI", "wsgi", function.lineno)
    return None


def _required_arguments(function: ast.FunctionDef) -> bool:
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def _serving(name: str) -> bool:
    return any(name == item or name.startswith(f"{item}.") for item in SERVING_MODULES)


def _file_rank(path: str) -> tuple[int, int, str]:
    stem = path.rpartition("/")[2].removesuffix(".py")
    depth = path.count("/") - path.startswith("src/")
    return depth, STEMS.index(stem) if stem in STEMS else len(STEMS), path


def _app_rank(app: App) -> tuple[bool, bool, int, int]:
    names = FACTORY_NAMES if app.factory else INSTANCE_NAMES
    own = app.interface == "own"
    return app.factory, own, names.index(app.name) if app.name in names else len(names), app.line
