"""Asks the controller to start sleeping apps, in threads of its own."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

RETRY = 0.5
"""Seconds between attempts while the controller is away."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Waker:
    """One call at a time for each app. failed: called, from a thread, with the app and why it could not be woken."""

    def __init__(self, controller: str, path: str, timeout: float, failed: Callable[[str, str], None]) -> None:
        self._controller, self._path, self._timeout, self._failed = controller, path, timeout, failed
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="waker")
        self._lock = threading.Lock()
        self._running: set[str] = set()

    def wake(self, app: str) -> None:
        with self._lock:
            if app in self._running:
                return
            self._running.add(app)
        self._threads.submit(self._wake, app)

    def _wake(self, app: str) -> None:
        try:
            cause = self._call(app)
        finally:
            with self._lock:
                self._running.discard(app)
        if cause:
            self._failed(app, cause)

    def _call(self, app: str) -> str:
        """Why it failed, or ""."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self._post(app, deadline - time.monotonic())
            except OSError as error:
                if time.monotonic() + RETRY >= deadline:
                    return f"the controller cannot be reached: {error}"
            except http.client.HTTPException as error:
                return f"the controller's answer was cut off: {error}"
            time.sleep(RETRY)

    def _post(self, app: str, timeout: float) -> str:
        connection = _UnixConnection(self._controller, max(timeout, 0.1))
        try:
            body = json.dumps({"app": app})
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        finally:
            connection.close()
        return "" if response.status < 300 else _title(text) or f"the controller answered {response.status}"


def _title(text: str) -> str:
    """Of a problem+json document."""
    try:
        return str(json.loads(text)["title"])
    except (ValueError, KeyError, TypeError):
        return ""
