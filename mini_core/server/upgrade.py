"""`mini server upgrade`: a new environment beside the old one, checked, put in force, probed, else back.

    build → check plugins → back up the database → switch → restart → probe → router's code → tidy up

The router and the apps run through all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mini_core.errors import MiniError
from mini_core.paths import Paths
from mini_core.server import adminclient, check, local, state, venvs
from mini_core.server.layout import Layout
from mini_core.server.venvs import InstallError
from mini_core.types import Value, decode

KEEP_BACKUPS = 5
SETTLE = 20.0
"""Seconds that apps get to answer again as they did."""

Say = Callable[[str], None]


class Service(Protocol):
    """What runs the controller. Apps and router go on through all of these."""

    def restart(self) -> None:
        """Returns when the new process takes requests. Raises MiniError."""

    def stop(self) -> None: ...

    def reload_router(self) -> None:
        """Puts the router's new code in force, without a request lost."""


class SystemdService:
    def restart(self) -> None:
        venvs.run(["systemctl", "reset-failed", "mini.service"])
        venvs.run(["systemctl", "restart", "mini.service"])

    def stop(self) -> None:
        venvs.run(["systemctl", "stop", "mini.service"])

    def reload_router(self) -> None:
        venvs.run(["systemctl", "reload", "mini-router.service"])


class LocalService:
    """A platform that a user started."""

    def __init__(self, paths: Paths, layout: Layout) -> None:
        self._paths = paths
        self._command = (str(layout.python), "-P", "-m", "mini_core.server")

    def restart(self) -> None:
        local.restart(self._paths, command=self._command)

    def stop(self) -> None:
        local.stop_controller(self._paths)

    def reload_router(self) -> None:
        status = adminclient.call(self._paths.admin_socket, "GET", "/v1/status")
        pid = status.get("router_status", {}).get("pid")
        if isinstance(pid, int):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)


class Seen(Value):
    """What was seen of the platform. apps: host → the status that the app answers with, 0 for no answer."""

    version: str = ""
    address: str = ""
    apps: Mapping[str, int] = {}


class Upgraded(Value):
    before: str
    after: str
    backup: str = ""


def upgrade(layout: Layout, paths: Paths, service: Service, requirement: str, say: Say) -> Upgraded:
    """requirement: a wheel, or what pip understands. Raises InstallError; then the old version runs again."""
    old = venvs.in_force(layout)
    if old is None:
        raise InstallError("No server is installed here.", hint="sudo mini server install")
    with one_at_a_time(layout):
        return _upgrade(layout, paths, service, requirement, old, say)


