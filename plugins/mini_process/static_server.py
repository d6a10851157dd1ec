"""Serves a folder of files over HTTP, for static sites on a machine without Docker.

    python static_server.py --root FOLDER --host 127.0.0.1 --port 20000 [--fallback index.html] [--immutable assets/]…

waitress speaks HTTP; this is the WSGI app that chooses the file. Methods other than GET and HEAD get 405. Conditional
requests and ranges are those of RFC 9110 (one range; several are answered with the whole). A folder's index.html
answers for it, at the address with a slash; `/about` finds about.html. Files and folders whose names begin with a dot
are not there, but for /.well-known (RFC 8615); nor is what a link leads to outside of the folder.
"""

from __future__ import annotations

import argparse
import gzip
import mimetypes
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

Headers = list[tuple[str, str]]
StartResponse = Callable[[str, Headers], Any]

TYPES = mimetypes.MimeTypes()  # Python's own table, not the machine's: the same answer everywhere
for _suffix, _type in {
    ".avif": "image/avif",
    ".cjs": "text/javascript",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "text/xml",
}.items():
    TYPES.add_type(_type, _suffix)

TEXT = re.compile(r"text/|application/(json|javascript|manifest\+json|xml|wasm)$|image/svg\+xml$|.*\+(json|xml)$")
SMALLEST_COMPRESSED, LARGEST_COMPRESSED = 1024, 8 << 20  # bytes; compressed in memory
FOREVER = "public, max-age=31536000, immutable"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


class Found(NamedTuple):
    """A file that will be served. path: the real one, after all links. kept_forever: its name changes with its
    content."""

    name: str
    path: str
    info: os.stat_result
    kept_forever: bool = False


class Part(NamedTuple):
    start: int
    length: int


class StaticSite:
    """The WSGI app. root: the folder. fallback: its file for unknown paths, "" for 404. immutable: path prefixes."""

    def __init__(self, root: Path, fallback: str = "", immutable: Sequence[str] = ()) -> None:
        self._root = os.path.realpath(root)
        self._fallback = fallback.strip("/")
        self._immutable = tuple("/" + prefix.strip("/") for prefix in immutable)

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._message(environ, start_response, "405 Method Not Allowed", [("Allow", "GET, HEAD")])
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "surrogateescape")
        found = self._find(path)
        if isinstance(found, str):
            query = environ.get("QUERY_STRING")
            location = quote(os.fsencode(found)) + (f"?{query}" if query else "")
            return self._message(environ, start_response, "301 Moved Permanently", [("Location", location)])
        if found:
            return self._serve(environ, start_response, found)
        not_found = self._file("404.html")
        if not_found:
            return self._serve(environ, start_response, not_found, status="404 Not Found")
        return self._message(environ, start_response, "404 Not Found")

    # --- which file

    def _find(self, path: str) -> Found | str | None:
        """The file for a path, the address to go to instead (for a folder without its slash), or None."""
        parts = [part for part in path.split("/") if part]
        if not _is_public(path, parts):
            return None
        name = "/".join(parts)
        if parts and not path.endswith("/"):
            found = self._file(name) or self._file(name + ".html")
            if found:
                return found._replace(kept_forever=self._is_immutable(name))
        index = self._file(f"{name}/index.html".lstrip("/")) or self._file(f"{name}/index.htm".lstrip("/"))
        if index:
            return index if path.endswith("/") or not parts else f"/{name}/"
        if not self._fallback or self._is_immutable(name):
            return None
        return self._file(self._fallback)

    def _file(self, name: str) -> Found | None:
        path = self._inside(name)
        if path is None:
            return None
        try:
            info = os.stat(path)
        except (OSError, ValueError):
            return None
        return Found(name, path, info) if stat.S_ISREG(info.st_mode) else None

    def _inside(self, name: str) -> str | None:
        """The real path, where it lies in the root after all links."""
        try:
            path = os.path.realpath(os.path.join(self._root, name))
        except (OSError, ValueError):
            return None
        return path if path == self._root or path.startswith(self._root.rstrip(os.sep) + os.sep) else None

    def _is_immutable(self, name: str) -> bool:
        path = "/" + name
        return any(path == prefix or path.startswith(prefix + "/") for prefix in self._immutable if prefix != "/")

    # --- how it is served

    def _serve(
        self, environ: Mapping[str, Any], start_response: StartResponse, found: Found, status: str = "200 OK"
    ) -> Iterable[bytes]:
        kind, coding = TYPES.guess_type(found.name)
        if coding:  # an archive is sent as it is, not as something encoded
            kind = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}.get(coding)
        kind = kind or "application/octet-stream"
        etag = f'"{found.info.st_mtime_ns:x}-{found.info.st_size:x}"'
        modified = formatdate(found.info.st_mtime, usegmt=True)
        compressible = bool(TEXT.match(kind))
        headers = [
            ("Last-Modified", modified),
            ("Cache-Control", FOREVER if found.kept_forever else "no-cache"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if compressible:
            headers.append(("Vary", "Accept-Encoding"))
        if status.startswith("200") and _is_unchanged(environ, etag, found.info.st_mtime):
            start_response("304 Not Modified", [*headers, ("ETag", etag)])
            return ()
        headers.append(("Content-Type", kind + ("; charset=utf-8" if _is_text(kind) else "")))
        part = _range(environ, found.info.st_size, etag, modified) if status.startswith("200") else None
        if part is None and compressible and _accepts_gzip(environ):
            body = _compressed(found.path, found.info.st_mtime_ns, found.info.st_size)
            if body:
                headers += [("ETag", "W/" + etag), ("Content-Encoding", "gzip"), ("Content-Length", str(len(body)))]
                start_response(status, headers)
                return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)
        headers += [("ETag", etag), ("Accept-Ranges", "bytes")]
        return self._send(environ, start_response, found, status, headers, part)

    def _send(
        self,
        environ: Mapping[str, Any],
        start_response: StartResponse,
        found: Found,
        status: str,
        headers: Headers,
        part: Part | None,
    ) -> Iterable[bytes]:
        size = found.info.st_size
        if part and part.length <= 0:
            return self._message(
                environ, start_response, "416 Range Not Satisfiable", [("Content-Range", f"bytes */{size}")]
            )
        start, length = part or Part(0, size)
        if part:
            status = "206 Partial Content"
            headers.append(("Content-Range", f"bytes {start}-{start + length - 1}/{size}"))
        headers.append(("Content-Length", str(length)))
        try:
            file = open(found.path, "rb")  # noqa: SIM115 - the server closes it when it is sent
        except OSError:
            return self._message(environ, start_response, "404 Not Found")
        start_response(status, headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            file.close()
            return ()
        file.seek(start)
        if start + length == size and "wsgi.file_wrapper" in environ:
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 1 << 16)
            return wrapped
        return _Slice(file, length)

    def _message(
        self,
        environ: Mapping[str, Any],
        start_response: StartResponse,
        status: str,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Iterable[bytes]:
        body = f"<!doctype html><title>{status}</title><h1>{status}</h1>\n".encode()
        start_response(
            status, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))), *headers]
        )
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)


