from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shipping_kit import Server, WheelMaker, free_port, start_sshd


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> WheelMaker:
    return WheelMaker(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if not shutil.which("sshd") and not Path("/usr/sbin/sshd").exists():
        pytest.skip("there is no sshd here (openssh-server)")
    machine = Server(Path(tempfile.mkdtemp(prefix="mini-ship-")), free_port())
    process = start_sshd(machine)
    yield machine
    process.terminate()
    process.wait()
    shutil.rmtree(machine.folder)
