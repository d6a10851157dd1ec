"""The files of a restore that is under way, and how they become the platform's own in one step.

    data/transfer/restore/   what is being prepared: mini.db, secret.key, staged.json
    data/transfer/commit/    the same, once nothing is left to prepare: the rename is the commit point. Whoever opens
                             the store next moves the files where they belong
    data/transfer/backup-*/  the copy of the store that a backup is made of
    data/restored/ID/        plugins' parts, until the plugins have taken them

Nothing of the platform that runs is touched before the commit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mini_core.paths import Paths
from mini_core.types import Image, Value, decode, encode

DATABASE, KEY, SETTINGS, STAGED = "mini.db", "secret.key", "server.toml", "staged.json"


class Staged(Value):
    """What a restore has begun to make, written before it makes any of it. platform: the new id. handles: of the
    apps, old → new. images: those that come under another platform's name, which was not here before."""

    platform: str
    runtime: str
    handles: Mapping[str, str] = {}
    images: tuple[Image, ...] = ()


def key_file(paths: Paths) -> Path:
    return paths.config / KEY


def folder(paths: Paths) -> Path:
    return paths.data / "transfer"


def staging(paths: Paths) -> Path:
    return folder(paths) / "restore"


def plugin_parts(paths: Paths, platform: str) -> Path:
    return paths.data / "restored" / platform


def note(paths: Paths, staged: Staged) -> None:
    write_whole(staging(paths) / STAGED, encode(staged))


def abandoned(paths: Paths) -> Staged | None:
    """What a restore that did not reach its end had begun."""
    try:
        return decode(Staged, (staging(paths) / STAGED).read_bytes())
    except (OSError, ValueError):
        return None


def forget(paths: Paths, staged: Staged | None = None) -> None:
    if staged is not None:
        shutil.rmtree(plugin_parts(paths, staged.platform), ignore_errors=True)
    shutil.rmtree(staging(paths), ignore_errors=True)


def commit(paths: Paths) -> None:
    """From here on the restored platform is the one that there is. Nobody may have the store open."""
    staging(paths).replace(folder(paths) / "commit")
    finish(paths)


def finish(paths: Paths) -> None:
    """Moves what was committed to its place, as far as that was not done; and clears away backups that were cut
    short. Called before the store is opened."""
    done = folder(paths) / "commit"
    if done.is_dir():
        if (done / KEY).exists():
            write_whole(key_file(paths), (done / KEY).read_bytes())
        if (done / SETTINGS).exists():
            _keep_settings(paths, (done / SETTINGS).read_bytes())
        if (done / DATABASE).exists():
            for suffix in ("-wal", "-shm"):
                paths.database.with_name(paths.database.name + suffix).unlink(missing_ok=True)
            (done / DATABASE).replace(paths.database)
        shutil.rmtree(done)
    for left in folder(paths).glob("backup-*"):
        shutil.rmtree(left, ignore_errors=True)


def settings_differ(paths: Paths) -> bool:
    """Whether this machine has settings of its own, other than those that are being restored."""
    theirs = staging(paths) / SETTINGS
    return theirs.exists() and paths.settings.exists() and theirs.read_bytes() != paths.settings.read_bytes()


def _keep_settings(paths: Paths, text: bytes) -> None:
    """This machine's settings stay where it has some; the others are put beside them."""
    if not paths.settings.exists():
        write_whole(paths.settings, text)
    elif paths.settings.read_bytes() != text:
        write_whole(paths.settings.with_name(f"{SETTINGS}.restored"), text)


def write_whole(path: Path, data: bytes) -> None:
    """The file with this content, never half of it, for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
