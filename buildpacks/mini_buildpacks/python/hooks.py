"""Heroku's hooks of a Python build: `bin/pre_compile` before anything is installed, `bin/post_compile` at the end.

https://devcenter.heroku.com/articles/python-support (pre_compile and post_compile hooks).
"""

from __future__ import annotations

from collections.abc import Sequence

from mini_core.interfaces import Source
from mini_core.types import Step, replace

PRE, POST = "bin/pre_compile", "bin/post_compile"


def added(source: Source, steps: Sequence[Step]) -> list[Step]:
    """The steps with those that the hooks are. What comes after `bin/pre_compile` sees all that it may have changed:
    then a change of code installs anew, from the package manager's cache."""
    found = list(steps)
    if source.read(POST) is not None:
        found = before_tidy(found, _step(POST))
    if source.read(PRE) is not None:
        found = [_step(PRE), *(replace(step, files=()) for step in found)]
    return found


def before_tidy(steps: Sequence[Step], step: Step) -> list[Step]:
    """Before the package manager is removed, so that nothing runs twice when only the code changes."""
    if steps and steps[-1].name == "tidy" and not steps[-1].files:
        return [*steps[:-1], step, steps[-1]]
    return [*steps, step]


def _step(file: str) -> Step:
    return Step(name=file.rpartition("/")[2], argv=("sh", "-c", f"chmod +x {file} && {file}"))
