"""What `mini backup` sends: the whole platform as one stream, while everything goes on.

The store is copied first and says what else belongs to it. Volumes are copied while apps write to them: what an app
does not keep consistent on disk by itself (a database does) may be caught in the middle.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
    """What the store says. volumes: (app's handle, name). images: of the releases that can be run, by "blog v3", the
    newest release of each."""

    apps: tuple[str, ...]
    volumes: tuple[tuple[str, str], ...]
    images: Mapping[str, Image]


def size(parts: Parts, *, images: bool) -> int:
    """Bytes that a backup would have, about."""
    contents = _contents(parts.store)
    volumes = [path for app, name in contents.volumes if (path := parts.runtime.volume_path(app, name))]
    total = sum(map(tarstream.size, volumes)) + parts.paths.database.stat().st_size
    if images:
        for name, builder in parts.builders.items():
            total += builder.size([image for image in contents.images.values() if image.builder == name])
    return total


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
        return _contents(store)
    finally:
        store.close()
        settle(copy)


def _contents(store: Store) -> Contents:
    apps = store.apps.all()
    return Contents(
        apps=tuple(app.name for app in apps),
        volumes=tuple((app.handle, name) for app in apps for name in sorted(_volume_names(store, app))),
        images=_kept_images(store, apps),
    )


def _volume_names(store: Store, app: App) -> set[str]:
    mounted = store.releases.get(app.id, app.release).release.volumes if app.release is not None else ()
    return {item.name for item in (*mounted, *store.apps.volumes(app.id))}


def _kept_images(store: Store, apps: Iterable[App]) -> dict[str, Image]:
    found: dict[str, tuple[str, Image]] = {}
    for app in apps:
        for stored in store.releases.all(app.id):
            if stored.image_kept:
                image = stored.release.image
                found.setdefault(image.ref, (f"{app.name} v{stored.release.version}", image))
    return dict(found.values())


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
        with suppress(NotFound):  # no instance has used it yet
            chunks = parts.runtime.export_volume(app, name)
            yield from writer.part(Part(name=f"volumes/{app}/{name}", kind="volume", app=app, about=name), chunks)


def _images(parts: Parts, writer: Writer, contents: Contents) -> Iterator[bytes]:
    for name in sorted({image.builder for image in contents.images.values()}):
        builder = parts.builders.get(name)
        images = []
        for what, image in contents.images.items():
            if image.builder != name:
                continue
            if builder is not None and builder.exists(image):
                images.append(image)
            else:
                why = "it is gone" if builder else f"there is no builder {name}"
                writer.left_out.append(f"the image of {what}: {why}")
        if builder is not None and images:
            refs = tuple(image.ref for image in images)
            part = Part(name=f"images/{name}", kind="image", about=name, items=refs)
            yield from writer.part(part, builder.export(images))


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(tarstream.CHUNK):
            yield data
