"""How fast the embedded router is, as ratios from one run: `python tests/benchmarks/router.py`.

Everything runs on this machine and shares its processors: the load (wrk, where it is installed, else a generator of
our own), the app (a bare responder in C where nginx is installed, else waitress) and what is measured. Compared are

    bare      waitress with a WSGI "hello", one process
    router    one worker of the router in front of the app
    nginx     in front of the same app, where it is installed: for honesty

at 1 and at 16 connections; then all workers beside as many bare processes; then the latency that the router adds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mini_core.types import Endpoint, Route, RouterSettings, RouteTable, Target
from mini_proxy.router import ProxyRouter

HOST = "hello.localhost"
BARE = """
import sys, socket
from waitress.server import create_server
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
sock = socket.socket(fileno=int(sys.argv[1]))
create_server(app, sockets=[sock], threads=4).run()
"""
NGINX = """
worker_processes {workers}; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream app {{ server 127.0.0.1:{app}; keepalive 32; }}
  keepalive_requests 100000000; default_type text/plain;
  server {{ listen 127.0.0.1:{app}; location / {{ return 200 "hello"; }} }}
  server {{
    listen 127.0.0.1:{front}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    location / {{ proxy_pass http://app; }}
  }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def process(*argv: str, fds: tuple[int, ...] = ()) -> Iterator[None]:
    running = subprocess.Popen(argv, pass_fds=fds, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


@contextlib.contextmanager
def bare(count: int) -> Iterator[int]:
    """`count` processes of bare waitress on one shared socket; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock, contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(process(sys.executable, "-c", BARE, str(sock.fileno()), fds=(sock.fileno(),)))
        yield wait_for(int(sock.getsockname()[1]))


@contextlib.contextmanager
def router(workers: int, app: int, folder: Path) -> Iterator[int]:
    port = free_port()
    proxy = ProxyRouter()
    state = folder / f"router-{workers}"
    proxy.start(
        RouterSettings(
            binds=(Endpoint(host="127.0.0.1", port=port),),
            state=str(state),
            controller=str(folder / "none.sock"),
            platform="benchmark",
            workers=workers,
        )
    )
    try:
        target = Target(instance="hello", host="127.0.0.1", port=app)
        proxy.apply(RouteTable(generation=1, routes=(Route(host=HOST, app="hello", targets=(target,)),)))
        yield wait_for(port)
    finally:
        proxy.stop()


@contextlib.contextmanager
def backend(folder: Path) -> Iterator[tuple[int, int]]:
    """The app's port, and that of nginx in front of it (0 where there is no nginx)."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        with bare(1) as port:
            yield port, 0
        return
    app, front = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, app=app, front=front, workers=1))
    with process(nginx, "-p", str(folder), "-c", str(config)):
        yield wait_for(app), wait_for(front)


def wait_for(port: int) -> int:
    deadline = time.monotonic() + 15
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            if b"200" in sock.recv(4096):
                return port
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing answers on port {port}")
        time.sleep(0.05)


# --- load


def load(port: int, connections: int, seconds: float) -> tuple[float, float]:
    """Requests a second, and the median latency in milliseconds."""
    if shutil.which("wrk"):
        return _wrk(port, connections, seconds)
    return _own(port, connections, seconds)


def _wrk(port: int, connections: int, seconds: float) -> tuple[float, float]:
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--latency", "-H", f"Host: {HOST}"]
    text = subprocess.run([*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    if failed := re.search(r"(Socket errors.*|Non-2xx.*)", text):
        print("  ! " + failed[1])
    rate, median = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    assert rate and median, text
    return float(rate[1]), float(median[1]) * {"us": 0.001, "ms": 1, "s": 1000}[median[2]]


def _own(port: int, connections: int, seconds: float) -> tuple[float, float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    def one() -> None:
        request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            while (start := time.perf_counter()) < until:
                sock.sendall(request)
                data = b""
                while not data.endswith(b"hello"):
                    data += sock.recv(4096)
                latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / seconds, statistics.median(latencies) * 1000


def best(ports: dict[str, int], connections: int, seconds: float, rounds: int) -> dict[str, tuple[float, float]]:
    """Measures all in turn, `rounds` times, so that other work on the machine hits each alike; the best of each."""
    for port in ports.values():
        load(port, connections, 1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            found[name].append(load(port, connections, seconds))
    return {name: max(results) for name, results in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of each; the best one counts")
    args = parser.parse_args()
    count = max(1, min(os.cpu_count() or 1, 4))
    print(f"{os.cpu_count()} processors, load by {'wrk' if shutil.which('wrk') else 'threads'}")
    with tempfile.TemporaryDirectory() as name, backend(Path(name)) as (app, front):
        print(f"{'':24}{'bare':>14}{'router':>14}{'ratio':>8}{'nginx':>15}   median added")
        for workers, connections in ((1, 1), (1, 16), (count, 16)):
            with bare(workers) as alone, router(workers, app, Path(name)) as port:
                ports = {"bare": alone, "router": port, "app": app} | ({"nginx": front} if front else {})
                results = best(ports, connections, args.seconds, args.rounds)
            rate, median = results["router"]
            nginx = f"{results['nginx'][0]:9,.0f} req/s" if front else "-"
            print(
                f"{workers} worker{'s' if workers > 1 else ' '}, {connections:2} conn.  "
                f"{results['bare'][0]:9,.0f} req/s{rate:9,.0f} req/s{rate / results['bare'][0]:8.0%}{nginx:>15}"
                f"{median - results['app'][1]:9.2f} ms"
            )


if __name__ == "__main__":
    main()
