"""How long `mini deploy` and `mini rollback` take, beside plain docker commands for the same Dockerfile.

    python tests/benchmarks/redeploy.py [ROUNDS] [APP ...]

The real command on a real platform with an idle app; rounds are interleaved, each measurement waits until what the
one before has set off is over, medians are printed. The apps are small
on purpose (flask, node, go: 20 files beside the one that is served), so that most of the time is the platform's.
Compared are:

    code-only   a line has changed; until the command has ended, and the new version answers
                docker build, docker run, until the new version answers
    unchanged   nothing has changed, and mini says so
                docker build, docker run, until it answers
    rollback    to the version before; until the command has ended, and that version answers
                docker run of that version's image, until it answers: the app's own start

On the right stands the same on a network of one's own, where containers cannot reach each other, as mini's cannot: the
engine takes longer to start them there than on its default bridge.

The Dockerfile is what `mini eject` writes. Needs an engine and a `docker` command that builds with BuildKit by itself
(20.10 to 22, or with buildx). The figures for local processes stand alone: there is nothing to put beside them.
"""

from __future__ import annotations

import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.e2e.platform import MiniPlatform  # noqa: E402

APP = "redeployed"

FLASK = """
from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "version VERSION"
"""

NODE = """
const app = require("express")();
app.get("/", (request, response) => response.send("version VERSION"));
app.listen(process.env.PORT);
"""

GO = """
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "version VERSION") })
	http.ListenAndServe(":"+os.Getenv("PORT"), nil)
}
"""

APPS: dict[str, dict[str, str]] = {
    "flask": {"app.py": FLASK, "requirements.txt": "flask==3.1.3\n"},
    "node": {
        "index.js": NODE,
        "package.json": '{"name": "x", "scripts": {"start": "node index.js"}, "dependencies": {"express": "5"}}',
    },
    "go": {"main.go": GO, "go.mod": "module redeployed\n\ngo 1.26\n"},
}
"""What a deploy sends, beside files that nothing reads. VERSION stands where a line changes."""


def write(folder: Path, app: str, version: str) -> None:
    """Only the files that differ from the version before are written."""
    modules = folder / "modules"
    if not modules.exists():
        modules.mkdir(parents=True)
        for number in range(20):
            (modules / f"module{number}.txt").write_text(f"x = {number}\n" * 50)
    for name, text in APPS[app].items():
        if "VERSION" in text or not (folder / name).exists():
            (folder / name).write_text(text.replace("VERSION", version))


