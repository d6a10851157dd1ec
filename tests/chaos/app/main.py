"""The app of the load tests: says its version, takes its time where asked to, keeps WebSockets, can be broken."""

import base64
import hashlib
import http.server
import json
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

ABOUT = json.loads(Path("about.json").read_text())
VERSION, BROKEN = ABOUT["version"], ABOUT["broken"]
ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
GOING_AWAY = 1001

ending = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/socket":
            return self.keep_socket()
        if self.path == "/health" and BROKEN == "unhealthy":
            return self.answer(500, "sick")
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("=")[2] or 5))
        return self.answer(200, f"{VERSION} {os.environ.get('COLOUR', 'none')}")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def keep_socket(self):
        """Its version a few times a second, until SIGTERM; then a proper goodbye."""
        digest = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + ACCEPT).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        sockets.append(self)
        try:
            while not ending.wait(0.2):
                self.frame(0x1, VERSION.encode())
            self.frame(0x8, struct.pack(">H", GOING_AWAY) + VERSION.encode())
        except OSError:
            pass  # whoever asked has left
        finally:
            sockets.remove(self)

    def frame(self, kind, payload):
        self.wfile.write(bytes((0x80 | kind, len(payload))) + payload)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256


sockets = []


def end(*_):
    ending.set()
    threading.Thread(target=server.shutdown).start()


if BROKEN == "exits":
    print("no database", file=sys.stderr)
    sys.exit(4)
if BROKEN == "out of memory":
    hog = []
    while True:
        hog.append(bytearray(16 * 1024 * 1024))
if BROKEN == "never listens":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    time.sleep(3600)
server = Server((os.environ.get("HOST", ""), int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, end)
print("serving", VERSION, flush=True)
server.serve_forever()
while sockets:
    time.sleep(0.01)
