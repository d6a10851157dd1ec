"""The file server of local processes, asked over HTTP."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core.testing import free_port, until, write_files
from mini_process import static_server

PAGE = "<!doctype html><title>home</title>\n" + "<p>words</p>\n" * 200


class Site:
    """A running server, and what it answers."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.port = free_port()
        argv = [sys.executable, "-I", static_server.__file__, "--root", str(root), "--port", str(self.port), *arguments]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline().startswith(b"serving")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, text in headers.items():
                connection.putheader(name.replace("_", "-"), text)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def status(self, path: str, **headers: str) -> int:
        return self.ask(path, **headers)[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("site")
    write_files(parent, {"secret.txt": "outside"})
    root = write_files(
        parent / "public",
        {
            "about.html": "about\n",
            "assets/app-4f9d21c8.js": "console.log('hello')\n",
            "docs/index.html": "docs\n",
            "docs/empty.txt": "",
            "empty/.keep": "",
            "404.html": "nothing here\n",
            ".env": "KEY=1",
            ".git/config": "url",
            ".well-known/security.txt": "mailto:me\n",
            "with space ä.txt": "found\n",
        },
    )
    (root / "index.html").write_text(PAGE)
    (root / "data.bin").write_bytes(bytes(range(256)) * 4000)
    (root / "site.tar.gz").write_bytes(gzip.compress(b"data"))
    (root / "leads-out").symlink_to(parent / "secret.txt")
    (root / "leads-up").symlink_to(parent)
    (root / "inside.txt").symlink_to("docs/index.html")
    return root


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[Site]:
    site = Site(root, "--immutable", "assets/")
    yield site
    site.close()


@pytest.fixture(scope="module")
def single_page(root: Path) -> Iterator[Site]:
    site = Site(root, "--fallback", "index.html", "--immutable", "assets/")
    yield site
    site.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/about", "text/html; charset=utf-8"),
        ("/docs/", "text/html; charset=utf-8"),
        ("/assets/app-4f9d21c8.js", "text/javascript; charset=utf-8"),
        ("/data.bin", "application/octet-stream"),
        ("/site.tar.gz", "application/gzip"),
        ("/with%20space%20%C3%A4.txt", "text/plain; charset=utf-8"),
        ("/.well-known/security.txt", "text/plain; charset=utf-8"),
        ("/inside.txt", "text/plain; charset=utf-8"),
    ],
)
def test_files_are_found_and_have_their_types(site: Site, path: str, kind: str) -> None:
    status, headers, body = site.ask(path)
    assert (status, headers["content-type"]) == (200, kind)
    assert int(headers["content-length"]) == len(body)
    assert "content-encoding" not in headers
    assert "server" not in headers


def test_a_folder_without_its_slash_is_sent_to_it_with_its_query_and_nowhere_else(site: Site) -> None:
    status, headers, _ = site.ask("/docs?page=2")
    assert (status, headers["location"]) == (301, "/docs/?page=2")
    status, headers, _ = site.ask("//docs")
    assert (status, headers.get("location")) in {(301, "/docs/"), (404, None)}


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/.env",
        "/.git/config",
        "/docs/../.env",
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/docs/..%5c..%5csecret.txt",
        "/leads-out",
        "/leads-up/secret.txt",
        "/index.html%00.txt",
        "/empty/",
        "/index.html/",
        "/.well-known/.hidden",
        "/%ff%fe",
    ],
)
def test_what_is_not_public_is_not_there(site: Site, path: str) -> None:
    status, headers, body = site.ask(path)
    assert (status, body) == (404, b"nothing here\n")
    assert headers["content-type"] == "text/html; charset=utf-8"


def test_unknown_paths_of_a_single_page_app_give_its_page_but_lost_assets_and_hidden_files_do_not(
    single_page: Site,
) -> None:
    status, headers, body = single_page.ask("/users/42")
    assert (status, body, headers["cache-control"]) == (200, PAGE.encode(), "no-cache")
    assert single_page.status("/assets/app-old00000.js") == 404
    assert single_page.status("/.env") == 404


def test_hashed_assets_are_kept_for_good_and_everything_else_is_asked_for_again(site: Site) -> None:
    assert site.ask("/assets/app-4f9d21c8.js")[1]["cache-control"] == "public, max-age=31536000, immutable"
    assert site.ask("/index.html")[1]["cache-control"] == "no-cache"


