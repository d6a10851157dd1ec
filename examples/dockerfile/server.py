"""Listens on the port that its Dockerfile names, whatever PORT says, as many images do."""

import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"Hello from a Dockerfile\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: exit(0))
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
