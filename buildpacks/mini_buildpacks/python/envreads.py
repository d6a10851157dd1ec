"""Which variables of the environment a module reads, and what it does without them. From the source alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mini_buildpacks.python.code import Module, dotted_name

_GETTERS = re.compile(r"(?:^|\.)(?:getenv|environ\.get)$")
_READERS = re.compile(
    r"^(?:env|config|decouple\.config|environ\.Env\(\))(?:\.(?:str|db|url|db_url|bool|list|int|json))?$"
)
_PLATFORM = frozenset({
    "PORT", "HOST", "HOME", "PATH", "USER", "PWD", "LANG", "TZ", "TERM", "SHELL", "HOSTNAME", "TMPDIR",
    "PYTHONPATH", "VIRTUAL_ENV",
})  # fmt: skip

SECRETS = frozenset({
    "SECRET_KEY", "DJANGO_SECRET_KEY", "FLASK_SECRET_KEY", "APP_SECRET", "APP_SECRET_KEY", "SECRET_KEY_BASE",
    "SESSION_SECRET", "SESSION_KEY", "SESSION_SECRET_KEY", "COOKIE_SECRET", "JWT_SECRET", "JWT_SECRET_KEY",
    "SECURITY_PASSWORD_SALT", "WTF_CSRF_SECRET_KEY", "QUART_SECRET_KEY", "FASTAPI_SECRET_KEY",
})  # fmt: skip
"""Names of secrets that only the app itself uses, so that any random value does."""


@dataclass(frozen=True)
class Read:
    """A variable that is read. target: the setting that it is assigned to, if any. required: without it the module
    fails when it is imported. default: whether it has one. path: the module's."""

    name: str
    line: int
    target: str = ""
    required: bool = False
    default: bool = False
    path: str = ""


def reads(module: Module) -> tuple[Read, ...]:
    """All reads of a module, in order, each name once: what is required wins over what is not."""
    found: dict[str, Read] = {}
    for read in _walk(module):
        known = found.get(read.name)
        if known is None or (read.required and not known.required) or (read.target in _TELLING and not known.target):
            found[read.name] = replace(read, path=module.path)
    return tuple(found.values())


_TELLING = ("SECRET_KEY", "ALLOWED_HOSTS", "DATABASES")


def _walk(module: Module) -> Iterator[Read]:
    for statement in module.tree.body:
        yield from _statement(statement, conditional=False)


def _statement(statement: ast.stmt, *, conditional: bool) -> Iterator[Read]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for node in ast.walk(statement):
            if isinstance(node, ast.expr):
                yield from _read(node, _assigned_in(statement, node), conditional=True)
        return
    if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
        inner = isinstance(statement, ast.If | ast.Try | ast.For | ast.While) or conditional
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt):
                yield from _statement(child, conditional=inner)
            elif isinstance(child, ast.ExceptHandler):
                for nested in child.body:
                    yield from _statement(nested, conditional=True)
            elif isinstance(child, ast.expr):
                yield from _expression(child, "", conditional=conditional)
        return
    if isinstance(statement, ast.Assert):
        yield from _asserted(statement.test, conditional=conditional)
    target = _target(statement)
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr):
            yield from _expression(child, target, conditional=conditional)


def _asserted(test: ast.expr, *, conditional: bool) -> Iterator[Read]:
    """`assert "NAME" in os.environ`."""
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.In):
        return
    name = _string(test.left)
    if name and name not in _PLATFORM and dotted_name(test.comparators[0]).rpartition(".")[2] == "environ":
        yield Read(name, test.lineno, required=not conditional)


def _assigned_in(owner: ast.stmt, node: ast.expr) -> str:
    """The name that a class attribute gets (`class Config: SECRET_KEY = os.environ[…]`)."""
    for statement in getattr(owner, "body", []):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and any(inner is node for inner in ast.walk(statement)):
            return _target(statement)
    return ""


def _target(statement: ast.stmt) -> str:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        if isinstance(target, ast.Name):
            return target.id
        if isinstance(target, ast.Attribute):
            return target.attr.upper()
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            return str(target.slice.value)
    return ""


def _expression(node: ast.expr, target: str, *, conditional: bool) -> Iterator[Read]:
    for inner, guarded in _nodes(node, conditional):
        yield from _read(inner, target, conditional=guarded)


def _nodes(node: ast.AST, guarded: bool) -> Iterator[tuple[ast.expr, bool]]:
    """Expressions, and whether they may not be evaluated (branches of `x if y else z`, of `and` and `or`)."""
    if isinstance(node, ast.expr):
        yield node, guarded
    for child in ast.iter_child_nodes(node):
        inner = guarded or isinstance(node, ast.IfExp | ast.Lambda | ast.BoolOp)
        yield from _nodes(child, inner)


def _read(node: ast.expr, target: str, *, conditional: bool) -> Iterator[Read]:
    name, default = "", False
    if isinstance(node, ast.Subscript) and dotted_name(node.value).rpartition(".")[2] == "environ":
        name = _string(node.slice)
    elif isinstance(node, ast.Call) and node.args:
        function = _function(node.func)
        if _GETTERS.search(function):
            name = _string(node.args[0])
            default = _has_default(node)
            conditional = True  # a getter never fails by itself
        elif _READERS.match(function):
            name = _string(node.args[0])
            default = _has_default(node)
            conditional = conditional or default
    if name and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in _PLATFORM:
        yield Read(name, node.lineno, target, required=not conditional, default=default)


def _function(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return f"{dotted_name(node.func)}()"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
        return f"{dotted_name(node.value.func)}().{node.attr}"
    return dotted_name(node)


def _has_default(call: ast.Call) -> bool:
    """Whether a second argument, or `default=`, gives something other than None."""
    given = [*call.args[1:2], *(item.value for item in call.keywords if item.arg == "default")]
    return any(not (isinstance(item, ast.Constant) and item.value is None) for item in given)


def _string(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
