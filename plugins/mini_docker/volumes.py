"""Storage that outlives instances: the engine's named volumes, labelled, writable for the app's user.

A new volume belongs to root, and apps run as another user. Before its container starts, the folder is given to the
user that the image names, with its mode as it is: by the archive endpoint, which sets the owner of a folder that is
there, so that no program in the image is needed.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from mini_docker.containers import volume_name
from mini_docker.engine import Engine


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
        self._remove(volume_name(self._platform, app, name))

    def remove_all(self, app: str) -> None:
        with self._engine.reached():
            found = self._engine.api.volumes(filters=self._engine.own(self._platform, app=app))
        for volume in found.get("Volumes") or ():
            self._remove(volume["Name"])

    def path(self, app: str, name: str) -> Path | None:
        import docker.errors

        try:
            with self._engine.reached():
                found = self._engine.api.inspect_volume(volume_name(self._platform, app, name))
        except docker.errors.NotFound:
            return None
        path = Path(found["Mountpoint"])
        return path if os.access(path, os.R_OK | os.X_OK) else None

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
