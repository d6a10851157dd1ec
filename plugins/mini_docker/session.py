"""A session: the connection over which BuildKit asks for what a build needs, as the docker command serves it.

`POST /session` turns into a connection on which the engine calls and this side answers: the files of the context, of
which it asks only for those that have changed since the app's last build; build-time secrets, which a mount shows to
one step and nothing keeps; the credentials of registries. The build names the session by its id.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mini_core.errors import Unavailable
from mini_docker import filesync
from mini_docker.context import Entry, Files, with_parents
from mini_docker.protobuf import encode, known
from mini_docker.rpc import NOT_FOUND, Failed, Handler, Metadata, Server, unary
from mini_docker.streams import let_go, raw_socket

if TYPE_CHECKING:
    from mini_docker.engine import Client, Engine

_CONTEXT, _DOCKERFILE = "context", "dockerfile"
"""What BuildKit calls the two folders of a build."""

_FILES = "/moby.filesync.v1.FileSync/DiffCopy"
_SERVING = 1
_HUB = "registry-1.docker.io"


@contextmanager
def session(engine: Engine, key: str, files: Files) -> Iterator[str]:
    """The session's id, which is served as long as the block lasts. key: what BuildKit keeps the files under from one
    build to the next. Raises Unavailable."""
    folders = {_CONTEXT: files.entries, _DOCKERFILE: with_parents([files.dockerfile])}
    name = uuid.uuid4().hex
    client = engine.connect()
    with contextlib.closing(client), engine.reached():
        methods = _methods(client, folders, files.secrets)
        response = _open(client, name, key)
        server = Server(lambda: _received(response), raw_socket(response).sendall, methods)
        thread = threading.Thread(target=server.serve, name="buildkit-session", daemon=True)
        thread.start()
        try:
            yield name
        finally:
            let_go(response)
            thread.join(5)


def _open(client: Client, name: str, key: str) -> Any:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "h2c",
        "X-Docker-Expose-Session-Uuid": name,
        "X-Docker-Expose-Session-Name": "mini",
        "X-Docker-Expose-Session-Sharedkey": key,
        "X-Docker-Expose-Session-Grpc-Method": _FILES,  # of the others it finds out by calling them
    }
    response = client._post(client._url("/session"), headers=headers, stream=True, timeout=None)
    if response.status_code != 101:
        response.close()
        raise Unavailable(
            f"the engine opens no session for the build: it answered {response.status_code}",
            hint='let it, or set builder = "classic" in [plugins.docker] of server.toml',
            code="no-session",
        )
    return response


def _received(response: Any) -> bytes:
    """What the engine sends right behind its answer may have been read along with it."""
    data: bytes = response.raw._fp.fp.read1(65536)
    return data


def _methods(
    client: Client, folders: Mapping[str, Sequence[Entry]], secrets: Mapping[str, bytes]
) -> dict[str, Handler]:
    def files(metadata: Metadata, messages: Iterator[bytes]) -> Iterator[bytes]:
        folder = metadata.get("dir-name", ("",))[0]
        if folder not in folders:
            raise Failed(NOT_FOUND, f"there is no folder {folder}")
        wanted = (*metadata.get("followpaths", ()), *metadata.get("include-patterns", ()))
        # BuildKit first looks for a .dockerignore, but what is ignored has been left out already.
        looking = bool(wanted) and all(path.endswith(".dockerignore") for path in wanted)
        entries = () if folder == _CONTEXT and looking else folders[folder]
        return filesync.send(entries, messages)

    def secret_of(request: bytes) -> bytes:
        name = known(request)[1].get(1, b"").decode()
        if name not in secrets:
            raise Failed(NOT_FOUND, f"there is no build variable {name}")
        return encode({1: secrets[name]})

    return {
        _FILES: files,
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": unary(secret_of),
        "/moby.filesync.v1.Auth/Credentials": unary(lambda request: _credentials(client, request)),
        "/grpc.health.v1.Health/Check": unary(lambda _: encode({1: _SERVING})),
    }


def _credentials(client: Client, request: bytes) -> bytes:
    """What `docker login` has kept for a registry; nothing, for one that asks for none."""
    from docker.auth import INDEX_NAME

    host = known(request)[1].get(1, b"").decode()
    found = client._auth_configs.resolve_authconfig(INDEX_NAME if host == _HUB else host) or {}
    fields = {name.lower(): text for name, text in found.items()}  # credential stores write them in capitals
    if token := fields.get("identitytoken"):
        return encode({2: token})
    return encode({1: fields.get("username", ""), 2: fields.get("password", "")})
