"""Storage that outlives instances: the engine's named volumes, labelled, writable for the app's user.

A new volume belongs to root, and apps run as another user. Before its container starts, the folder is given to the
user that the image names, with its mode as it is: by the archive endpoint, which sets the owner of a folder that is
there, so that no program in the image is needed.

Volumes are copied through the same endpoint, of a container that is made for it from an empty image and never started;
those that can be read from here are read directly, since they may change meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mini_core import tarstream
from mini_core.errors import NotFound
from mini_docker.containers import volume_name
from mini_docker.engine import Engine

COPY_TIMEOUT = 600.0
"""Seconds without a byte while a volume is copied."""

_INSIDE = "/volume"


class Volumes:
    def __init__(self, engine: Engine, platform: str) -> None:
        self._engine, self._platform = engine, platform

    def hand_over(self, container: str) -> None:
        """Makes the volumes of a container that has not started belong to its user."""
        with self._engine.reached():
            found = self._engine.api.inspect_container(container)
            user = (found["Config"].get("User") or "").strip()
            mounts = [item for item in found.get("Mounts") or () if item.get("Type") == "volume"]
            if user in ("", "root", "0", "0:0") or not mounts:
                return
            owner = self._ids(container, user)
            for mount in mounts:
                self._chown(container, mount["Destination"], owner)

    def remove(self, app: str, name: str) -> None:
        self._remove_copiers(app, name)
        self._remove(volume_name(self._platform, app, name))

    def export(self, app: str, name: str) -> Iterator[bytes]:
        if self._mountpoint(app, name) is None:
            raise NotFound(f"{app} has no volume {name}", hint="See which there are: mini volumes")
        path = self.path(app, name)
        return tarstream.pack(path) if path else self._copied_out(app, name)

    def _copied_out(self, app: str, name: str) -> Iterator[bytes]:
        with self._copier(app, name) as (client, container), self._engine.reached():
            url = client._url("/containers/{0}/archive", container)
            response = client._get(url, params={"path": f"{_INSIDE}/."}, stream=True)
            with contextlib.closing(response):  # the engine keeps the container for as long as it is open
                client._raise_for_status(response)
                yield from response.iter_content(tarstream.CHUNK)

    def import_(self, app: str, name: str, data: Iterator[bytes]) -> None:
        self.remove(app, name)
        labels = {"mini.platform": self._platform, "mini.app": app, "mini.volume": name}
        with self._engine.reached():
            self._engine.api.create_volume(volume_name(self._platform, app, name), labels=labels)
            with self._copier(app, name) as (client, container):
                client.put_archive(container, _INSIDE, data)

    @contextlib.contextmanager
    def _copier(self, app: str, name: str) -> Iterator[tuple[Any, str]]:
        """A container that has the volume, with a connection of its own; both go afterwards, and the image."""
        volume, tag = volume_name(self._platform, app, name), f"mini/volume:{secrets.token_hex(8)}"
        labels = {"mini.platform": self._platform, "mini.app": app, "mini.volume": name}
        client = self._engine.connect(COPY_TIMEOUT)
        container = ""
        try:
            repository, _, version = tag.partition(":")
            label = f"LABEL mini.platform={self._platform}"
            client.import_image_from_data(tarstream.end(), repository=repository, tag=version, changes=[label])
            host = {"Binds": [f"{volume}:{_INSIDE}"], "NetworkMode": "none"}
            body = {"Image": tag, "Cmd": ["none"], "Labels": labels, "HostConfig": host}
            container = client.create_container_from_config(body, f"{volume}-{tag[-16:]}")["Id"]
            yield client, container
        finally:
            with self._engine.reached():
                if container:
                    client.remove_container(container, force=True)
                client.remove_image(tag)
            client.close()

    def _remove_copiers(self, app: str, name: str) -> None:
        """What a copy that was killed has left behind."""
        filters = self._engine.own(self._platform, app=app, volume=name)
        with self._engine.reached():
            for item in self._engine.api.containers(all=True, filters=filters):
                self._engine.api.remove_container(item["Id"], force=True)

    def remove_all(self, app: str) -> None:
        with self._engine.reached():
            found = self._engine.api.volumes(filters=self._engine.own(self._platform, app=app))
        for volume in found.get("Volumes") or ():
            self._remove(volume["Name"])

    def path(self, app: str, name: str) -> Path | None:
        path = self._mountpoint(app, name)
        return path if path and self._engine.is_here and os.access(path, os.R_OK | os.X_OK) else None

    def _mountpoint(self, app: str, name: str) -> Path | None:
        import docker.errors

        try:
            with self._engine.reached():
                found = self._engine.api.inspect_volume(volume_name(self._platform, app, name))
        except docker.errors.NotFound:
            return None
        return Path(found["Mountpoint"])

    def _remove(self, name: str) -> None:
        import docker.errors

        try:
            with self._engine.reached():
                self._engine.api.remove_volume(name)
        except docker.errors.NotFound:
            pass

    def _ids(self, container: str, user: str) -> tuple[int, int]:
        """Numbers of the image's user, from its /etc/passwd and /etc/group (passwd(5), group(5))."""
        name, _, group = user.partition(":")
        users = [line.split(":") for line in self._file(container, "/etc/passwd").splitlines()]
        entry = next((item for item in users if len(item) > 3 and name in (item[0], item[2])), None)
        uid = int(entry[2]) if entry else int(name) if name.isdecimal() else 0
        gid = int(entry[3]) if entry else 0
        if group:
            groups = [line.split(":") for line in self._file(container, "/etc/group").splitlines()]
            gid = next((int(item[2]) for item in groups if len(item) > 2 and group in (item[0], item[2])), gid)
        return uid, gid

    def _file(self, container: str, path: str) -> str:
        import docker.errors

        try:
            stream, _ = self._engine.api.get_archive(container, path)
        except docker.errors.NotFound:
            return ""
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            member = next((item for item in tar if item.isfile()), None)
            content = tar.extractfile(member) if member else None
            return content.read().decode("utf-8", "replace") if content else ""

    def _chown(self, container: str, target: str, owner: tuple[int, int]) -> None:
        stat = self._stat(container, target)
        parent, _, name = target.rstrip("/").rpartition("/")
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, int(stat.get("mode", 0)) & 0o777 or 0o755
        entry.uid, entry.gid = owner
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            tar.addfile(entry)
        self._engine.api.put_archive(container, parent or "/", body.getvalue())

    def _stat(self, container: str, path: str) -> dict[str, Any]:
        from docker.utils import decode_json_header

        client = self._engine.api
        url = client._url("/containers/{0}/archive", container)
        response = client.head(url, params={"path": path}, timeout=60)
        client._raise_for_status(response)
        stat: dict[str, Any] = decode_json_header(response.headers["X-Docker-Container-Path-Stat"])
        return stat
