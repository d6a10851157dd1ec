"""An error is two lines: what is wrong, what to do."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mini_core import __version__
from mini_core.client.http import version_mismatch
from tests.cli.conftest import Mini
from tests.cli.fake_platform import FakeServer

Handle = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def answering(handle: Handle, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers every request in one way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handle(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reply(status: int, body: bytes = b"", **headers: str) -> Handle:
    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, item in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), item)
        request.end_headers()
        request.wfile.write(body)

    return handle


def error_of(mini: Mini, *arguments: str, code: int = 1) -> tuple[str, str]:
    result = mini(*arguments, code=code)
    lines = result.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("Error: "), result.err
    assert result.out == ""
    return lines[0].removeprefix("Error: "), lines[1]


def test_an_unreachable_server(mini: Mini):
    what, todo = error_of(mini, "apps", "--host", "http://127.0.0.1:1")
    assert what == "Cannot reach http://127.0.0.1:1: connection refused"
    assert todo == "Look at the address: mini config show"


def test_a_host_that_does_not_exist(mini: Mini):
    what, _ = error_of(mini, "apps", "--host", "https://nowhere.invalid")
    assert what == "Cannot reach https://nowhere.invalid: there is no host nowhere.invalid"


def test_a_missing_and_a_wrong_key(mini: Mini, server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINI_API_KEY", "wrong")
    assert error_of(mini, "apps") == ("No such key", "Set the right one: mini config set-api-key")
    monkeypatch.delenv("MINI_API_KEY")
    assert error_of(mini, "apps") == ("This needs a key", "Set it: mini config set-api-key")


def test_an_app_that_does_not_exist(mini: Mini, server: FakeServer):
    assert error_of(mini, "ps", "nope") == ("No app nope", "See which there are: mini apps")


def test_a_server_that_is_something_else(mini: Mini):
    with answering(reply(200, b"<html>hello</html>")) as url:
        assert error_of(mini, "apps", "--host", url)[0] == "The server's answer is not understood"
    with answering(reply(404, b"<html>no</html>")) as url:
        what, todo = error_of(mini, "apps", "--host", url)
        assert what == f"{url} answers 404, and not as a mini server" and "mini config show" in todo


def test_a_redirect_is_not_followed_with_the_key(mini: Mini, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINI_API_KEY", "secret")
    with answering(reply(301, Location="https://mini.example.com/")) as url:
        what, todo = error_of(mini, "apps", "--host", url)
        assert what == f"{url} redirects to https://mini.example.com/"
        assert todo == "mini config set-host https://mini.example.com/"


def test_a_controller_that_restarts_is_waited_for(mini: Mini):
    answers = iter([(503, b"<html>"), (503, b"<html>"), (200, b"[]")])

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        status, body = next(answers)
        reply(status, body)(request)

    with answering(handle) as url:
        assert mini("apps", "--json", "--host", url).out == "[]\n"


def test_a_certificate_that_nobody_vouches_for(mini: Mini, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with answering(reply(200, b"[]"), context) as url:
        what, _ = error_of(mini, "apps", "--host", url)
        assert what.startswith(f"The certificate of {url} cannot be trusted: self")


def test_https_where_there_is_none(mini: Mini):
    with answering(reply(200, b"[]")) as url:
        what, _ = error_of(mini, "apps", "--host", url.replace("http:", "https:"))
        assert "no HTTPS there" in what


def test_a_server_that_hangs_up(mini: Mini):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        what, _ = error_of(mini, "stop", "blog", "--host", url)
        assert what == f"No answer from {url}: the connection was closed"
        thread.join()


def test_wrong_usage_ends_with_2_and_names_the_help(mini: Mini):
    assert error_of(mini, "scale", "--cpu", "x", code=2)[1] == "See: mini scale --help"
    what, todo = error_of(mini, "deplyo", code=2)
    assert (what, todo) == ("No such command: deplyo. Did you mean deploy?", "See: mini --help")
    assert error_of(mini, "deploys", "show", "x", code=2)[1] == "See: mini deploys show --help"
    assert error_of(mini, "logs", "--since", "soon", code=2)[0].endswith("write 30m, 02:00 or 2026-11-24T02:00")
    assert error_of(mini, "logs", "--grep", "(", code=2)[0].endswith("missing ), unterminated subpattern at position 0")


def test_a_bug_is_two_lines_and_a_traceback_only_when_asked_for(mini: Mini, monkeypatch: pytest.MonkeyPatch):
    from mini_core.cli import context

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(context.Context, "address", broken)
    what, todo = error_of(mini, "apps")
    assert what == "This is a bug in mini: ZeroDivisionError: oh no"
    assert todo == "MINI_DEBUG=1 shows where; please report it."
    monkeypatch.setenv("MINI_DEBUG", "1")
    assert "Traceback" in mini("apps", code=1).err


def test_a_servers_bug_is_told_in_its_words(mini: Mini, server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server.controller, "ps", lambda app: 1 // 0)
    what, todo = error_of(mini, "ps", "blog")
    assert what.startswith("Internal error ") and "platform.log" in todo


def test_different_versions_say_which_to_upgrade():
    assert version_mismatch("0.2.0", "0.2.7") == ""
    assert "upgrade the server" in version_mismatch("0.3.0", "0.2.7")
    assert "upgrade this one" in version_mismatch("0.2.0", "0.3.0")
    assert "upgrade this one" in version_mismatch("0.9.0", "0.10.0")
    assert "mini down, then mini up" in version_mismatch("0.3.0", "0.2.0", local=True)


def test_a_newer_server_is_mentioned_once(mini: Mini):
    with answering(reply(200, b"[]", Mini_Version="99.1.0")) as url:
        result = mini("apps", "--json", "--host", url)
        assert result.out == "[]\n"
        line = result.err.splitlines()[0]
        assert result.err.count("99.1.0:") == 1
        assert line.startswith(f"Warning: This is mini {__version__}, the server has 99.1.0: upgrade this one: ")


def test_output_that_nobody_reads_any_more_is_no_error(server: FakeServer, folder: Path):
    import sys

    command = f"{sys.executable} -m mini_core.cli.main --help | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("Usage: mini") and done.stderr == ""
