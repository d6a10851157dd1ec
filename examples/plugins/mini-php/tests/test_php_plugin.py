import json

import pytest
from mini_core.sources import MemorySource
from mini_core.testing import BuildpackContract, LogSinkContract
from mini_core.types import BuildSettings, Strength
from mini_php import PhpPlugin
from mini_php.buildpack import PhpBuildpack
from mini_php.sink import FileSink


class TestBuildpack(BuildpackContract):
    @pytest.fixture
    def buildpack(self):
        return PhpBuildpack()

    @pytest.fixture
    def recognised(self):
        return {"composer.json": '{"require": {"slim/slim": "^4"}}', "public/index.php": "<?php echo 'hi';"}


class TestSink(LogSinkContract):
    @pytest.fixture
    def sink(self, tmp_path):
        return FileSink(tmp_path / "log")

    @pytest.fixture
    def received(self, tmp_path):
        return lambda: [json.loads(line)["text"] for line in (tmp_path / "log").read_text("utf-8").split("\n") if line]


def test_a_loose_index_php_is_weak_evidence():
    offer = PhpBuildpack().detect(MemorySource({"index.php": b"<?php"}), BuildSettings())
    assert offer.strength is Strength.LOOSE


def test_only_php_apps_get_server_workers():
    offer = PhpBuildpack().detect(MemorySource({"index.php": b"<?php"}), BuildSettings())
    source = MemorySource({})
    assert PhpPlugin().mini_amend_plan(source, offer.plan).env == {"PHP_CLI_SERVER_WORKERS": "4"}
