"""BuildKit over the plain Engine API: what `POST /build?version=2` says while it builds.

Its progress comes as `{"id": "moby.buildkit.trace", "aux": BASE64}`, a protobuf message `StatusResponse`
(moby/buildkit api/services/control/control.proto), of which these fields are read:

    StatusResponse  1 vertexes (repeated Vertex)   2 statuses (repeated VertexStatus)   3 logs (repeated VertexLog)
    Vertex          1 digest  3 name  4 cached  5 started  6 completed  7 error
    VertexStatus    1 ID  2 vertex  4 current  5 total  8 completed
    VertexLog       1 vertex  3 stream  4 msg
"""

from __future__ import annotations

from mini_core.types import Value
from mini_docker.protobuf import fields, known


class Vertex(Value):
    """A step of the build graph. started, completed: seconds since 1970 by the engine's clock, 0 before that."""

    digest: str
    name: str
    cached: bool
    started: float
    completed: float
    error: str


class Progress(Value):
    """How far something within a vertex is, such as the download of a layer. In bytes."""

    vertex: str
    id: str
    current: int
    total: int
    completed: bool


class Output(Value):
    """What a step's command wrote. stream: 1 stdout, 2 stderr. Any part of a line."""

    vertex: str
    stream: int
    data: bytes


class Status(Value):
    vertexes: tuple[Vertex, ...]
    progress: tuple[Progress, ...]
    output: tuple[Output, ...]


def decode(message: bytes) -> Status:
    """A StatusResponse. Raises ValueError for what is no protobuf message."""
    vertexes, progress, output = [], [], []
    for number, item in fields(message):
        if not isinstance(item, bytes):
            continue
        if number == 1:
            vertexes.append(_vertex(item))
        elif number == 2:
            progress.append(_progress(item))
        elif number == 3:
            output.append(_output(item))
    return Status(vertexes=tuple(vertexes), progress=tuple(progress), output=tuple(output))


def _vertex(message: bytes) -> Vertex:
    numbers, texts = known(message)
    return Vertex(
        digest=_text(texts, 1),
        name=_text(texts, 3),
        cached=bool(numbers.get(4)),
        started=_seconds(texts.get(5)),
        completed=_seconds(texts.get(6)),
        error=_text(texts, 7),
    )


def _progress(message: bytes) -> Progress:
    numbers, texts = known(message)
    current, total = numbers.get(4, 0), numbers.get(5, 0)
    return Progress(vertex=_text(texts, 2), id=_text(texts, 1), current=current, total=total, completed=8 in texts)


def _output(message: bytes) -> Output:
    numbers, texts = known(message)
    return Output(vertex=_text(texts, 1), stream=numbers.get(3, 1), data=texts.get(4, b""))


def _seconds(timestamp: bytes | None) -> float:
    """Of google.protobuf.Timestamp: 1 seconds, 2 nanoseconds."""
    numbers = known(timestamp)[0] if timestamp else {}
    return numbers.get(1, 0) + numbers.get(2, 0) / 1e9


def _text(texts: dict[int, bytes], number: int) -> str:
    return texts.get(number, b"").decode("utf-8", "replace")
