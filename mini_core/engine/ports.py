"""Where in a source the port is written that an app listens on. Pure."""

from __future__ import annotations

import re

from mini_core.interfaces import Source

CODE = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".go", ".rb", ".php", ".rs", ".java", ".sh", ".toml", ".yml")
NAMES = ("Procfile", "package.json", "Dockerfile")
OTHERS = re.compile(r"(?:^|/)(?:node_modules|vendor|\.?venv|dist|build|tests?|docs)/")
ABOUT = re.compile(r"(?i)port|listen|bind|serve|addr|run")


def find_port(source: Source, port: int) -> str:
    """`server.js:14`, or "" where no line of code looks like it. A line that also says what the number is for is
    preferred to one that is just a number."""
    number = re.compile(rf"(?<![\w.]){port}(?![\w.])")
    bare = ""
    for path in source.files():
        if OTHERS.search(path) or not (path.endswith(CODE) or path.rpartition("/")[2] in NAMES):
            continue
        for count, line in enumerate((source.text(path) or "").splitlines(), 1):
            if number.search(line):
                if ABOUT.search(line):
                    return f"{path}:{count}"
                bare = bare or f"{path}:{count}"
    return bare
