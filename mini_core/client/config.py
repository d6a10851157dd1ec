"""What the client remembers, in `hosts.toml` of the config folder, readable by its owner alone.

host = "https://mini.example.com"           the server that commands talk to, unless told otherwise
[keys]                                      one per server; a key is sent to no other
"https://mini.example.com" = "…"
[links."https://mini.example.com"]          folder → app
"/home/me/blog" = "blue-sky"
"""

from __future__ import annotations

import contextlib
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mini_core.errors import ConfigError, Unavailable
from mini_core.paths import find_paths, private_folder

LOCAL = "local"
LOCK_LIMIT = 5.0
"""Seconds after which a lock was left behind by a process that was killed."""


def current_host() -> str:
    """The server that was set, or "local"."""
    host = _load().get("host", LOCAL)
    return host if isinstance(host, str) and host else LOCAL


def set_host(host: str) -> None:
    _change(lambda data: data.update(host=host))


def load_key(host: str) -> str:
    """The key for a server (its address's text), or ""."""
    key = _table(_load(), "keys").get(host, "")
    return key if isinstance(key, str) else ""


def save_key(host: str, key: str) -> None:
    """Keeps a key; "" forgets it."""

    def change(data: dict[str, Any]) -> None:
        _set(data.setdefault("keys", {}), host, key)

    _change(change)


def linked_app(host: str, folder: Path) -> str:
    """The app that was deployed from the folder to the server, or ""."""
    app = _table(_table(_load(), "links"), host).get(str(folder.resolve()), "")
    return app if isinstance(app, str) else ""


def link_app(host: str, folder: Path, app: str) -> None:
    if linked_app(host, folder) == app:
        return

    def change(data: dict[str, Any]) -> None:
        _set(data.setdefault("links", {}).setdefault(host, {}), str(folder.resolve()), app)

    _change(change)


def rename_links(host: str, old: str, new: str) -> None:
    """All folders that were linked to an app are linked to its new name; "" unlinks them."""

    def change(data: dict[str, Any]) -> None:
        links = _table(_table(data, "links"), host)
        for folder in [folder for folder, app in links.items() if app == old]:
            _set(links, folder, new)

    if old in _table(_table(_load(), "links"), host).values():
        _change(change)


def config_file() -> Path:
    return find_paths().config / "hosts.toml"


# --- inside


def _load() -> dict[str, Any]:
    file = config_file()
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", hint="Make it readable.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: {error}", hint="Correct the file, or remove it and set host and key again."
        ) from None


def _change(change: Callable[[dict[str, Any]], object]) -> None:
    import tomli_w

    file = config_file()
    private_folder(file.parent)
    with _locked(file.with_name("hosts.lock")):
        data = _load()
        change(data)
        partial = file.with_name(f".hosts.toml.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            tomli_w.dump(data, output)
        partial.replace(file)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, on every system: whoever makes the file."""
    deadline = time.monotonic() + LOCK_LIMIT
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                path.unlink(missing_ok=True)
            time.sleep(0.02)
        except OSError as error:
            raise Unavailable(
                f"Cannot write {path.parent}: {error.strerror}", hint="Look at its permissions."
            ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _table(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _set(table: dict[str, Any], name: str, item: str) -> None:
    if item:
        table[name] = item
    else:
        table.pop(name, None)