class _Slice:
    """`length` bytes of a file from where it stands."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._left = length

    def __iter__(self) -> _Slice:
        return self

    def __next__(self) -> bytes:
        data = self._file.read(min(1 << 16, self._left)) if self._left else b""
        if not data:
            raise StopIteration
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def _is_public(path: str, parts: Sequence[str]) -> bool:
    if "\0" in path or "\\" in path:
        return False
    return not any(part.startswith(".") and (part != ".well-known" or index) for index, part in enumerate(parts))


def _is_text(kind: str) -> bool:
    return kind.startswith("text/") or kind in ("application/json", "application/manifest+json", "image/svg+xml")


def _is_unchanged(environ: Mapping[str, Any], etag: str, modified: float) -> bool:
    """RFC 9110, 13.2.2: If-None-Match decides where it is there; its comparison is weak."""
    tags = environ.get("HTTP_IF_NONE_MATCH")
    if tags is not None:
        return tags.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in tags.split(",")}
    try:
        since = parsedate_to_datetime(environ["HTTP_IF_MODIFIED_SINCE"])
        return int(modified) <= since.timestamp()
    except (KeyError, ValueError, OverflowError):
        return False


def _range(environ: Mapping[str, Any], size: int, etag: str, modified: str) -> Part | None:
    """The one range that is asked for (length 0: none that the file has), or None for the whole."""
    match = _RANGE.match(environ.get("HTTP_RANGE", "").replace(" ", ""))
    condition = environ.get("HTTP_IF_RANGE")
    if not match or match.groups() == ("", "") or (condition and condition not in (etag, modified)):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return Part(size - length, length)
    if last and int(last) < int(first):
        return None
    start = int(first)
    return Part(start, min(int(last) if last else size - 1, size - 1) - start + 1 if start < size else 0)


def _accepts_gzip(environ: Mapping[str, Any]) -> bool:
    for item in environ.get("HTTP_ACCEPT_ENCODING", "").split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return not re.search(r"q=0(\.0*)?\s*$", parameters)
    return False


@lru_cache(maxsize=256)
def _compressed(path: str, _modified: int, size: int) -> bytes | None:
    """The file compressed, where that makes it smaller. its time and size tell its versions apart."""
    if not SMALLEST_COMPRESSED <= size <= LARGEST_COMPRESSED:
        return None
    try:
        data = gzip.compress(Path(path).read_bytes(), 6, mtime=0)
    except OSError:
        return None
    return data if len(data) < size else None


def _finish(server: Any) -> None:
    """Stops accepting, lets every request be answered to its end, then ends the server's loop. Runs in a thread of
    its own; what touches connections is done by the server's, through its trigger."""
    over = threading.Event()

    def stop_accepting() -> None:
        server.del_channel()
        server.socket.close()

    def close_idle() -> None:
        for channel in list(server.active_channels.values()):
            if not channel.requests and not channel.total_outbufs_len:
                channel.handle_close()
        if not server.active_channels:
            over.set()
            server.trigger.close()

    server.trigger.pull_trigger(stop_accepting)
    while not over.is_set():
        server.trigger.pull_trigger(close_idle)
        over.wait(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    from waitress.server import create_server

    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fallback", default="")
    parser.add_argument("--immutable", action="append", default=[])
    options = parser.parse_args(arguments)
    if not options.root.is_dir():
        print(f"{options.root}: there is no such folder", file=sys.stderr)
        return 1
    server = create_server(
        StaticSite(options.root, options.fallback, options.immutable),
        host=options.host,
        port=options.port,
        threads=8,
        ident=None,
        connection_limit=4096,
        backlog=1024,
        channel_timeout=75,
        asyncore_use_poll=True,
        clear_untrusted_proxy_headers=False,
    )
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_finish, args=(server,), daemon=True).start())
    print(f"serving {options.root} on {options.host}:{options.port}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
