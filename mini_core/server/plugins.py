"""Endpoints and pages of plugins, as operations and routes of the API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.routing import Map, Rule

from mini_core.controller import Controller
from mini_core.errors import UsageError
from mini_core.interfaces import ApiRequest, EndpointSpec, Page
from mini_core.server.operation import Call, Operation
from mini_core.types import to_data

log = logging.getLogger(__name__)


def operations(controller: Controller) -> tuple[Operation, ...]:
    """The endpoints of all plugins, below `/v1/x/PLUGIN/`. One that cannot be is left out and logged."""
    found = []
    for plugin, specs in controller.endpoints().items():
        for spec in specs:
            path = f"/v1/x/{plugin}/{spec.path.lstrip('/')}"
            try:
                Map([Rule(path)])
            except (ValueError, LookupError) as error:
                log.warning("plugin %s: endpoint %s: %s", plugin, spec.path, error)
                continue
            found.append(
                Operation(
                    method=spec.method.upper(),
                    path=path,
                    handler=_handler(spec),
                    access="key",
                    summary=spec.summary or f"Of the plugin {plugin}",
                    response=Any,
                )
            )
    return tuple(found)


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
    """The pages of all plugins, below `/x/PLUGIN/`, open to everyone."""
    for plugin, pages in controller.pages().items():
        for page in pages:
            path = f"/x/{plugin}/{page.path.lstrip('/')}"
            app.add_url_rule(path, f"page {path}", _page(page))


def _page(page: Page) -> Callable[[], Response]:
    def view() -> Response:
        response = Response(page.body, content_type=page.content_type)
        response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return view
