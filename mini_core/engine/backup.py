"""What `mini backup` sends: the whole platform as one stream, while everything goes on.

The store is copied first and says what else belongs to it. Volumes are copied while apps write to them: what an app
does not keep consistent on disk by itself (a database does) may be caught in the middle.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mini_core import __version__, tarstream
from mini_core.backups import Head, Part, Writer
from mini_core.engine import transfer
from mini_core.engine.parts import Parts
from mini_core.errors import NotFound, Unavailable
from mini_core.store import Store, open_store
from mini_core.store.database import schema_of, settle, snapshot
from mini_core.store.records import App
from mini_core.types import Image, Value

log = logging.getLogger(__name__)


class Contents(Value):
    """What the copy of the store says. volumes: (app's handle, name). images: (app's handle, image)."""

    apps: tuple[str, ...]
    volumes: tuple[tuple[str, str], ...]
    images: tuple[tuple[str, Image], ...]


def write(parts: Parts, *, images: bool) -> Iterator[bytes]:
    """The bytes of a backup. What can fail does so before the first of them, as far as that can be known."""
    with _folder(parts) as folder:
        contents = _copy_store(parts, folder)
        plugins = _ask_plugins(parts, folder)
        writer = Writer(_head(parts, folder))
        yield writer.begin()
        yield from writer.part(Part(name="store.db", kind="store"), _file(folder / transfer.DATABASE))
        yield from writer.part(Part(name="secret.key", kind="key"), _file(transfer.key_file(parts.paths)))
        if parts.paths.settings.exists():
            yield from writer.part(Part(name="settings", kind="settings"), _file(parts.paths.settings))
        for plugin, place in plugins:
            yield from writer.part(Part(name=f"plugins/{plugin}", kind="plugin", about=plugin), tarstream.pack(place))
        yield from _volumes(parts, writer, contents)
        if images:
            yield from _images(parts, writer, contents)
        yield from writer.end(contents.apps)


@contextmanager
def _folder(parts: Parts) -> Iterator[Path]:
    folder = transfer.folder(parts.paths) / f"backup-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_store(parts: Parts, folder: Path) -> Contents:
    copy = folder / transfer.DATABASE
    snapshot(parts.paths.database, copy)
    store = open_store(copy, transfer.key_file(parts.paths))
    try:
        apps = store.apps.all()
        return Contents(
            apps=tuple(app.name for app in apps),
            volumes=tuple((app.handle, name) for app in apps for name in sorted(_volume_names(store, app))),
            images=tuple(_current_images(store, apps)),
        )
    finally:
        store.close()
        settle(copy)


def _volume_names(store: Store, app: App) -> set[str]:
    mounted = store.releases.get(app.id, app.release).release.volumes if app.release is not None else ()
    return {item.name for item in (*mounted, *store.apps.volumes(app.id))}


def _current_images(store: Store, apps: Iterable[App]) -> Iterator[tuple[str, Image]]:
    """Of what runs, or would: earlier releases' images stay behind."""
    for app in apps:
        if app.release is not None:
            stored = store.releases.get(app.id, app.release)
            if stored.image_kept:
                yield app.handle, stored.release.image


def _ask_plugins(parts: Parts, folder: Path) -> list[tuple[str, Path]]:
    """Raises Unavailable naming a plugin that cannot: a backup that lacks its part would be none."""
    found = []
    for plugin in parts.hooks.implementing("mini_backup"):
        place = folder / "plugins" / plugin
        place.mkdir(parents=True)
        try:
            parts.hooks.durable("mini_backup", plugin, folder=place)
        except Exception as error:
            log.warning("plugin %s failed in mini_backup", plugin, exc_info=error)
            raise Unavailable(
                f"The plugin {plugin} could not back up its part: {error}",
                hint=f'Mend it, or [plugins] disabled = ["{plugin}"] in server.toml.',
                code="backup-plugin",
            ) from None
        found.append((plugin, place))
    return found


def _head(parts: Parts, folder: Path) -> Head:
    return Head(
        mini=__version__,
        schema=schema_of(folder / transfer.DATABASE),
        platform=parts.platform,
        runtime=parts.runtime.name,
        created_at=time.time(),
    )


def _volumes(parts: Parts, writer: Writer, contents: Contents) -> Iterator[bytes]:
    for app, name in contents.volumes:
        part = Part(name=f"volumes/{app}/{name}", kind="volume", app=app, about=name)
        yield from _part(writer, part, partial(parts.runtime.export_volume, app, name), silent=True)


def _images(parts: Parts, writer: Writer, contents: Contents) -> Iterator[bytes]:
    for number, (app, image) in enumerate(contents.images):
        builder = parts.builder_of(image)
        if builder is None:
            writer.left_out.append(f"the image of {app}: there is no builder {image.builder}")
            continue
        part = Part(name=f"images/{number:04}", kind="image", app=app, about=image.ref)
        yield from _part(writer, part, partial(builder.export, image))


def _part(
    writer: Writer, part: Part, export: Callable[[], Iterator[bytes]], *, silent: bool = False
) -> Iterator[bytes]:
    """What is gone when its turn comes is left out. silent: it need not have been there at all, as a volume that no
    instance has used yet."""
    try:
        chunks = export()
    except NotFound as error:
        if not silent:
            writer.left_out.append(f"{part.kind} {part.about} of {part.app}: {error.message}")
        return
    yield from writer.part(part, chunks)


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(tarstream.CHUNK):
            yield data