@contextlib.contextmanager
def one_at_a_time(layout: Layout) -> Iterator[None]:
    """Raises InstallError while another upgrade runs, or where the user may not change the server."""
    try:
        descriptor = os.open(layout.prefix / "upgrade.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        hint = "sudo mini server upgrade"
        raise InstallError("This needs the rights of who installed the server.", hint=hint) from None
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallError("Another upgrade runs.", hint="Wait for its end, then try again.") from None
        yield


def _upgrade(layout: Layout, paths: Paths, service: Service, requirement: str, old: Path, say: Say) -> Upgraded:
    before = look(paths)
    say(f"Building an environment for {Path(requirement).name} ...")
    new = venvs.build(layout, requirement, venvs.plugin_requirements())
    try:
        report = check_plugins(new, check.report())
        say(f"mini {report.version}: {sum(info.state == 'ok' for info in report.plugins)} plugins work")
        backup = back_up(paths, check.report().version)
    except BaseException:
        venvs.prune(layout, keep=[old])
        raise
    change(layout, paths, service, Change(old=old, new=new, version=report.version, backup=backup, before=before), say)
    service.reload_router()
    venvs.prune(layout, keep=[old, new])
    return Upgraded(before=check.report().version, after=report.version, backup=str(backup or ""))


class Change(Value):
    old: Path
    new: Path
    version: str
    backup: Path | None
    before: Seen


def change(layout: Layout, paths: Paths, service: Service, what: Change, say: Say) -> None:
    """From the old to the new version, or back. Raises InstallError saying why."""
    say(f"Restarting with mini {what.version} ...")
    venvs.switch(layout, what.new)
    try:
        service.restart()
        probe(paths, what.version, what.before)
    except MiniError as error:
        say(f"mini {what.version} does not work here: {error.message}. Going back ...")
        go_back(layout, paths, service, what)
        raise InstallError(
            f"Not upgraded: {error.message}",
            hint=f"The version of before runs again. The platform's log: {paths.logs / 'platform.log'}",
            tail=error.tail,
        ) from error


def go_back(layout: Layout, paths: Paths, service: Service, what: Change) -> None:
    venvs.switch(layout, what.old)
    with contextlib.suppress(MiniError):
        service.stop()
    if what.backup is not None and schema(what.backup) != schema(paths.database):
        restore(what.backup, paths.database)
    service.restart()
    venvs.prune(layout, keep=[what.old])


# --- plugins


def check_plugins(venv: Path, now: check.Report) -> check.Report:
    """Raises InstallError where a plugin that works now would not work there, or the code does not load."""
    text = venvs.run([str(venv / "bin" / "python"), "-P", "-m", "mini_core.server.check"])
    report = decode(check.Report, text.strip().splitlines()[-1])
    then = {info.name: info for info in report.plugins}
    for info in now.plugins:
        found = then.get(info.name)
        if info.state == "ok" and (found is None or found.state == "broken"):
            reason = found.reason if found else "it is not there any more"
            raise InstallError(
                f"The plugin {info.name} does not work with mini {report.version}: {reason}",
                hint=f"Upgrade {info.origin} first, or remove it: mini plugins remove {info.name}",
            )
    return report


# --- the database


def back_up(paths: Paths, version: str) -> Path | None:
    """A copy of the database, made while it is in use; the last few are kept."""
    if not paths.database.exists():
        return None
    folder = paths.data / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"mini-{version}-{time.strftime('%Y%m%d-%H%M%S')}.db"
    target.touch(0o600)
    with (
        contextlib.closing(sqlite3.connect(paths.database)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    owner = paths.database.stat()
    for path in (folder, target):
        os.chown(path, owner.st_uid, owner.st_gid)
    for surplus in sorted(folder.glob("mini-*.db"), key=lambda path: path.stat().st_mtime)[:-KEEP_BACKUPS]:
        surplus.unlink()
    return target


def schema(database: Path) -> list[Any]:
    """What the tables look like: differs where migrations were run."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def restore(backup: Path, database: Path) -> None:
    """The database as it was, in one step; nobody may have it open."""
    owner = database.stat()
    copy = database.with_name(".restored.db")
    shutil.copyfile(backup, copy)
    copy.chmod(owner.st_mode & 0o777)
    os.chown(copy, owner.st_uid, owner.st_gid)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    copy.replace(database)


# --- probing


def look(paths: Paths) -> Seen:
    """The platform as it is now; nothing where it does not run."""
    if not adminclient.answers(paths.admin_socket):
        return Seen()
    status = adminclient.call(paths.admin_socket, "GET", "/v1/status")
    running = state.load_running(paths)
    address = f"{running.address}:{running.port}" if running else ""
    hosts = [_host(app["url"]) for app in status["apps"] if app["state"] in ("running", "degraded") and app["url"]]
    return Seen(version=status["version"], address=address, apps={host: ask(host, address) for host in hosts})


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def ask(host: str, address: str, path: str = "/") -> int:
    """The status with which the router at the address answers for the host, 0 where nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host, "User-Agent": "mini-upgrade"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def probe(paths: Paths, version: str, before: Seen) -> None:
    """Whether the new version serves, and the apps answer as before. Raises InstallError."""
    health = adminclient.call(paths.admin_socket, "GET", "/healthz")
    if health["version"] != version:
        raise InstallError(f"version {health['version']} answers instead of {version}")
    worse = _worse(look(paths), before)
    deadline = time.monotonic() + SETTLE
    while worse and time.monotonic() < deadline:
        time.sleep(0.5)
        worse = _worse(look(paths), before)
    if worse:
        raise InstallError(worse)


def _worse(now: Seen, before: Seen) -> str:
    if now.address and ask("localhost", now.address, "/healthz") != 200:
        return "the router does not reach the platform"
    for host, status in before.apps.items():
        found = now.apps.get(host, 0) or ask(host, now.address)
        if 0 < status < 500 and not 0 < found < 500:
            return f"{host} answered {status} before and now {found or 'nothing'}"
    return ""
