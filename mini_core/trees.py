"""The digest of a source tree, the same on the machine that packs it and on the server that unpacks it.

It covers paths, contents, links and the executable bit, not times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def tree_line(kind: str, path: str, content: str = "") -> bytes:
    """An entry's part of the digest. content: a file's SHA-256, a link's target. NUL appears in none of them."""
    return "\0".join((kind, path, content)).encode("utf-8", "surrogateescape")


def tree_digest(lines: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for line in sorted(lines):
        sha.update(len(line).to_bytes(8, "big") + line)
    return "sha256:" + sha.hexdigest()