def test_what_the_browser_has_is_not_sent_again(site: Site, root: Path) -> None:
    _, headers, _ = site.ask("/")
    etag, modified = headers["etag"], headers["last-modified"]
    status, again, body = site.ask("/", If_None_Match=f'"other", W/{etag}')
    assert (status, body, again["etag"]) == (304, b"", etag)
    assert site.status("/", If_Modified_Since=modified) == 304
    assert site.status("/", If_None_Match='"other"', If_Modified_Since=modified) == 200
    assert site.status("/", If_Modified_Since="not a date") == 200


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "first", "length"),
    [
        ("bytes=0-9", 206, "bytes 0-9/1024000", 0, 10),
        ("bytes=1000-", 206, "bytes 1000-1023999/1024000", 1000, 1023000),
        ("bytes=-24", 206, "bytes 1023976-1023999/1024000", 1023976, 24),
        ("bytes=0-9999999", 206, "bytes 0-1023999/1024000", 0, 1024000),
        ("bytes=1024000-", 416, "bytes */1024000", None, None),
        ("bytes=9-0", 200, None, 0, 1024000),
        ("bytes=0-1,5-6", 200, None, 0, 1024000),
        ("lines=1-2", 200, None, 0, 1024000),
    ],
)
def test_ranges(
    site: Site, asked: str, status: int, content_range: str | None, first: int | None, length: int | None
) -> None:
    answered, headers, body = site.ask("/data.bin", Range=asked)
    assert (answered, headers.get("content-range")) == (status, content_range)
    if first is not None:
        assert body == (bytes(range(256)) * 4000)[first : first + (length or 0)]


def test_a_range_of_another_version_gives_the_whole_file(site: Site) -> None:
    etag = site.ask("/data.bin")[1]["etag"]
    assert site.status("/data.bin", Range="bytes=0-9", If_Range=etag) == 206
    assert site.status("/data.bin", Range="bytes=0-9", If_Range='"other"') == 200


def test_text_is_compressed_for_those_who_take_it(site: Site) -> None:
    status, headers, body = site.ask("/", Accept_Encoding="br, gzip")
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept-Encoding")
    assert gzip.decompress(body) == PAGE.encode()
    assert headers["etag"].startswith("W/")
    assert site.status("/", If_None_Match=headers["etag"]) == 304
    assert "content-encoding" not in site.ask("/", Accept_Encoding="gzip;q=0")[1]
    assert "content-encoding" not in site.ask("/data.bin", Accept_Encoding="gzip")[1]


def test_head_has_the_headers_of_get_and_no_body(site: Site) -> None:
    for path in ("/", "/data.bin", "/docs/empty.txt", "/nope"):
        status, headers, body = site.ask(path, method="HEAD")
        got = site.ask(path)
        assert (status, body) == (got[0], b"")
        assert headers["content-length"] == got[1]["content-length"] == str(len(got[2]))


def test_other_methods_are_refused(site: Site) -> None:
    status, headers, _ = site.ask("/", method="POST", Content_Length="0")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_hundreds_of_open_connections_do_not_keep_others_out(site: Site) -> None:
    idle = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(300)]
    try:
        assert site.status("/") == 200
    finally:
        for connection in idle:
            connection.close()


def test_sigterm_lets_a_download_finish_and_accepts_no_more(root: Path) -> None:
    (root / "large.bin").write_bytes(os.urandom(1 << 20) * 24)
    site = Site(root)
    try:
        idle = socket.create_connection(("127.0.0.1", site.port))
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
        connection.request("GET", "/large.bin")
        answer = connection.getresponse()
        first = answer.read(1000)
        site.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", site.port)).close()
                return False
            except ConnectionRefusedError:
                return True

        until(refused, what="that nobody is accepted any more")
        assert len(first + answer.read()) == 24 << 20
        connection.close()
        assert site.process.wait(10) == 0
        idle.close()
    finally:
        site.close()


def test_many_clients_get_whole_files(site: Site) -> None:
    sizes: list[int] = []

    def fetch() -> None:
        sizes.extend(len(site.ask("/data.bin")[2]) for _ in range(5))

    threads = [threading.Thread(target=fetch) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [1024000] * 100
