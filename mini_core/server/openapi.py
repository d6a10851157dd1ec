"""The OpenAPI document, made from the operations themselves (OpenAPI 3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mini_core import __version__, api
from mini_core.server.operation import Operation
from mini_core.types import Secret

_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")
_REF = "#/components/schemas/{name}"
_BINARY = {"type": "string", "format": "binary"}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of all operations but the internal ones."""
    shown = [operation for operation in operations if operation.access != "internal"]
    schemas, components = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for operation in shown:
        path = _PARAMETER.sub(r"{\2}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mini", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"key": []}],
    }


def _schemas(operations: list[Operation]) -> tuple[dict[Any, Any], dict[str, Any]]:
    kinds: list[type] = [api.Problem, api.DeployOptions]
    for operation in operations:
        kinds += [kind for kind in (operation.request, operation.response, operation.query) if kind is not None]
    unique = list(dict.fromkeys(kinds))
    found, components = msgspec.json.schema_components(unique, schema_hook=_secret, ref_template=_REF)
    return dict(zip(unique, found, strict=True)), components


def _secret(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password"}
    raise NotImplementedError(kind)


def _described(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "responses": {
            str(_status(operation)): _success(operation, schemas),
            "default": {
                "description": "An error",
                "content": {"application/problem+json": {"schema": schemas[api.Problem]}},
            },
        },
    }
    if parameters := [*_path_parameters(operation), *_query_parameters(operation), *_headers(operation, schemas)]:
        described["parameters"] = parameters
    if operation.access == "open":
        described["security"] = []
    if body := _body(operation, schemas):
        described["requestBody"] = body
    return described


def _status(operation: Operation) -> int:
    answers = operation.response or operation.media or operation.status == 101
    return operation.status if answers else 204


def operation_id(operation: Operation) -> str:
    """Such as "post-apps-app-deploys"."""
    words = re.sub(r"[^a-z0-9]+", "-", _PARAMETER.sub(r"\2", operation.path).removeprefix("/v1").lower())
    return f"{operation.method.lower()}{words.rstrip('-')}"


def _success(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    if operation.media:
        return {"description": "The file", "content": {operation.media: {"schema": _BINARY}}}
    if operation.response is None:
        upgraded = "The connection is now a mini-stream: see mini_core/frames.py"
        return {"description": upgraded if operation.content == "upgrade" else "Done"}
    kind = "application/x-ndjson" if operation.stream else "application/json"
    about = "One value a line" if operation.stream else "The answer"
    return {"description": about, "content": {kind: {"schema": schemas[operation.response]}}}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if converter == "int" else "string"},
        }
        for converter, name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = msgspec.json.schema(operation.query)
    own = schema["$defs"][operation.query.__name__]
    return [
        {"name": name, "in": "query", "required": name in own.get("required", ()), "schema": item}
        for name, item in own["properties"].items()
    ]


def _headers(operation: Operation, schemas: dict[Any, Any]) -> list[dict[str, Any]]:
    if operation.content != "archive":
        return []
    content = {"application/json": {"schema": schemas[api.DeployOptions]}}
    return [{"name": "Mini-Deploy", "in": "header", "required": False, "content": content}]


def _body(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    if operation.content == "archive":
        return {"required": True, "content": {"application/gzip": {"schema": _BINARY}}}
    if operation.content == "backup":
        return {"required": True, "content": {"application/x-tar": {"schema": _BINARY}}}
    if operation.request is None:
        return {}
    return {"required": True, "content": {"application/json": {"schema": schemas[operation.request]}}}
