"""The kit for plugin authors: contract tests for everything that a plugin can provide.

Subclass the contract in your tests and define the fixtures that it names; pytest collects the rest:

    from mini_core.testing import BuildpackContract

    class TestPhp(BuildpackContract):
        @pytest.fixture
        def buildpack(self):
            return PhpBuildpack()

        @pytest.fixture
        def recognised(self):
            return {"index.php": "<?php echo 'hi';"}

mini's own plugins pass the same contracts.
"""

from __future__ import annotations

from mini_core.testing.buildpacks import BuilderContract, BuildpackContract
from mini_core.testing.helpers import Files, RecordingJob, free_port, pure, tar_of, until, write_files
from mini_core.testing.routers import RouterContract, Upstream
from mini_core.testing.runtimes import SERVER, RuntimeContract
from mini_core.testing.sinks import DestroyContract, LogSinkContract

__all__ = [
    "SERVER",
    "BuilderContract",
    "BuildpackContract",
    "DestroyContract",
    "Files",
    "LogSinkContract",
    "RecordingJob",
    "RouterContract",
    "RuntimeContract",
    "Upstream",
    "free_port",
    "pure",
    "tar_of",
    "until",
    "write_files",
]
