"""A server whose controller cannot start."""

import sys

from fake_controller import FakeController

from mini_core.errors import Unavailable
from mini_core.server import daemon


class Broken(FakeController):
    def start(self) -> None:
        raise Unavailable("Address 127.0.0.1:80 is in use.", hint="mini up --port N")


sys.exit(daemon.main(opener=Broken))
