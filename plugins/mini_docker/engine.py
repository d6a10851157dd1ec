"""The connection to the Docker Engine.

docker-py does the transport (unix socket, named pipe, TCP with TLS, SSH; `DOCKER_HOST`, else the current Docker
context) and negotiates the API version, once. It is imported at first use. Its clients are not made for several
threads, so each thread has one; streams get a connection of their own.

What the engine refuses stays a `docker.errors.APIError` for the caller to judge; an engine that cannot be reached
is `Unavailable`, saying what to do.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from mini_core.errors import Unavailable
from mini_core.interfaces import Job
from mini_docker.streams import ends_with, unblock

Client: TypeAlias = Any
"""docker-py's APIClient: its type stubs leave out much of what is used here."""

_HOW = " (sudo systemctl start docker)" if sys.platform == "linux" else ""
START_IT = f"start it{_HOW}, or mini up --runtime process"
TIMEOUT = 60.0
"""Seconds for an answer that is no stream."""


class Engine:
    """A Docker Engine. Making one does nothing."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._facts: Mapping[str, Any] | None = None
        self._version = "auto"

    @property
    def api(self) -> Client:
        """This thread's client. Raises Unavailable."""
        owned = getattr(self._local, "owned", None)
        if owned is None:
            owned = self._local.owned = _Owned(self.connect())
        return owned.client

    def connect(self, timeout: float = TIMEOUT) -> Client:
        """A client of the caller's own, which closes it. Raises Unavailable."""
        import docker

        with self.reached():
            client = docker.from_env(version=self._version, timeout=int(timeout)).api
            self._version = client.api_version
            client.trust_env = not _by_socket(client)  # else each request looks through the environment for proxies
            return client

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Turns an engine that cannot be reached, or goes away meanwhile, into Unavailable."""
        import docker.errors
        import requests.exceptions
        import urllib3.exceptions

        broken = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
        try:
            yield
        except docker.errors.APIError:
            raise
        except (docker.errors.DockerException, *broken) as error:
            self._local.owned, self._version = None, "auto"  # what comes back may be another version
            raise _unavailable(error) from error

    def facts(self) -> Mapping[str, Any]:
        """What `docker info` says, kept for the life of this object."""
        if self._facts is None:
            with self.reached():
                self._facts = self.api.info()
        return self._facts

    @property
    def reachable_addresses(self) -> bool:
        """Whether this machine can connect to containers by their own addresses: not with Docker Desktop's virtual
        machine, a rootless engine's network namespace, or an engine elsewhere."""
        facts = self.facts()
        if sys.platform != "linux" or "Desktop" in str(facts.get("OperatingSystem")):
            return False
        rootless = any("rootless" in option for option in facts.get("SecurityOptions") or ())
        return not rootless and _by_socket(self.api)

    @property
    def is_here(self) -> bool:
        """Whether its containers' processes are processes of this machine."""
        return (
            sys.platform == "linux"
            and "Desktop" not in str(self.facts().get("OperatingSystem"))
            and _by_socket(self.api)
        )

    def has_buildkit(self) -> bool:
        """BuildKit is part of every engine since 18.09 on Linux; Podman speaks the API without it."""
        facts = self.facts()
        version = tuple(int(part) for part in self.api.api_version.split("."))
        podman = "podman" in str(facts.get("InitBinary", "")).lower() or "BuildahVersion" in facts
        return facts.get("OSType", "linux") == "linux" and version >= (1, 39) and not podman

    def stream(
        self,
        path: str,
        params: Mapping[str, Any],
        job: Job,
        *,
        body: BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """POST, and the JSON documents of the answer as they come. Closing the connection, which a cancelled or
        overdue job does, makes the engine give up. Raises APIError, Unavailable and Cancelled."""
        client = self.connect()
        with contextlib.closing(client), self.reached():
            response = _posted(client, path, job, params=dict(params), data=body, headers=dict(headers or {}))
            with contextlib.closing(response), ends_with(job, lambda: unblock(response)):
                client._raise_for_status(response)
                try:
                    yield from _documents(response)
                except Exception:
                    job.check()  # the connection was cut because the job is over
                    raise
            job.check()

    def own(self, platform: str, **labels: str) -> dict[str, list[str]]:
        """A filter for what this platform made."""
        wanted = {"mini.platform": platform, **{f"mini.{name}": text for name, text in labels.items()}}
        return {"label": [f"{name}={text}" for name, text in wanted.items()]}


def _by_socket(client: Client) -> bool:
    return "unix" in type(getattr(client, "_custom_adapter", None)).__name__.lower()


def _posted(client: Client, path: str, job: Job, **request: Any) -> Any:
    """The response, once its head is there. That may take long (an upload, a registry that does not answer), so the
    request is made in a thread that is left alone when the job ends before. Raises Cancelled."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    left = threading.Event()

    def post() -> None:
        try:
            response = client._post(client._url(path), stream=True, timeout=None, **request)
        except Exception as error:
            answer.put(error)
            return
        answer.put(response)
        if left.is_set():
            response.close()

    threading.Thread(target=post, name="docker-post", daemon=True).start()
    while True:
        try:
            response = answer.get(timeout=0.2)
        except queue.Empty:
            try:
                job.check()
            except BaseException:
                left.set()
                raise
            continue
        if isinstance(response, Exception):
            raise response
        return response


class _Owned:
    """A thread's client, closed when the thread ends."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __del__(self) -> None:
        self.client.close()


def _documents(response: Any) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines(chunk_size=None):
        if line.strip():
            yield json.loads(line)


def _unavailable(error: Exception) -> Unavailable:
    text = " ".join(str(error).split())
    if "Permission denied" in text or "PermissionError" in text:
        return Unavailable("docker.sock: permission denied", hint="sudo usermod -aG docker $USER", code="permission")
    if "minimum supported" in text.lower() or "too old" in text.lower():
        return Unavailable(f"Docker Engine refuses this version of its API: {text[:200]}", hint="upgrade mini")
    if not (shutil.which("docker") or Path("/var/run/docker.sock").exists()):
        hint = "install it (https://docs.docker.com/engine/install), or mini up --runtime process"
        return Unavailable("Docker is not installed", hint=hint, code="no-docker")
    if "Read timed out" in text:
        return Unavailable("Docker does not answer", hint="see `docker info`; restart it if it hangs")
    return Unavailable("Docker is installed but not running", hint=START_IT, code="docker-down")
