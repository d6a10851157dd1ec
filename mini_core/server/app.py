"""The HTTP API as a Flask application.

    request → who asks → may they → what they send → the controller → what it answers

`trusted` is the application behind the admin socket, where the socket's permissions are the key.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from mini_core import __version__, api, disk
from mini_core.controller import Controller
from mini_core.errors import Denied, MiniError, NotFound, Unavailable, UsageError
from mini_core.paths import private_folder
from mini_core.server import oneoff, openapi, plugins
from mini_core.server.auth import KeyCheck, local_caller
from mini_core.server.operation import Call, Caller, Operation, query_of
from mini_core.server.operations import OPERATIONS
from mini_core.server.streams import Bytes, Lines, Slots
from mini_core.types import Value, decode, encode, replace

log = logging.getLogger("mini.api")

JSON = "application/json"
NDJSON = "application/x-ndjson"
TAR = "application/x-tar"
PROBLEM = "application/problem+json"
ARCHIVES = ("application/gzip", "application/x-gzip", "application/octet-stream")
STREAMS = 32
"""Streams that are served at once."""
SESSIONS = 64
"""Commands whose streams are held at once."""


class TooLarge(MiniError):
    code, http_status = "too-large", 413


class WrongType(MiniError):
    code, http_status = "content-type", 415


class _Server(Value):
    """What every endpoint needs."""

    controller: Controller
    trusted: bool
    check_key: KeyCheck
    uploads: Path
    slots: Slots
    sessions: Slots

    def caller(self, operation: Operation) -> Caller:
        """Who asks, once they are known to be allowed to. Raises Denied, and NotFound for what is internal."""
        if operation.access == "open":
            return Caller(name="")
        if operation.access == "internal":
            if "X-Forwarded-For" in request.headers:
                raise NotFound(f"No such address: {request.path}")
            g.actor = "platform"
            return Caller(name="platform")
        caller = local_caller(request) if self.trusted else self.check_key(request)
        g.actor = caller.name
        if operation.access == "platform":
            caller.allow("")
        if operation.access == "app":
            caller.allow((request.view_args or {})["app"])
        return caller


def create_app(
    controller: Controller, *, trusted: bool, uploads: Path | None = None, more: Iterable[Operation] = ()
) -> Flask:
    """The API. uploads: where sources are put until the controller takes them (the controller's data folder by
    default). more: operations of the process that serves it."""
    app = Flask("mini", static_folder=None)
    server = _Server(
        controller=controller,
        trusted=trusted,
        check_key=KeyCheck(controller.authenticate),
        uploads=uploads or controller.paths.data / "uploads",
        slots=Slots(STREAMS),
        sessions=Slots(SESSIONS),
    )
    operations = (*OPERATIONS, *more, *plugins.operations(controller))
    for operation in operations:
        _add(app, server, operation)
    document = encode(openapi.document(operations))
    app.add_url_rule("/v1/openapi.json", "openapi", lambda: Response(document, mimetype=JSON))
    app.add_url_rule("/", "front", _front_page)
    plugins.add_pages(app, controller)
    app.register_error_handler(Exception, _failed)
    app.before_request(_begin)
    app.after_request(_end)
    return app


def _add(app: Flask, server: _Server, operation: Operation) -> None:
    def view(**params: Any) -> Any:
        return _serve(server, operation, params)

    app.add_url_rule(
        operation.path,
        f"{operation.method} {operation.path}",
        view,
        methods=[operation.method],
        provide_automatic_options=False,
    )


def _serve(server: _Server, operation: Operation, params: Mapping[str, Any]) -> Any:
    if server.controller.restoring and operation.access != "open":
        raise Unavailable("The platform is being restored.", hint="Try again when that is done.", code="restoring")
    caller = server.caller(operation)
    call = Call(
        controller=server.controller,
        caller=caller,
        base_url=base_url(server.trusted),
        params=params,
        query=_query(operation),
        body=_body(operation),
    )
    if operation.content == "archive":
        return _with_archive(server, operation, call)
    if operation.content == "backup" and not getattr(call.query, "upload", ""):
        if request.mimetype != TAR:
            raise WrongType(f"Expected a backup as {TAR}, got {request.mimetype or 'no content type'}.")
        call = replace(call, file=cast(BinaryIO, request.stream))
    if operation.content == "upgrade":
        return oneoff.serve(request.environ, server.sessions, operation.handler, call)
    return _answer(server, operation, operation.handler(call))


def base_url(trusted: bool) -> str:
    """What the client used to reach us. Through the admin socket the client says it, if it knows."""
    if trusted:
        return request.headers.get("Mini-Base-Url", "")
    return f"{request.headers.get('X-Forwarded-Proto', 'http')}://{request.host}"


# --- what comes in


def _query(operation: Operation) -> Any:
    if operation.query is None:
        return None
    try:
        return query_of(operation.query, request.args)
    except msgspec.ValidationError as error:
        raise UsageError(f"query: {_lower(error)}") from None


def _body(operation: Operation) -> Any:
    if operation.request is None:
        return None
    if request.mimetype != JSON:
        raise WrongType(f"Expected {JSON}, got {request.mimetype or 'no content type'}.")
    if (request.content_length or 0) > plugins.BODY_LIMIT:
        raise TooLarge(f"The body is larger than {plugins.BODY_LIMIT // 1024 // 1024} MB.")
    return _decoded(operation.request, request.get_data(cache=False), "body")


def _decoded(kind: type, data: bytes | str, where: str) -> Any:
    try:
        return decode(kind, data)
    except msgspec.ValidationError as error:
        raise Invalid(f"{where}: {_lower(error)}") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None


class Invalid(UsageError):
    code, http_status = "invalid", 422


def _lower(error: Exception) -> str:
    text = str(error).replace(" - at `$.", " at `").replace(" - at `$`", "")
    return text[:1].lower() + text[1:]


def _with_archive(server: _Server, operation: Operation, call: Call) -> Any:
    """The body is in a file of its own from here until the controller has taken it, or else gone."""
    if request.mimetype not in ARCHIVES:
        raise WrongType(f"Expected a source as application/gzip, got {request.mimetype or 'no content type'}.")
    options = _decoded(api.DeployOptions, request.headers.get("Mini-Deploy", "{}"), "Mini-Deploy")
    archive = private_folder(server.uploads) / f"{secrets.token_hex(8)}.tar.gz"
    try:
        _save(archive)
        return _answer(server, operation, operation.handler(replace(call, archive=archive, options=options)))
    finally:
        archive.unlink(missing_ok=True)


def _save(archive: Path) -> None:
    try:
        with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            shutil.copyfileobj(request.stream, file, 256 * 1024)
    except OSError as error:
        raise disk.full(error) or Unavailable(
            f"The source could not be stored: {error.strerror}", hint="Look at the disk: mini doctor"
        ) from None


# --- what goes out


def _answer(server: _Server, operation: Operation, result: Any) -> Response:
    if operation.media:
        headers = {"Mini-Size": str(result.size)} if result.size else {}
        return Response(Bytes(result.chunks, server.slots), mimetype=operation.media, headers=headers)
    if operation.stream or isinstance(result, Iterator):
        gone = request.environ.get("waitress.client_disconnected", lambda: False)
        response = Response(Lines(iter(result), server.slots, gone), mimetype=NDJSON)
        response.headers["X-Accel-Buffering"] = "no"
        return response
    if result is None:
        return Response(status=204)
    return Response(encode(result), status=operation.status, mimetype=JSON)


def _begin() -> None:
    g.began = time.monotonic()
    g.actor = ""


def _end(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Mini-Version"] = __version__
    took = (time.monotonic() - g.began) * 1000
    level = logging.DEBUG if request.method == "GET" and response.status_code < 400 else logging.INFO
    log.log(level, "%s %s %d %.0f ms %s", request.method, request.path, response.status_code, took, g.actor or "-")
    return response


def _failed(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        problem = _of_http(error)
    elif isinstance(error, MiniError):
        problem = _of_mini(error)
    elif full := disk.full(error):
        problem = _of_mini(full)
    else:
        number = secrets.token_hex(4)
        log.error("error %s in %s %s", number, request.method, request.path, exc_info=error)
        problem = api.Problem(
            status=500,
            title=f"Internal error {number}.",
            code="internal",
            hint=f"The server's platform.log says more under {number}.",
        )
    response = Response(encode(problem), status=problem.status, content_type=PROBLEM)
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if problem.status in (429, 503):
        response.headers["Retry-After"] = "60" if problem.status == 429 else "2"
    return response


def _of_mini(error: MiniError) -> api.Problem:
    status = 403 if isinstance(error, Denied) and error.code == "forbidden" else error.http_status
    return api.Problem(
        status=status, title=error.message, code=error.code, hint=error.hint, step=error.step, tail=error.tail
    )


def _of_http(error: HTTPException) -> api.Problem:
    status = error.code or 500
    title = {
        404: f"No such address: {request.path}",
        405: f"{request.method} is not possible here: {request.path}",
    }.get(status, error.name)
    api_path = status in (404, 405) and request.path.startswith("/v1/")
    hint = "Client and server may be of different versions: mini version" if api_path else ""
    return api.Problem(status=status, title=title, code="no-such-address" if status == 404 else "http", hint=hint)


_FRONT = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>mini</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em}}</style>
<h1>mini</h1>
<p>This is a mini server, version {__version__}. Apps answer under names of their own.</p>
<p><code>mini deploy .</code> makes one · <a href="/v1/openapi.json">the API</a></p>
</html>
"""


def _front_page() -> Response:
    return Response(_FRONT, mimetype="text/html")
