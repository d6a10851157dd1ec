"""The router's own pages, by Flask: what a client sees when no app answers."""

from __future__ import annotations

from flask import Flask, Response, json, render_template_string, request

from mini_proxy.problems import Problem

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ problem.title }}</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { margin: 0; min-height: 100vh; display: grid; place-content: center; padding: 2rem }
  main { max-width: 34rem }
  h1 { font-size: 1.6rem; margin: 0 0 .5rem }
  p { margin: .25rem 0 }
  code { overflow-wrap: anywhere }
  footer { margin-top: 2rem; font-size: .85rem; opacity: .65 }
</style>
<main>
  <h1>{{ problem.title }}</h1>
  <p>{{ problem.detail }}</p>
  {%- if cause %}
  <p><code>{{ cause }}</code></p>
  {%- endif %}
  <footer>{{ problem.status }} · {{ problem.code }} · request {{ id }}</footer>
</main>
"""
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app() -> Flask:
    """A Flask app that shows the Problem in `environ["mini.problem"]` (with `mini.request_id` and `mini.local`), as
    HTML or, where the client prefers it, as `application/problem+json` (RFC 9457)."""
    app = Flask("mini_proxy", static_folder=None)
    app.url_map.merge_slashes = False

    @app.before_request
    def show() -> Response:
        environ = request.environ
        problem: Problem = environ["mini.problem"]
        cause = problem.cause if environ["mini.local"] else ""
        accept = request.accept_mimetypes
        wants_json = accept.best_match(["text/html", "application/json", "application/problem+json"])
        if problem.api or (accept and wants_json not in (None, "text/html")):
            response = _json(problem, cause, environ["mini.request_id"])
        else:
            text = render_template_string(_PAGE, problem=problem, cause=cause, id=environ["mini.request_id"])
            response = Response(text, mimetype="text/html")
        response.status_code = problem.status
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Request-Id"] = environ["mini.request_id"]
        if problem.retry_after:
            response.headers["Retry-After"] = str(problem.retry_after)
        return response

    return app


def _json(problem: Problem, cause: str, request_id: str) -> Response:
    body = {
        "type": "about:blank",
        "status": problem.status,
        "title": problem.title,
        "code": problem.code,
        "detail": problem.detail,
        "hint": "Try again in a moment." if problem.retry_after else "",
        "request_id": request_id,
    }
    if cause:
        body["cause"] = cause
    return Response(json.dumps(body) + "\n", mimetype="application/problem+json")
