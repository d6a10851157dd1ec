"""Sends a folder to BuildKit as it asks for it: all names first, then the contents that it does not have yet.

The protocol is fsutil's (github.com/tonistiigi/fsutil, types/wire.proto and send.go), called DiffCopy in BuildKit:

    Packet  1 type (0 stat, 1 request, 2 data, 3 end, 4 error)   2 stat   3 id   4 data
    Stat    1 path  2 mode  5 size  6 modification time, ns  7 link

Each entry is a stat packet; its position is its id; one without a stat ends the list. Names come in the order of a
walk that goes into a folder when it meets it. A file that was asked for is data packets, and an empty one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from mini_docker.context import Entry
from mini_docker.protobuf import encode, known
from mini_docker.rpc import UNKNOWN, Failed

_STAT, _REQUEST, _DATA, _END, _ERROR = range(5)

_CHUNK = 32 * 1024

_GO_FOLDER, _GO_LINK = 1 << 31, 1 << 27
"""Kinds of file in Go's os.FileMode; the lowest nine bits are Unix permissions."""


def send(entries: Sequence[Entry], messages: Iterator[bytes]) -> Iterator[bytes]:
    """entries: sorted, folders before what they hold. Raises OSError where a file cannot be read."""
    for entry in entries:
        yield encode({1: _STAT, 2: _stat(entry)})
    yield encode({1: _STAT})
    for message in messages:
        numbers, texts = known(message)
        kind, number = numbers.get(1, _STAT), numbers.get(3, 0)
        if kind == _REQUEST:
            yield from _content(entries[number], number)
        elif kind == _END:
            yield encode({1: _END})
            return
        elif kind == _ERROR:
            raise Failed(UNKNOWN, texts.get(4, b"").decode("utf-8", "replace"))


def _content(entry: Entry, number: int) -> Iterator[bytes]:
    with entry.open() as file:
        while data := file.read(_CHUNK):
            yield encode({1: _DATA, 3: number, 4: data})
    yield encode({1: _DATA, 3: number})


def _stat(entry: Entry) -> bytes:
    mode = entry.mode & 0o777
    if stat.S_ISDIR(entry.mode):
        mode |= _GO_FOLDER
    elif stat.S_ISLNK(entry.mode):
        mode |= _GO_LINK
    return encode({1: entry.path, 2: mode, 5: entry.size, 6: entry.modified, 7: entry.target})
