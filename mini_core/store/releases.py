"""Releases: immutable, numbered per app; only their state and whether their image is kept ever change."""

from __future__ import annotations

from mini_core.errors import NotFound
from mini_core.store.crypto import Cipher
from mini_core.store.database import Database, Row
from mini_core.store.records import Extras, ReleaseState, StoredRelease
from mini_core.types import Image, Release, Secret, decode, encode, replace, to_data


class Releases:
    def __init__(self, db: Database, cipher: Cipher) -> None:
        self._db = db
        self._cipher = cipher

    def next_version(self, app: int) -> int:
        rows = self._db.query("SELECT COALESCE(MAX(version), 0) AS top FROM releases WHERE app = :app", app=app)
        return int(rows[0]["top"]) + 1

    def add(self, app: int, stored: StoredRelease) -> None:
        release = stored.release
        label = f"release:{app}:{release.version}"
        row = {
            "app": app,
            "version": release.version,
            "state": stored.state,
            "data": encode(to_data(release) | {"env": {}}).decode(),
            "env": self._cipher.seal(release.env, label),
            "addons": self._cipher.seal(stored.addons, label + ":addons"),
            "fingerprint": stored.fingerprint,
            "build_key": stored.build_key,
            "created_at": release.created_at,
            "extras": encode(stored.extras).decode(),
        }
        self._db.insert("releases", row)

    def get(self, app: int, version: int) -> StoredRelease:
        row = self._db.one("releases", app=app, version=version)
        if row is None:
            raise NotFound(f"There is no release v{version}.", hint="mini releases lists them.", code="no-release")
        return self._stored(app, row)

    def extras(self, app: int, version: int) -> Extras:
        """Of a release, without what is encrypted in it; none where there is no such release."""
        rows = self._db.query(
            "SELECT extras FROM releases WHERE app = :app AND version = :version", app=app, version=version
        )
        return decode(Extras, rows[0]["extras"]) if rows else Extras()

    def all(self, app: int) -> tuple[StoredRelease, ...]:
        """Newest first."""
        return tuple(self._stored(app, row) for row in self._db.find("releases", app=app, order="-version"))

    def with_image(self, app: int) -> tuple[StoredRelease, ...]:
        """Those whose images were not removed, newest first."""
        rows = self._db.find("releases", app=app, image_kept=1, order="-version")
        return tuple(self._stored(app, row) for row in rows)

    def live_before(self, app: int, version: int) -> int | None:
        """The version of the newest release before this one that took traffic."""
        rows = self._db.query(
            "SELECT MAX(version) AS version FROM releases WHERE app = :app AND state = 'live' AND version < :version",
            app=app,
            version=version,
        )
        return None if rows[0]["version"] is None else int(rows[0]["version"])

    def with_build_key(self, app: int, build_key: str) -> StoredRelease | None:
        """The newest release whose image was made from the same things and is still kept."""
        rows = self._db.find("releases", app=app, build_key=build_key, image_kept=1, order="-version")
        return self._stored(app, rows[0]) if rows else None

    def set_state(self, app: int, version: int, state: ReleaseState) -> None:
        self._db.update("releases", {"app": app, "version": version, "state": state}, "app", "version")

    def forget_image(self, app: int, version: int) -> None:
        self._db.update("releases", {"app": app, "version": version, "image_kept": 0}, "app", "version")

    def set_image(self, app: int, version: int, image: Image) -> None:
        """Where the image is after the platform was restored; what it holds is the same."""
        row = self._db.one("releases", app=app, version=version)
        if row is not None:
            data = encode(replace(decode(Release, row["data"]), image=image)).decode()
            changed = {"app": app, "version": version, "data": data, "image_kept": 1}
            self._db.update("releases", changed, "app", "version")

    def kept_images(self) -> tuple[Image, ...]:
        """Of all apps."""
        rows = self._db.query("SELECT data FROM releases WHERE image_kept = 1")
        images = {image.ref: image for image in (decode(Release, row["data"]).image for row in rows)}
        return tuple(images.values())

    def _stored(self, app: int, row: Row) -> StoredRelease:
        label = f"release:{app}:{row['version']}"
        env = self._cipher.open(dict[str, Secret], row["env"], label)
        release = decode(Release, row["data"])
        return StoredRelease(
            release=replace(release, env=env),
            state=row["state"],
            addons=self._cipher.open(dict[str, Secret], row["addons"], label + ":addons"),
            fingerprint=row["fingerprint"],
            build_key=row["build_key"],
            image_kept=bool(row["image_kept"]),
            extras=decode(Extras, row["extras"]),
        )
