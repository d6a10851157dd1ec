"""A controller on the real process runtime and router that dies at a given point of a deploy, as by `kill -9`.

    python dying_controller.py HOME PORT ARCHIVE POINT

POINT: a step ("built": right after it was written down), "started" (an instance runs, which nothing knows yet),
"published" (the router has the new table, nothing else does), or "never".
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mini_core import api
from mini_core.controller import open_controller
from mini_core.engine import rollout
from mini_core.engine.routing import Publisher
from mini_core.paths import find_paths
from mini_core.settings import Settings
from mini_core.store.deploys import Deploys

DEAD = -9


def settings(port: int) -> Settings:
    return Settings(
        port=port, bind=("127.0.0.1",), runtime="process", drain=5.0, grace=2.0, disk_reserve=0, disabled=("docker",)
    )


def dying_after(function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        answer = function(*arguments, **named)
        if when(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return wrapped


def main(home: str, port: str, archive: str, point: str) -> None:
    controller = open_controller(settings(int(port)), find_paths(home))
    controller.start()
    if point == "started":
        rollout.start = dying_after(rollout.start, lambda *_: True)
    elif point == "published":
        Publisher.push = dying_after(Publisher.push, lambda *_: True)  # type: ignore[method-assign]
    elif point in ("routed", "drained"):
        Deploys.advance = dying_after(Deploys.advance, lambda *given: given[2] == "drained")  # type: ignore[method-assign]
        if point == "routed":
            Publisher.push = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    else:
        Deploys.advance = dying_after(Deploys.advance, lambda *given: given[2] == point)  # type: ignore[method-assign]
    info = controller.deploy("blog", Path(archive), api.DeployOptions(), "ci", "")
    for _ in controller.deploy_events(info.id):
        pass
    controller.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
