"""What git knows about a folder, asked of the `git` command. Without git, or outside a repository: nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mini_core.types import Value

TIMEOUT = 60.0


class Repository(Value):
    """top: its root folder. folder: its .git folder. prefix: the way from the top to the asked folder, with "/" at
    its end, or "". tracked: path (relative to the asked folder) → whether git has it as executable."""

    top: Path
    folder: Path
    prefix: str
    tracked: Mapping[str, bool] = {}


class Head(Value):
    """commit: of HEAD, "" before the first one. changes: paths that differ from it, relative to the asked folder,
    new ones apart."""

    commit: str = ""
    branch: str = ""
    changed: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()


def find_repository(folder: Path) -> Repository | None:
    """The repository that the folder lies in, unless it ignores the folder (such as a home folder's dotfiles)."""
    if not any((place / ".git").exists() for place in (folder, *folder.parents)):
        return None
    with (
        _asking(folder, "rev-parse", "--show-toplevel", "--absolute-git-dir", "--show-prefix") as places,
        _asking(folder, "ls-files", "--stage", "-z") as files,
    ):
        top, git_folder, prefix = (*(places() or "").split("\n"), "", "", "")[:3]
        listed = (files() or "").split("\0")
    if not top or (prefix and _git(folder, "check-ignore", "-q", ".") is not None):
        return None
    tracked = {}
    for entry in listed:
        about, _, path = entry.partition("\t")
        if path and not about.startswith("160000"):
            tracked[path] = about.startswith("100755")
    return Repository(top=Path(top), folder=Path(git_folder), prefix=prefix, tracked=tracked)


@contextmanager
def asking_head(folder: Path, repository: Repository) -> Iterator[Callable[[], Head]]:
    """Gives a function that waits for the commit and what differs from it in the folder: git looks while the caller
    does something else."""
    command = ("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--", ".")
    with _asking(folder, *command) as answer:
        yield lambda: _read_head(answer() or "", repository)


def _read_head(answer: str, repository: Repository) -> Head:
    entries = iter(answer.split("\0"))
    commit = branch = ""
    changed, untracked = [], []
    for entry in entries:
        if entry.startswith("# branch.oid "):
            commit = entry.removeprefix("# branch.oid ").replace("(initial)", "")
        elif entry.startswith("# branch.head "):
            branch = entry.removeprefix("# branch.head ").replace("(detached)", "")
        elif entry.startswith("? "):
            untracked.append(entry[2:].removeprefix(repository.prefix))
        elif entry[:2] in _FIELDS:
            changed.append(entry.split(" ", _FIELDS[entry[:2]])[-1].removeprefix(repository.prefix))
            if entry.startswith("2 "):
                next(entries, "")
    return Head(commit=commit, branch=branch, changed=tuple(changed), untracked=tuple(untracked))


_FIELDS = {"1 ": 8, "2 ": 9, "u ": 10}
"""Fields in front of the path in an entry of `git status --porcelain=v2`."""


def new_files(head: Head, sent: Container[str]) -> int:
    """How many files differ from the commit, among those that are sent (or were deleted)."""
    return len(head.changed) + sum(path in sent for path in head.untracked)


def _git(folder: Path, *arguments: str) -> str | None:
    """What the command printed, or None where it failed."""
    with _asking(folder, *arguments) as answer:
        return answer()


@contextmanager
def _asking(folder: Path, *arguments: str) -> Iterator[Callable[[], str | None]]:
    """Starts the command; gives a function that waits for what `_git` returns. It is ended where nobody waited."""
    command = ["git", "-C", str(folder), *arguments]
    # A deploy from a git hook inherits GIT_DIR and GIT_INDEX_FILE, which would speak of another folder.
    env = {key: item for key, item in os.environ.items() if not key.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        yield lambda: None
        return
    with process:
        try:
            yield lambda: _answer(process)
        finally:
            process.kill()


def _answer(process: subprocess.Popen[bytes]) -> str | None:
    try:
        printed, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return None
    if process.returncode != 0:
        return None
    return os.fsdecode(printed).removesuffix("\n") if os.name != "nt" else printed.decode("utf-8", "replace")
