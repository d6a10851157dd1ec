"""What an endpoint of the API is: one value that routing, checking, and the OpenAPI document are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from mini_core import api
from mini_core.controller import Controller
from mini_core.errors import Denied
from mini_core.types import Value, from_data, replace

T = TypeVar("T")

Access = Literal["open", "key", "app", "platform", "internal"]
Content = Literal["json", "archive", "backup", "upgrade"]


class Operation(Value):
    """One endpoint.

    path: with `<name>` or `<int:name>` for its parameters. access: "open" needs no key; "key" any key; "app" a key
    that reaches the app named in the path; "platform" one that is not limited to an app; "internal" is for the
    router and the local user. request: type of the JSON body. content: what the body is. query: a value type whose
    fields are the query's parameters. response: type of the answer; None answers 204. stream: the answer is NDJSON,
    one `response` a line; blank lines only say that the stream is alive. media: type of an answer that is a
    Download; one that is cut off ends without its last chunk.
    """

    method: str
    path: str
    handler: Callable[[Call], Any]
    summary: str
    access: Access = "app"
    request: type | None = None
    content: Content = "json"
    query: type | None = None
    response: Any = None
    status: int = 200
    stream: bool = False
    media: str = ""


class Download(Value):
    """An answer that is bytes. size: about how many, 0 where nobody knows."""

    chunks: Iterator[bytes]
    size: int = 0


class Caller(Value):
    """Who asks. app: what the key is limited to, "" for everything. local: over the admin socket."""

    name: str
    app: str = ""
    local: bool = False

    def allow(self, app: str) -> None:
        """Raises Denied where the key does not reach the app ("" is the platform)."""
        if self.app and self.app != app:
            about = f"the app {app}" if app else "the platform"
            raise Denied(
                f"The key {self.name} is for the app {self.app} only, not for {about}.",
                hint="Use a key without a limit: mini keys create NAME",
                code="forbidden",
            )


class Call(Value):
    """A request that passed all checks. archive: where an uploaded source was put; whoever takes it moves it. file:
    an uploaded backup, open until the answer has ended."""

    controller: Controller
    caller: Caller
    base_url: str
    params: Mapping[str, Any] = {}
    query: Any = None
    body: Any = None
    archive: Path | None = None
    file: BinaryIO | None = None
    options: api.DeployOptions = api.DeployOptions()

    @property
    def app(self) -> str:
        return str(self.params["app"])

    @property
    def actor(self) -> str:
        return self.caller.name

    def deploy(self) -> api.DeployInfo:
        """The deploy named in the path. Raises NotFound, and Denied where the key does not reach its app."""
        info = self.controller.deploy_info(self.params["deploy"])
        self.caller.allow(info.app)
        return info


def query_of(kind: type[T], given: Mapping[str, str]) -> T:
    """A query's parameters as a value: "1", "true" and "" (given without a value) are true for a flag."""
    flags = {name for name, hint in kind.__annotations__.items() if hint in ("bool", bool)}
    data = {name: True if name in flags and text == "" else text for name, text in given.items()}
    return from_data(kind, data, strict=False)


def masked(env: Mapping[str, str]) -> dict[str, str]:
    """The same names, no values."""
    return dict.fromkeys(env, "********")


def masked_release(info: api.ReleaseInfo) -> api.ReleaseInfo:
    return replace(info, env=masked(info.env))
