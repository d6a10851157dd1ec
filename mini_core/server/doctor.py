"""What the core itself checks for `mini doctor`: each finding with the command that mends it."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from mini_core import api
from mini_core.controller import Controller
from mini_core.errors import MiniError
from mini_core.paths import Paths
from mini_core.quantities import size
from mini_core.server import ports, state
from mini_core.settings import Settings, load_settings
from mini_core.types import Check

log = logging.getLogger(__name__)

LOOKUP_LIMIT = 3.0
"""Seconds that looking up a name may take."""


def checks(controller: Controller) -> tuple[Check, ...]:
    """Of a platform that runs. What one check raises is its own finding."""
    settings, paths = controller.settings, controller.paths
    status = controller.status("")
    return _run(
        lambda: settings_file(paths),
        lambda: disk(paths.data, settings.disk_reserve),
        lambda: folders(paths),
        lambda: sockets(paths),
        lambda: router(settings, controller.platform),
        lambda: names(settings.domain, settings.port),
        lambda: plugins(controller.plugins(), settings.required),
        lambda: drift(status.apps),
        lambda: problems(status.problems),
    )


def offline_checks(paths: Paths) -> tuple[Check, ...]:
    """Of a platform that does not run, for this machine's user."""
    try:
        settings = state.settings_of(paths, {})
    except MiniError as error:
        return (Check(name="settings", state="error", detail=error.message, hint=error.hint),)
    data = paths.data if paths.data.exists() else Path.home()
    return _run(
        lambda: stopped(paths),
        lambda: disk(data, settings.disk_reserve),
        lambda: free_port(settings, state.load_local(paths).port),
        lambda: names(settings.domain, settings.port or state.load_local(paths).port),
        lambda: plugins(_installed(settings), settings.required),
    )


def _run(*found: Callable[[], Iterable[Check]]) -> tuple[Check, ...]:
    results: list[Check] = []
    for check in found:
        try:
            results += check()
        except Exception as error:
            log.exception("a check of mini doctor failed")
            results.append(Check(name="doctor", state="error", detail=f"A check failed: {error}"))
    return tuple(results)


def _installed(settings: Settings) -> tuple[api.PluginInfo, ...]:
    from mini_core.plugins import load_plugins

    return load_plugins(disabled=settings.disabled, required=settings.required).infos()


# --- the checks


def stopped(paths: Paths) -> Iterator[Check]:
    if state.running_file(paths).exists():
        yield Check(
            name="platform",
            state="error",
            detail="It ended without being put down; apps may still run.",
            hint="mini up --detach",
        )
    else:
        yield Check(name="platform", state="skipped", detail="It does not run.", hint="mini up --detach")


def settings_file(paths: Paths) -> Iterator[Check]:
    """A mistake made in it since the start is found before the next one."""
    try:
        load_settings(paths.settings)
    except MiniError as error:
        detail = f"The next start would fail: {error.message}"
        hint = error.hint or "Correct it; then mini down, mini up, for it to count."
        yield Check(name="settings", state="error", detail=detail, hint=hint)


def disk(folder: Path, reserve: int) -> Iterator[Check]:
    usage = shutil.disk_usage(folder)
    detail = f"{size(usage.free)} free of {size(usage.total)}, {size(reserve)} must stay free"
    found = "error" if usage.free < reserve else "warning" if usage.free < 2 * reserve else "ok"
    hint = "Free some space, or lower disk_reserve in server.toml" if found != "ok" else ""
    yield Check(name="disk", state=found, detail=detail, hint=hint)  # type: ignore[arg-type]  # one of three words


def folders(paths: Paths) -> Iterator[Check]:
    """Secrets are the owner's alone: nobody else may read the database, or walk into the folders."""
    loose = [
        (path, allowed)
        for path, allowed in ((paths.data, 0o750), (paths.run, 0o750), (paths.config, 0o750), (paths.database, 0o600))
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & ~allowed & 0o077
    ]
    for path, allowed in loose:
        wanted = f"{allowed & 0o700 if path.is_dir() else allowed:o}"
        yield Check(
            name="permissions", state="warning", detail=f"Others can get at {path}", hint=f"chmod {wanted} {path}"
        )
    if not loose:
        yield Check(name="permissions", state="ok", detail=f"{paths.data} is closed to others")


def sockets(paths: Paths) -> Iterator[Check]:
    from mini_core.server.adminclient import answers

    for path in (paths.controller_socket, paths.admin_socket):
        if not answers(path):
            yield Check(
                name="sockets", state="error", detail=f"Nobody answers at {path}", hint="mini down, then mini up"
            )
            return
    yield Check(name="sockets", state="ok", detail=str(paths.run))


