"""Failures that mini foresees.

    MiniError                     something went wrong; exit 1
    ├── UsageError                the command or request itself is wrong; exit 2
    ├── ConfigError               a file in the repository or a setting is wrong; names its path
    ├── SourceError               the source cannot be packed, unpacked or understood
    ├── PlanError                 no plan, or plans that contradict each other
    ├── BuildError                a build step failed
    ├── StartError                an instance did not start or did not become healthy
    ├── Unavailable               an engine, a registry, a server or a tool is out of reach
    ├── NotFound                  no such app, release, deploy, key …
    ├── Conflict                  the name is taken, the app is busy …
    ├── Denied                    missing or insufficient key
    └── Cancelled                 the user, or a deadline, stopped it

Each is shown as one line saying what is wrong and one saying what to do. Anything else that is raised is a bug
and ends in a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class MiniError(Exception):
    """A foreseen failure.

    message: one line, what is wrong.  hint: one line, what to do.  code: a stable word for programs, such as
    "out-of-memory" (the class's own by default).  step: the pipeline step that failed.  tail: the last lines of
    the failing tool's own output, already redacted.
    """

    code = "failed"
    exit_status = 1
    http_status = 500

    def __init__(
        self, message: str, *, hint: str = "", code: str = "", step: str = "", tail: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code
        self.step = step
        self.tail = tuple(tail)


class UsageError(MiniError):
    code, exit_status, http_status = "usage", 2, 400


class ConfigError(MiniError):
    code, http_status = "config", 422


class SourceError(MiniError):
    code, http_status = "source", 422


class PlanError(MiniError):
    code, http_status = "plan", 422


class BuildError(MiniError):
    code, http_status = "build", 422


class StartError(MiniError):
    code, http_status = "start", 422


class Unavailable(MiniError):
    code, http_status = "unavailable", 503


class NotFound(MiniError):
    code, http_status = "not-found", 404


class Conflict(MiniError):
    code, http_status = "conflict", 409


class Denied(MiniError):
    code, http_status = "denied", 401


class Cancelled(MiniError):
    code, http_status = "cancelled", 409
