"""Secrets that can be found again: unique values, and everywhere they must not be."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from mini_core.server import adminclient

RUNTIME = {
    "PLAIN_SECRET": f"plain-{uuid.uuid4().hex}",
    "QUOTED_SECRET": f"\"quoted\\{uuid.uuid4().hex}'$HOME",
    "PEM_SECRET": f"-----BEGIN KEY-----\n{uuid.uuid4().hex}\n{uuid.uuid4().hex}\n-----END KEY-----",
    "URL_SECRET": f"postgres://user:{uuid.uuid4().hex}@db/app",
}
BUILD = {
    "BUILD_SECRET": f"build-{uuid.uuid4().hex}",
    "BUILD_PEM": f"BEGIN OF BUILD PEM\n{uuid.uuid4().hex}\nEND OF BUILD PEM",
}

PRINT_ALL = """
const names = %s;
for (const name of names) {
  console.log(name + " is " + process.env[name]);
  console.error("and again: <" + process.env[name] + ">");
  console.log(JSON.stringify({ [name]: process.env[name] }));
}
"""

SERVER = """
require("./print.js");
if (process.env.ONLY_PRINT) process.exit(Number(process.env.ONLY_PRINT));
const server = require("http").createServer((_, answer) => answer.end("kept"));
server.listen(process.env.PORT, "0.0.0.0");
process.on("SIGTERM", () => {
  delete require.cache[require.resolve("./print.js")];
  require("./print.js");
  process.exit(0);
});
"""


def needles() -> list[str]:
    """What no one may find: the random part of each value."""
    return [part for text in (*RUNTIME.values(), *BUILD.values()) for part in re.findall("[0-9a-f]{32}", text)]


def found_in(where: str, text: str | bytes) -> list[str]:
    """One line for each needle that is in the text, with what is around it."""
    data = text.encode() if isinstance(text, str) else text
    hits = []
    for needle in needles():
        at = data.find(needle.encode())
        if at >= 0:
            hits.append(f"{where}: {data[max(at - 60, 0) : at + 40]!r}")
    return hits


def write_leaky(folder: Path, *, release: int = 0, build: int = 0) -> Path:
    """An app that prints everything it knows: while it is built, in its release command, when it starts and when it
    ends. release, build: the exit codes of those."""
    folder.mkdir(exist_ok=True)
    (folder / "print.js").write_text(PRINT_ALL % json.dumps([*RUNTIME, *BUILD]))
    (folder / "server.js").write_text(SERVER)
    (folder / "build.js").write_text(f'require("./print.js");\nprocess.exit({build});\n')
    scripts = {"build": "node build.js", "start": "node server.js"}
    (folder / "package.json").write_text(json.dumps({"name": "leaky", "version": "1.0.0", "scripts": scripts}))
    (folder / "Procfile").write_text(f"web: node server.js\nrelease: env && ONLY_PRINT={release} node server.js\n")
    (folder / "mini.toml").write_text("[health]\ntimeout = 15\n")
    return folder


def answers(socket: Path, app: str) -> Iterator[tuple[str, bytes]]:
    """(address, answer) of everything that can be read through the API without asking for secrets."""
    paths = adminclient.call(socket, "GET", "/v1/openapi.json")["paths"]
    deploys = [str(item["id"]) for item in adminclient.call(socket, "GET", f"/v1/apps/{app}/deploys?limit=100")]
    versions = [str(item["version"]) for item in adminclient.call(socket, "GET", f"/v1/apps/{app}/releases")]
    for path in sorted(path for path, methods in paths.items() if "get" in methods):
        for address in _filled(path, app, deploys, versions):
            for query in ("", "?build=true&lines=100000&limit=1000"):
                yield address + query, _read(socket, address + query)


def _filled(path: str, app: str, deploys: list[str], versions: list[str]) -> list[str]:
    found = [path.replace("{app}", app)]
    for name, values in (("{deploy}", deploys), ("{version}", versions)):
        found = [item.replace(name, value) for item in found for value in (values if name in item else ("",))]
    return [item for item in found if "{" not in item]


def _read(socket: Path, address: str) -> bytes:
    connection = adminclient.UnixConnection(socket, 60)
    try:
        connection.request("GET", address)
        return connection.getresponse().read()
    finally:
        connection.close()


def image_bytes(platform: str) -> Iterator[tuple[str, bytes]]:
    """(what, content) of the history, the description and all layers of each image of the platform."""
    command = ["docker", "images", "-q", "--no-trunc", "--filter", f"label=mini.platform={platform}"]
    for image in sorted(set(_out(*command).decode().split())):
        yield f"history of {image}", _out("docker", "history", "--no-trunc", "--format", "{{json .}}", image)
        yield f"description of {image}", _out("docker", "image", "inspect", image)
        with tarfile.open(fileobj=io.BytesIO(_out("docker", "save", image))) as saved:
            for item in saved:
                if item.isfile() and item.size < OWN_LAYER:
                    content = saved.extractfile(item)
                    assert content
                    yield f"{item.name} of {image}", content.read()


OWN_LAYER = 20 * 1024 * 1024
"""Bytes. Larger layers are the base image's."""


def _out(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()
