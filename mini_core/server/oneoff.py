"""Commands with their streams connected: the connection stops being HTTP and carries frames both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mini_core.errors import UsageError
from mini_core.server.operation import Call


def serve(environ: dict[str, Any], handler: Callable[[Call], Any], call: Call) -> Any:
    """Answers a request for an upgrade to `mini-stream`."""
    raise UsageError("Not yet.")
