"""Endpoints and pages of plugins, as operations and routes of the API. What cannot be served is left out and logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.routing import Map, Rule

from mini_core.controller import Controller
from mini_core.errors import NotFound, UsageError
from mini_core.interfaces import ApiRequest, EndpointSpec, Page
from mini_core.server.operation import Call, Operation
from mini_core.types import to_data

log = logging.getLogger(__name__)

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of a JSON body."""


def operations(controller: Controller) -> tuple[Operation, ...]:
    """The endpoints of all plugins, below `/v1/x/PLUGIN/`."""
    found: dict[tuple[str, str], Operation] = {}
    for plugin, specs in controller.endpoints().items():
        for spec in specs:
            operation = _operation(plugin, spec)
            key = operation.method, operation.path
            if problem := "there are two of it" if key in found else _problem(operation):
                log.warning("plugin %s: endpoint %s %s: %s", plugin, spec.method, spec.path, problem)
            else:
                found[key] = operation
    return tuple(found.values())


def _operation(plugin: str, spec: EndpointSpec) -> Operation:
    return Operation(
        method=spec.method.upper(),
        path=f"/v1/x/{plugin}/{spec.path.lstrip('/')}",
        handler=_handler(spec),
        access="key",
        summary=spec.summary or f"Of the plugin {plugin}",
        response=Any,
    )


def _problem(operation: Operation) -> str:
    try:
        Map([Rule(operation.path, methods=[operation.method])])
    except (ValueError, LookupError) as error:
        return str(error)
    return "" if operation.method in METHODS else "no such method"


def _handler(spec: EndpointSpec) -> Callable[[Call], Any]:
    def handle(call: Call) -> Any:
        result = spec.handler(
            ApiRequest(
                actor=call.actor,
                app=call.caller.app,
                params={name: str(item) for name, item in call.params.items()},
                query=request.args.to_dict(),
                body=_body(),
            )
        )
        return result if result is None or isinstance(result, Iterator) else to_data(result)

    return handle


def _body() -> Any:
    if (request.content_length or 0) > BODY_LIMIT:
        raise UsageError(f"The body is larger than {BODY_LIMIT // 1024 // 1024} MB.")
    data = request.get_data(cache=False)
    if not data:
        return None
    if request.mimetype != "application/json":
        raise UsageError(f"Expected application/json, got {request.mimetype or 'no content type'}.")
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UsageError(f"body: not JSON: {error}") from None


def add_pages(app: Flask, controller: Controller) -> None:
    """The pages of all plugins, below `/x/PLUGIN/`, open to everyone; `index.html` also as its folder."""
    pages: dict[str, Page] = {}
    for plugin, given in controller.pages().items():
        for page in given:
            path = page.path.lstrip("/")
            pages.setdefault(f"{plugin}/{path}", page)
            if path.rpartition("/")[2] == "index.html":
                pages.setdefault(f"{plugin}/{path.removesuffix('index.html')}", page)

    def view(path: str) -> Response:
        page = pages.get(path)
        if page is None:
            raise NotFound(f"No such page: /x/{path}")
        response = Response(page.body, content_type=page.content_type)
        response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    app.add_url_rule("/x/<path:path>", "pages", view)
