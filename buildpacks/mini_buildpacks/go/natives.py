"""Modules that are bindings to C libraries: they need cgo, and some of them Debian packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mini_core.types import Value


class Native(Value):
    """build: packages to compile with; run: packages that the program needs."""

    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


MODULES: Mapping[str, Native] = {
    "github.com/mattn/go-sqlite3": Native(),
    "github.com/marcboeker/go-duckdb": Native(run=("libstdc++6",)),
    "github.com/confluentinc/confluent-kafka-go": Native(),
    "github.com/bytedance/gopkg/cgo": Native(),
    "github.com/h2non/bimg": Native(build=("libvips-dev", "pkg-config"), run=("libvips42",)),
    "github.com/davidbyttow/govips": Native(build=("libvips-dev", "pkg-config"), run=("libvips42",)),
    "gopkg.in/gographics/imagick": Native(build=("libmagickwand-dev", "pkg-config"), run=("libmagickwand-6.q16-6",)),
    "github.com/godror/godror": Native(),
    "github.com/libgit2/git2go": Native(build=("libgit2-dev", "pkg-config"), run=("libgit2-1.5",)),
    "github.com/pebbe/zmq4": Native(build=("libzmq3-dev", "pkg-config"), run=("libzmq5",)),
    "github.com/tecbot/gorocksdb": Native(build=("librocksdb-dev",), run=("librocksdb7.8",)),
}


def natives(requires: Iterable[str]) -> tuple[Native, ...]:
    """What the required modules need; empty where all are plain Go. Major versions (`/v2`, `.v3`) count as one."""
    wanted = list(requires)
    return tuple(
        native
        for path, native in MODULES.items()
        if any(item == path or item.startswith((f"{path}/", f"{path}.")) for item in wanted)
    )
