"""Apps in three languages with dependencies from their registries, built and run as local processes."""

from __future__ import annotations

import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from mini_core.interfaces import BuildRequest
from mini_core.testing import RecordingJob, until
from mini_core.types import Cache, Image, InstanceSpec, Plan, ProcessType, Secret, StaticSite, Step, Toolchain
from mini_process.builder import ProcessBuilder
from mini_process.layout import Layout
from mini_process.runtime import ProcessRuntime

PIP = Cache(name="pip", variable="PIP_CACHE_DIR")
PYTHON = Plan(
    buildpack="python",
    toolchains=(Toolchain(name="python", version=">=3.10"),),
    steps=(
        Step(name="virtual environment", argv=("python", "-m", "venv", ".venv"), files=("requirements.txt",)),
        Step(
            name="install dependencies",
            argv=("pip", "install", "-r", "requirements.txt"),
            files=("requirements.txt",),
            caches=(PIP,),
        ),
    ),
    bin=(".venv/bin",),
    processes=(ProcessType(name="web", command=("sh", "-c", "waitress-serve --listen=$HOST:$PORT app:app")),),
)
PYTHON_FILES = {
    "requirements.txt": "waitress==3.0.2\n",
    "app.py": """
        import os, sys
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"first {os.environ['GREETING']} {sys.prefix}".encode()]
    """,
}

NODE = Plan(
    buildpack="node",
    toolchains=(Toolchain(name="node", version=">=18"),),
    steps=(
        Step(
            name="install dependencies",
            argv=("npm", "install", "--no-audit"),
            files=("package.json",),
            caches=(Cache(name="npm", variable="npm_config_cache"),),
        ),
        Step(name="build", argv=("npm", "run", "build"), caches=(Cache(name="build-cache", path=".cache"),)),
    ),
    bin=("node_modules/.bin",),
    processes=(ProcessType(name="web", command=("npm", "start")),),
)
NODE_FILES = {
    "package.json": """
        {"name": "tiny", "version": "1.0.0", "private": true, "dependencies": {"is-number": "7.0.0"},
         "scripts": {"build": "node build.js", "start": "node server.js"}}
    """,
    "build.js": """
        const fs = require('fs');
        fs.mkdirSync('.cache', {recursive: true});
        const seen = fs.existsSync('.cache/count') ? Number(fs.readFileSync('.cache/count')) : 0;
        fs.writeFileSync('.cache/count', String(seen + 1));
        fs.writeFileSync('built.json', JSON.stringify({builds: seen + 1}));
    """,
    "server.js": """
        const isNumber = require('is-number');
        require('http').createServer((_, response) => {
            response.end(`${isNumber('42')} ${require('./built.json').builds} ${process.env.GREETING}`);
        }).listen(process.env.PORT, process.env.HOST);
    """,
}

GO = Plan(
    buildpack="go",
    toolchains=(Toolchain(name="go", version="1.21"),),
    steps=(
        Step(
            name="download modules",
            argv=("go", "mod", "download"),
            files=("go.mod", "go.sum"),
            caches=(Cache(name="go-modules", variable="GOMODCACHE"),),
        ),
        Step(
            name="build",
            argv=("go", "build", "-o", "bin/web", "."),
            caches=(Cache(name="go-modules", variable="GOMODCACHE"), Cache(name="go-build", variable="GOCACHE")),
            env={"CGO_ENABLED": "0"},
        ),
    ),
    processes=(ProcessType(name="web", command=("bin/web",)),),
)
GO_MODULE = "github.com/kballard/go-shellquote v0.0.0-20180428030007-95032a82bc51"
GO_FILES = {
    "go.mod": f"module example.com/tiny\n\ngo 1.21\n\nrequire {GO_MODULE}\n",
    "go.sum": (
        f"{GO_MODULE} h1:Z9n2FFNUXsshfwJMBgNA0RU6/i7WVaAegv3PtuIHPMs=\n"
        f"{GO_MODULE}/go.mod h1:CzGEWj7cYgsdH8dAjBGEr58BoE7ScuLd+fwFZ44+/x8=\n"
    ),
    "main.go": """
        package main

        import (
            "fmt"
            "net"
            "os"

            "github.com/kballard/go-shellquote"
        )

        func main() {
            listener, err := net.Listen("tcp", os.Getenv("HOST")+":"+os.Getenv("PORT"))
            if err != nil {
                panic(err)
            }
            for {
                connection, _ := listener.Accept()
                connection.Read(make([]byte, 4096))
                answer := shellquote.Join("two words") + " " + os.Getenv("GREETING")
                fmt.Fprintf(connection, "HTTP/1.0 200 OK\\r\\n\\r\\n%s", answer)
                connection.Close()
            }
        }
    """,
}


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.fixture
def answer_of(runtime: ProcessRuntime) -> Callable[[Plan, Image], str]:
    """Starts the plan's web process and gives its first answer."""

    def answer(plan: Plan, image: Image) -> str:
        endpoint = runtime.allocate(())
        variables = {"PORT": str(endpoint.port), "HOST": endpoint.host, "GREETING": "hello"}
        web = plan.process("web")
        spec = InstanceSpec(
            id=f"web-{endpoint.port}",
            app="blog",
            release=1,
            process="web",
            image=image,
            plan=plan,
            command=web.command if web else (),
            env={name: Secret(text) for name, text in variables.items()},
            endpoint=endpoint,
        )
        runtime.start(spec, RecordingJob())
        return str(until(lambda: get(f"http://{endpoint}/"), what="an answer"))

    return answer