def router(settings: Settings, platform: str) -> Iterator[Check]:
    """Whether each address brings a request for the platform to this controller."""
    for bind in settings.bind:
        where = f"{ports.reachable(bind)}:{settings.port}"
        answer = _platform_at(where)
        if answer == platform:
            yield Check(name="router", state="ok", detail=f"{where} answers")
        elif answer is None:
            hint = "mini down, then mini up"
            yield Check(name="router", state="error", detail=f"Nothing answers at {where}", hint=hint)
        else:
            yield Check(
                name="router",
                state="error",
                detail=f"Another program answers at {where}",
                hint=f"End it (ss -ltnp 'sport = :{settings.port}'), or choose another port: mini up --port N",
            )


def _platform_at(where: str) -> str | None:
    """The id of the platform that answers there, "" for another program, None for nobody."""
    connection = http.client.HTTPConnection(where, timeout=LOOKUP_LIMIT)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        data = msgspec.json.decode(connection.getresponse().read())
        return str(data["platform"])
    except OSError:
        return None
    except (http.client.HTTPException, msgspec.DecodeError, KeyError, TypeError):
        return ""
    finally:
        connection.close()


def free_port(settings: Settings, kept: int) -> Iterator[Check]:
    port = settings.port or kept
    binds = ports.usable_binds(settings.bind)
    if not port:
        port = ports.choose_port(binds)
    if ports.is_free(binds, port):
        yield Check(name="port", state="ok", detail=f"{port} is free")
    else:
        yield Check(
            name="port",
            state="error",
            detail=f"{port} is taken by another program",
            hint=f"End it (ss -ltnp 'sport = :{port}'), or choose another: mini up --port N",
        )


def names(domain: str, port: int) -> Iterator[Check]:
    """Whether the apps' names lead anywhere: `*.localhost` to this machine, a domain to some address."""
    probe = f"mini-doctor.{domain}"
    found = look_up(probe)
    if domain != "localhost":
        if found:
            yield Check(name="names", state="ok", detail=f"*.{domain} is {', '.join(found)}")
        else:
            hint = f"Make a DNS record: *.{domain} A ADDRESS-OF-THIS-SERVER"
            yield Check(name="names", state="warning", detail=f"*.{domain} does not resolve", hint=hint)
    elif found and all(ipaddress.ip_address(address).is_loopback for address in found):
        yield Check(name="names", state="ok", detail="*.localhost is this machine")
    else:
        suffix = f":{port}" if port not in (0, 80) else ""
        yield Check(
            name="names",
            state="warning",
            detail="*.localhost does not resolve here; browsers and curl know it all the same",
            hint=f"Use http://APP.127.0.0.1.nip.io{suffix}",
        )


def look_up(name: str) -> tuple[str, ...]:
    """The addresses of a name, none where it has none or nobody says in time."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            found.extend(str(item[4][0]) for item in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(LOOKUP_LIMIT)
    return tuple(dict.fromkeys(found))


def plugins(infos: Iterable[api.PluginInfo], required: Iterable[str]) -> Iterator[Check]:
    infos = tuple(infos)
    broken = [info for info in infos if info.state == "broken"]
    for info in broken:
        needed = info.name in tuple(required)
        yield Check(
            name="plugins",
            state="error" if needed else "warning",
            detail=f"{info.name}: {info.reason}" + (" (required: deploys are refused)" if needed else ""),
            hint=f'Upgrade or remove {info.origin}, or set [plugins] disabled = ["{info.name}"] in server.toml',
        )
    for name in sorted(set(required) - {info.name for info in infos}):
        hint = f"mini plugins install {name}"
        yield Check(name="plugins", state="error", detail=f"{name} is required and not installed", hint=hint)
    if not broken:
        works = sum(info.state == "ok" for info in infos)
        yield Check(name="plugins", state="ok", detail=f"{works} work")


def drift(apps: Iterable[api.AppInfo]) -> Iterator[Check]:
    """Whether what runs is what should run."""
    clean = True
    for app in apps:
        if app.state not in ("running", "degraded", "crashed"):
            continue
        for process, wanted in sorted(app.formation.items()):
            running = app.running.get(process, 0)
            if running != wanted:
                clean = False
                yield Check(
                    name="drift",
                    state="warning",
                    detail=f"{app.name}: {running} of {wanted} {process} run",
                    hint=f"mini ps {app.name}",
                )
    if clean:
        yield Check(name="drift", state="ok", detail="What runs is what should run")


def problems(lines: Iterable[str]) -> Iterator[Check]:
    """What `mini status` reports: "what: command that shows more" where a command follows."""
    for line in lines:
        yield Check(name="status", state="warning", detail=line, hint="mini status")
