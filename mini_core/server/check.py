"""`python -m mini_core.server.check`: what this environment's plugins are like, as one JSON document.

An upgrade runs it with the new environment's Python before anything is switched.
"""

from __future__ import annotations

import sys

from mini_core import __version__, api
from mini_core.types import Value, encode


class Report(Value):
    version: str
    plugins: tuple[api.PluginInfo, ...]


def report() -> Report:
    from mini_core.plugins import load_plugins

    return Report(version=__version__, plugins=load_plugins().infos())


def main() -> int:
    import mini_core.server.daemon  # noqa: F401  the server's own code must load as well

    sys.stdout.write(encode(report()).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
