from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shipping_kit import Server, WheelMaker, free_port, start_sshd

from mini_core.server import units, venvs
from mini_core.server.layout import Layout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> WheelMaker:
    return WheelMaker(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if not shutil.which("sshd") and not Path("/usr/sbin/sshd").exists():
        pytest.skip("there is no sshd here (openssh-server)")
    machine = Server(Path(tempfile.mkdtemp(prefix="mini-ship-")), free_port(), free_port())
    process = start_sshd(machine)
    yield machine
    process.terminate()
    process.wait()
    shutil.rmtree(machine.folder)


@pytest.fixture(scope="session")
def installed(server: Server, wheel: WheelMaker) -> Iterator[Server]:
    """mini 90.0.0 in an environment of its own, running, with a key in its database."""
    layout = Layout(prefix=server.prefix, home=server.home)
    venvs.switch(layout, venvs.build(layout, str(wheel("90.0.0"))))
    command = layout.prefix / "bin" / "mini"
    command.parent.mkdir(exist_ok=True)
    command.write_text(units.command(layout))
    command.chmod(0o755)
    server.ssh(f"mini up --detach --runtime process --port {server.web} --bind 127.0.0.1")
    server.ssh("mini keys create kept && mini apps create blog")
    yield server
    server.ssh("mini down")
