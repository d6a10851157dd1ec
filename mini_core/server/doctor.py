"""What the core itself checks for `mini doctor`."""

from __future__ import annotations

from mini_core.controller import Controller
from mini_core.types import Check


def checks(controller: Controller) -> tuple[Check, ...]:
    return ()