def answered(host: str, port: int, header: str, version: str, path: str = "/") -> None:
    """Returns when this version answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", path, headers={"Host": header})
            if connection.getresponse().read().decode() == f"version {version}":
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    raise SystemExit(f"version {version} does not answer")


class Docker:
    """Plain docker commands on the folder that `mini eject` has written to."""

    def __init__(self, folder: Path, app: str) -> None:
        self.folder = folder
        self.app = app
        self.mark = f"bench-{uuid.uuid4().hex[:8]}"
        client = shutil.which("docker", path="/usr/bin:" + os.environ["PATH"])
        assert client, "no docker command"
        self._client = client
        self._running = 0
        self._do("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", self.mark)

    def _do(self, *words: str) -> str:
        env = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run([self._client, *words], env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def build(self, version: str) -> None:
        self._do("build", "-q", "-t", f"{self.mark}:{version}", str(self.folder))

    def run(self, version: str, *, apart: bool = False) -> None:
        """apart: on a network of one's own."""
        self._running += 1
        name, network = f"{self.mark}-{self._running}", self.mark if apart else "bridge"
        limits = ("--init", "-m", "512m", "--network", network, "-e", "PORT=8080")
        self._do("run", "-d", *limits, "--name", name, f"{self.mark}:{version}")
        address = self._do("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
        answered(address, 8080, "localhost", version)

    def redeploy(self, version: str, *, apart: bool = False) -> None:
        self.build(version)
        self.run(version, apart=apart)

    def end(self) -> None:
        if names := self._do("ps", "-aq", "--filter", f"name={self.mark}").split():
            self._do("rm", "-f", *names)

    def clean(self) -> None:
        self.end()
        if images := self._do("images", "-q", self.mark).split():
            self._do("rmi", "-f", *dict.fromkeys(images))
        self._do("network", "rm", self.mark)


class Mini:
    """The same by the real command."""

    def __init__(self, platform: MiniPlatform, folder: Path, app: str) -> None:
        self.platform = platform
        self.folder = folder
        self.app = app

    def redeploy(self, version: str) -> None:
        self.platform.mini("deploy", str(self.folder), APP)
        self._answered(version)

    def rollback(self, version: str) -> None:
        self.platform.mini("rollback", "-a", APP)
        self._answered(version)

    def _answered(self, version: str) -> None:
        answered("127.0.0.1", self.platform.port, f"{APP}.localhost", version)


@contextmanager
def platform(runtime: str) -> Iterator[MiniPlatform]:
    with tempfile.TemporaryDirectory() as home:
        made = MiniPlatform(Path(home), runtime)
        made.up()
        try:
            yield made
        finally:
            made.mini("down", "--purge", "--yes")


def at_rest() -> None:
    """Returns when this machine has had next to nothing to do for a moment: old instances are drained, stopped and
    removed after a deploy has ended, and what containers leave after they have."""
    quiet, before = 0, busy()
    deadline = time.monotonic() + 20
    while quiet < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
        now = busy()
        quiet, before = (quiet + 1 if now - before < 0.03 else 0), now


def busy() -> float:
    """Seconds of processor time that the machine has spent on something (proc(5), /proc/stat)."""
    user, nice, system = Path("/proc/stat").read_text("ascii").split(maxsplit=4)[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


class Clock:
    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}

    def __call__(self, name: str, what: Callable[[], None]) -> None:
        at_rest()
        began = time.perf_counter()
        what()
        self.seen.setdefault(name, []).append(time.perf_counter() - began)

    def median(self, name: str) -> float:
        return statistics.median(self.seen[name])


def measure(runtime: str, app: str, rounds: int) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as temporary, platform(runtime) as running:
        folder, ejected = Path(temporary) / "app", Path(temporary) / "ejected"
        write(folder, app, "0")
        mini = Mini(running, folder, app)
        mini.redeploy("0")
        docker = Docker(ejected, app) if runtime == "docker" else None
        if docker:
            shutil.copytree(folder, ejected)
            running.mini("eject", cwd=ejected)
            docker.redeploy("0")
        try:
            for number in range(1, rounds + 1):
                one_round(clock, mini, docker, str(number), str(number - 1))
        finally:
            if docker:
                docker.clean()
    report(f"{runtime} {app}", clock, beside=docker is not None)


def one_round(clock: Clock, mini: Mini, docker: Docker | None, version: str, before: str) -> None:
    write(mini.folder, mini.app, version)
    clock("mini code-only", lambda: mini.redeploy(version))
    clock("mini unchanged", lambda: mini.redeploy(version))
    clock("mini rollback", lambda: mini.rollback(before))
    mini.redeploy(version)
    if docker:
        write(docker.folder, docker.app, version)
        clock("docker code-only", lambda: docker.redeploy(version))
        clock("docker unchanged", lambda: docker.redeploy(version))
        clock("docker rollback", lambda: docker.run(before))
        docker.end()
        write(docker.folder, docker.app, f"{version}-apart")
        clock("apart code-only", lambda: docker.redeploy(f"{version}-apart", apart=True))
        clock("apart unchanged", lambda: docker.redeploy(f"{version}-apart", apart=True))
        clock("apart rollback", lambda: docker.run(before, apart=True))
        docker.end()


def report(name: str, clock: Clock, *, beside: bool) -> None:
    for what in ("code-only", "unchanged", "rollback"):
        ours = clock.median(f"mini {what}")
        line = f"{name:14} {what:10} mini {ours:5.2f} s"
        if beside:
            raw, apart = clock.median(f"docker {what}"), clock.median(f"apart {what}")
            line += f"   docker {raw:5.2f} s   ratio {ours / raw:4.2f}   difference {ours - raw:+5.2f} s"
            line += f"   own network {apart:5.2f} s   ratio {ours / apart:4.2f}"
        print(line, flush=True)


def main(rounds: int, apps: list[str]) -> None:
    for runtime in ("docker", "process"):
        for app in apps:
            measure(runtime, app, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, sys.argv[2:] or list(APPS))
