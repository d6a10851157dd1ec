"""`mini backup` and `mini restore`: the whole platform as one file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from mini_core import api
from mini_core.cli.base import COMMON, options, pass_context
from mini_core.cli.context import Context
from mini_core.cli.output import plural
from mini_core.errors import MiniError, UsageError
from mini_core.quantities import size


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--no-images", is_flag=True, help="Leave the images out: restored apps have to be deployed again.")
@options(*COMMON)
@pass_context
def backup(context: Context, file: Path, no_images: bool) -> None:
    """Writes the whole platform into FILE: apps, configuration, keys, volumes, and releases with their images.

    Everything goes on meanwhile. What an app is just writing into a volume may be caught in the middle: a database
    has a dump of its own, or mini stop. Logs are left out: mini logs, or a drain, keeps them elsewhere.
    """
    from mini_core import backups

    count = write(context, file, "/v1/backup", images=not no_images)
    with file.open("rb") as written:
        manifest = backups.verify(written)
    for line in manifest.left_out:
        context.warn(f"Left out: {line}")
    volumes, images = len(manifest.of("volume")), sum(len(part.items) for part in manifest.of("image"))
    what = f"{plural(len(manifest.apps), 'app')}, {plural(volumes, 'volume')}, {plural(images, 'image')}"
    context.data(manifest, ())
    context.info(f"Backed up {what} to {file} ({size(count)}).")
    context.info("It holds the key that decrypts every secret: keep it as safe as the server.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Remove the apps that are there, with their volumes.")
@options(*COMMON)
@pass_context
def restore(context: Context, file: Path, replace: bool) -> None:
    """Makes the platform the one in FILE, which mini backup wrote, perhaps on another machine.

    Apps that are there go on until the restored ones take over; they are removed only with --replace.
    """
    from mini_core import backups

    with file.open("rb") as source:
        about = backups.describe(backups.verify(source))
        context.info(about)
        client = context.client(first=True)
        if replace:
            _confirm(context, [app.name for app in client.get("/v1/apps", tuple[api.AppInfo, ...])])
        source.seek(0)
        progress = Progress("Sent", file.stat().st_size)
        events = client.send(
            "/v1/restore", source, "application/x-tar", api.RestoreEvent, progress.show, replace=replace
        )
        for event in events:
            progress.close()
            if event.text != about or context.json:
                _tell(context, event)
    context.info("The apps are starting: mini status")


def write(context: Context, file: Path, path: str, **query: Any) -> int:
    """An answer of the server as a file for its owner alone, which is there only once it is whole. Returns its size."""
    if file.exists():
        context.confirm(f"Replace {file}?")
    client, progress = context.client(), Progress("Received")

    def expecting(count: int) -> None:
        free = shutil.disk_usage(file.absolute().parent).free
        if count > free:
            hint = "Write it to another disk, or leave the images out: --no-images"
            raise UsageError(f"About {size(count)} would come, and {size(free)} are free at {file}.", hint=hint)
        context.info(f"About {size(count)} will come.")

    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(part, flags, 0o600), "wb") as target:
            client.download(path, target, progress.show, expecting, **query)
            target.flush()
            os.fsync(target.fileno())
        part.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from None
    finally:
        progress.close()
        part.unlink(missing_ok=True)
    return file.stat().st_size


class Progress:
    """How far it is, on a terminal. total: bytes, 0 where nobody knows."""

    STEP = 4 * 1024 * 1024

    def __init__(self, word: str, total: int = 0) -> None:
        from mini_core.cli.view import Lines

        self._word, self._of = word, f" of {size(total)}" if total else ""
        self._lines, self._shown = Lines(), 0

    def show(self, count: int) -> None:
        if count - self._shown >= self.STEP:
            self._shown = count
            self._lines.passing(f"{self._word} {size(count)}{self._of}")

    def close(self) -> None:
        self._lines.close()


def _tell(context: Context, event: api.RestoreEvent) -> None:
    """Raises MiniError for the event that says why it failed."""
    if context.json:
        context.line(event, "")
    if event.kind == "failed":
        raise MiniError(event.text, hint=event.hint, code=event.code)
    if not context.json:
        (context.warn if event.kind == "warning" else context.info)(event.text)


def _confirm(context: Context, apps: list[str]) -> None:
    if apps:
        address = context.address()
        where = "" if address.is_local else f" on {address.text}"
        context.confirm(f"Remove {', '.join(apps)}{where}, with all volumes, for what is in the backup?")
