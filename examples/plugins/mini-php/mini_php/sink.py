"""A log sink that appends the lines of all apps to one file, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mini_core.types import LogLine


class FileSink:
    name = "php-file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, lines: Sequence[LogLine]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps({"at": line.at, "app": line.app, "text": line.text}) + "\n")

    def close(self) -> None:
        """Nothing is kept open between batches."""
