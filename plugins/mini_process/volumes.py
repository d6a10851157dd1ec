"""Volumes: folders that outlive releases, reached through a link in the app's folder.

A local process sees the machine's own file system: nothing can be mounted at an absolute path such as /data. A
volume whose target is below /app (where containers have the app's folder) or a relative path becomes a link there;
its place is also in MINI_VOLUME_NAME. Other targets are refused rather than left to write to the machine's /data.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mini_core import tarstream
from mini_core.errors import NotFound, StartError
from mini_core.types import InstanceSpec, Volume
from mini_process.folders import safe_name
from mini_process.layout import Layout


class Volumes:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def path(self, app: str, name: str) -> Path:
        return self._layout.volumes / safe_name(app) / safe_name(name)

    def attach(self, folder: Path, spec: InstanceSpec) -> dict[str, str]:
        """Makes the volumes and the links in the app's folder; the variables that say where they are."""
        variables = {}
        for volume in spec.volumes:
            place = self.path(spec.app, volume.name)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _link(folder / _inside(volume), place)
            variables["MINI_VOLUME_" + re.sub(r"\W", "_", volume.name).upper()] = str(place)
        return variables

    def export(self, app: str, name: str) -> Iterator[bytes]:
        place = self.path(app, name)
        if not place.is_dir():
            raise NotFound(f"{app} has no volume {name}", hint="See which there are: mini volumes")
        return tarstream.pack(place)

    def import_(self, app: str, name: str, data: Iterator[bytes]) -> None:
        place = self.path(app, name)
        shutil.rmtree(place, ignore_errors=True)
        tarstream.unpack(data, place)

    def remove(self, app: str, name: str) -> None:
        shutil.rmtree(self.path(app, name), ignore_errors=True)

    def remove_all(self, app: str) -> None:
        shutil.rmtree(self._layout.volumes / safe_name(app), ignore_errors=True)

    def rename(self, old: str, new: str) -> None:
        source, target = self._layout.volumes / safe_name(old), self._layout.volumes / safe_name(new)
        if source.is_dir() and not target.exists():
            source.rename(target)


def _inside(volume: Volume) -> PurePosixPath:
    """The target relative to the app's folder. Raises StartError where it lies outside."""
    target = PurePosixPath(volume.target)
    if target.is_absolute() and target.is_relative_to("/app"):
        target = target.relative_to("/app")
    if target.is_absolute() or ".." in target.parts or target == PurePosixPath("."):
        raise StartError(
            f"{volume.target}: local processes can have volumes only below /app",
            hint=f"mini volumes add /app/{target.name or 'data'}, or use the Docker runtime.",
        )
    return target


def _link(link: Path, place: Path) -> None:
    if link.is_symlink():
        if link.readlink() == place:
            return
        link.unlink()
    elif link.is_dir():  # what the app brings for an empty volume is its first content, as with containers
        if not any(place.iterdir()):
            shutil.copytree(link, place, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(link)
    elif link.exists():
        raise StartError(f"{link.name} is a file: a volume needs a folder there")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place, target_is_directory=True)