def test_python_app_is_installed_once_code_changes_at_once_and_the_unchanged_is_not_built(
    builder: ProcessBuilder,
    layout: Layout,
    request_for: Callable[..., BuildRequest],
    answer_of: Callable[[Plan, Image], str],
) -> None:
    first = builder.build(request_for(PYTHON, PYTHON_FILES), RecordingJob())
    changed = PYTHON_FILES | {"app.py": PYTHON_FILES["app.py"].replace("first", "second")}
    job = RecordingJob()
    started = time.monotonic()
    second = builder.build(request_for(PYTHON, changed), job)
    seconds = time.monotonic() - started

    assert "install dependencies: unchanged" in job.text()
    assert "Successfully installed" not in job.text()
    assert seconds < 2
    assert first.ref != second.ref

    job = RecordingJob()
    started = time.monotonic()
    assert builder.build(request_for(PYTHON, changed), job) == second
    assert time.monotonic() - started < 1
    assert job.lines == []

    for layer in layout.layers.iterdir():  # each build stands by itself
        shutil.rmtree(layer)
    for image, word in ((first, "first"), (second, "second")):
        assert answer_of(PYTHON, image) == f"{word} hello {layout.build_of(image)}/app/.venv"


def test_node_app_installs_builds_with_its_kept_cache_and_answers(
    builder: ProcessBuilder,
    layout: Layout,
    request_for: Callable[..., BuildRequest],
    answer_of: Callable[[Plan, Image], str],
) -> None:
    builder.build(request_for(NODE, NODE_FILES), RecordingJob())
    job = RecordingJob()
    image = builder.build(request_for(NODE, NODE_FILES | {"README.md": "changed"}), job)
    assert "install dependencies: unchanged" in job.text()
    assert not (layout.build_of(image) / "app" / ".cache").exists()
    assert answer_of(NODE, image) == "true 2 hello"


@pytest.mark.slow
def test_go_app_is_compiled_with_its_modules_and_answers(
    builder: ProcessBuilder, request_for: Callable[..., BuildRequest], answer_of: Callable[[Plan, Image], str]
) -> None:
    image = builder.build(request_for(GO, GO_FILES), RecordingJob())
    assert answer_of(GO, image) == "'two words' hello"
    assert image.resolved["go"].startswith("go 1.")


def test_static_site_is_served_without_a_command(
    builder: ProcessBuilder, request_for: Callable[..., BuildRequest], answer_of: Callable[[Plan, Image], str]
) -> None:
    plan = Plan(buildpack="static", toolchains=(Toolchain(name="static"),), static=StaticSite(root="public"))
    image = builder.build(request_for(plan, {"public/index.html": "<h1>hello</h1>\n"}), RecordingJob())
    assert answer_of(plan, image) == "<h1>hello</h1>\n"


def test_a_tool_installed_before_the_dependencies_comes_with_the_build_and_leaves_the_machine_alone(
    builder: ProcessBuilder, layout: Layout, request_for: Callable[..., BuildRequest]
) -> None:
    plan = Plan(
        buildpack="python",
        toolchains=(Toolchain(name="python", version=">=3.10"),),
        steps=(
            Step(name="tool", argv=("pip", "install", "waitress==3.0.2"), files=("requirements.txt",), caches=(PIP,)),
            Step(name="use it", argv=("sh", "-c", "command -v waitress-serve > where.txt")),
        ),
    )
    image = builder.build(request_for(plan, {"requirements.txt": "", "app.py": ""}), RecordingJob())
    build = layout.build_of(image)
    where = Path((build / "app" / "where.txt").read_text().strip())
    assert where == build / "tools" / "python" / "bin" / "waitress-serve"
    assert f"{build}/tools/python/bin/python" in where.read_text()
    assert "/layers/" not in where.read_text()
