"""BuildKit over the plain Engine API: what `POST /build?version=2` says while it builds.

Its progress comes as `{"id": "moby.buildkit.trace", "aux": BASE64}`, a protobuf message `StatusResponse`
(moby/buildkit api/services/control/control.proto). Only the few fields that are needed are read here, by their
numbers, which protobuf never changes; all others are skipped:

    StatusResponse  1 vertexes (repeated Vertex)   2 statuses (repeated VertexStatus)   3 logs (repeated VertexLog)
    Vertex          1 digest  3 name  4 cached  5 started  6 completed  7 error
    VertexStatus    1 ID  2 vertex  4 current  5 total  8 completed
    VertexLog       1 vertex  3 stream  4 msg
"""

from __future__ import annotations

from collections.abc import Iterator

from mini_core.types import Value

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, number or bytes) in the order of the message. Raises ValueError when it is cut off."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            item, position = _varint(message, position)
            yield number, item
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if position + length > len(message):
            raise ValueError("cut off")
        yield number, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A base-128 number, least significant group first, and the position behind it."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("cut off")
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number has more than ten bytes")


def _known(message: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    for number, item in fields(message):
        if isinstance(item, int):
            numbers[number] = item
        else:
            texts[number] = item
    return numbers, texts


def _vertex(message: bytes) -> Vertex:
    numbers, texts = _known(message)
    return Vertex(
        digest=_text(texts, 1),
        name=_text(texts, 3),
        cached=bool(numbers.get(4)),
        started=_seconds(texts.get(5)),
        completed=_seconds(texts.get(6)),
        error=_text(texts, 7),
    )


def _progress(message: bytes) -> Progress:
    numbers, texts = _known(message)
    current, total = numbers.get(4, 0), numbers.get(5, 0)
    return Progress(vertex=_text(texts, 2), id=_text(texts, 1), current=current, total=total, completed=8 in texts)


def _output(message: bytes) -> Output:
    numbers, texts = _known(message)
    return Output(vertex=_text(texts, 1), stream=numbers.get(3, 1), data=texts.get(4, b""))


def _seconds(timestamp: bytes | None) -> float:
    """Of google.protobuf.Timestamp: 1 seconds, 2 nanoseconds."""
    numbers = _known(timestamp)[0] if timestamp else {}
    return numbers.get(1, 0) + numbers.get(2, 0) / 1e9


def _text(texts: dict[int, bytes], number: int) -> str:
    return texts.get(number, b"").decode("utf-8", "replace")
