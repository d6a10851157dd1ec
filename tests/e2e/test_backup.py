"""A whole platform, saved and made again as another one: real builds, real volumes, the real command."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_core.testing import until, write_files
from tests.e2e.platform import MiniPlatform

APP = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/keep/"):
            open("/app/data/note" if os.path.isdir("/app/data") else "data/note", "w").write(self.path[6:])
        path = "/app/data/note" if os.path.isdir("/app/data") else "data/note"
        note = open(path).read() if os.path.exists(path) else "nothing"
        body = f"{os.environ.get('GREETING')} {note}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

FILES = {
    "app.py": APP,
    "Procfile": "web: python3 app.py\n",
    "requirements.txt": "",
    "mini.toml": '[volumes]\ndata = "/app/data"\n',
}

DOCKERFILE = """
FROM python:3.13-slim
WORKDIR /app
RUN useradd app
COPY app.py .
USER app
CMD ["python3", "app.py"]
"""


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def platforms(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[MiniPlatform, MiniPlatform]]:
    """Two, as on two machines: homes of different lengths, since paths end up in files."""
    made = [MiniPlatform(tmp_path / name, request.param) for name in ("old", "new-machine")]
    for item in made:
        item.up()
        item.remember_id()
    yield made[0], made[1]
    left = []
    for item in made:
        item.mini("down", "--purge", "--yes", check=False)
        left += item.left_over()
    assert not left


def labelled(platform: MiniPlatform, number: str) -> list[str]:
    """What there is of a platform with another id."""
    before = (platform.home / "platform-id").read_text()
    (platform.home / "platform-id").write_text(number)
    try:
        return [item for item in platform.left_over() if not item.startswith("process ")]
    finally:
        (platform.home / "platform-id").write_text(before)


@pytest.mark.slow
def test_a_platform_is_restored_beside_the_one_it_was_saved_from(
    platforms: tuple[MiniPlatform, MiniPlatform], tmp_path: Path
):
    old, new = platforms
    files = FILES | ({"Dockerfile": DOCKERFILE} if old.runtime == "docker" else {})
    source = write_files(tmp_path / "source", files)
    old.mini("deploy", str(source), "blog")
    old.mini("env", "set", "GREETING=hello", "-a", "blog")
    assert old.get("blog", "/keep/precious") == (200, "hello precious")
    file = tmp_path / "platform.backup"
    files["app.py"] = files["app.py"].replace("{note}", "{note}!")
    old.mini("deploy", str(write_files(tmp_path / "newer", files)), "blog")
    assert old.get("blog") == (200, "hello precious!")
    assert "Backed up 1 app, 1 volume, 2 images" in old.mini("backup", str(file)).stderr

    new.mini("deploy", str(source), "other")
    replaced = new.json("status")["platform"]
    new.mini("restore", str(file), "--replace", "--yes")
    until(lambda: new.get("blog") == (200, "hello precious!"), what="the restored app")
    new.mini("rollback", "v2", "-a", "blog")
    assert new.get("blog") == (200, "hello precious"), "an image that was saved with the one that ran"
    new.remember_id()
    assert old.get("blog") == (200, "hello precious!"), "the other platform is as it was"
    assert [app["name"] for app in new.json("apps")] == ["blog"]
    assert new.json("status")["platform"] not in (replaced, old.json("status")["platform"])
    until(lambda: not labelled(new, replaced), seconds=60, what="the end of all that was replaced")

    assert new.get("blog", "/keep/other") == (200, "hello other"), "its volume is its own, and can be written"
    assert old.get("blog") == (200, "hello precious!")
    new.mini("env", "set", "GREETING=bye", "-a", "blog")
    assert new.get("blog") == (200, "bye other")
    tar = tmp_path / "volume.tar"
    new.mini("volumes", "export", "data", "-a", "blog", "-o", str(tar))
    listed = subprocess.run(["tar", "-xOf", str(tar), "./note"], capture_output=True, text=True, check=True)
    assert listed.stdout == "other"
