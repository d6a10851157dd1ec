"""The app that is deployed again and again, and the ways in which a version of it can be broken."""

from __future__ import annotations

from pathlib import Path

SERVER = """
import http.server, os, signal, sys, threading, time

VERSION = {version!r}
{prelude}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health" and {unhealthy!r}:
            return self.answer(500, "sick")
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("=")[2] or 5))
        self.answer(200, VERSION + " " + os.environ.get("COLOUR", "none"))

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256


server = Server((os.environ.get("HOST", ""), int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", VERSION, flush=True)
server.serve_forever()
"""

BROKEN = ("exits", "never listens", "unhealthy", "release fails", "out of memory", "build fails")


def write_app(folder: Path, version: str, *, broken: str = "", health_timeout: int = 6) -> Path:
    """Writes a version of the app; broken: one of BROKEN."""
    assert broken in ("", *BROKEN)
    prelude = {
        "exits": "print('no database', file=sys.stderr); sys.exit(4)",
        "never listens": "signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); time.sleep(3600)",
        "out of memory": "hog = []\nwhile True: hog.append(bytearray(16 * 1024 * 1024))",
    }.get(broken, "")
    folder.mkdir(exist_ok=True)
    code = SERVER.format(version=version, prelude=prelude, unhealthy=broken == "unhealthy")
    (folder / "main.py").write_text(code)
    release = "release: python -c \"import sys; print('migration failed'); sys.exit(9)\"\n"
    (folder / "Procfile").write_text("web: python main.py\n" + (release if broken == "release fails" else ""))
    (folder / "mini.toml").write_text(f'[health]\npath = "/health"\ntimeout = {health_timeout}\n')
    (folder / "requirements.txt").write_text("no-such-package-at-all==1.0\n" if broken == "build fails" else "")
    return folder
