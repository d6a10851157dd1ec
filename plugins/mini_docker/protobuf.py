"""Protobuf's wire format (protobuf.dev/programming-guides/encoding), as far as BuildKit's messages need it.

Fields are known by their numbers, which protobuf never changes. What is not asked for is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, number or bytes) in the order of the message. Raises ValueError when it is cut off."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            item, position = _read_varint(message, position)
            yield number, item
            continue
        if kind == _BYTES:
            length, position = _read_varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if position + length > len(message):
            raise ValueError("cut off")
        yield number, message[position : position + length]
        position += length


def known(message: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    """The last value of each field: the numbers, and the texts and inner messages."""
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    for number, item in fields(message):
        if isinstance(item, int):
            numbers[number] = item
        else:
            texts[number] = item
    return numbers, texts


def encode(items: dict[int, int | bytes | str]) -> bytes:
    """A message of these fields. What is empty or 0 is left out, as the format has it."""
    message = bytearray()
    for number, item in items.items():
        if not item:
            continue
        if isinstance(item, int):
            message += _varint(number << 3 | _VARINT) + _varint(item)
            continue
        data = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else item
        message += _varint(number << 3 | _BYTES) + _varint(len(data)) + data
    return bytes(message)


def _varint(number: int) -> bytes:
    """A base-128 number, least significant group first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The number, and the position behind it."""
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
