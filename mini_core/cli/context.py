"""What a command works with: the server, the app, the output, the questions. Plugin commands get the same.

Data goes to stdout, everything else to stderr. Nothing is imported that a command does not use.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mini_core.client.address import Address
    from mini_core.client.http import Client
    from mini_core.errors import MiniError
    from mini_core.manifest import Manifest

_APP = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Context:
    """Made once per command; implements `interfaces.CommandContext`."""

    def __init__(self) -> None:
        self.json = False
        self.yes = False
        self.app_option = ""
        self.host_option = ""
        self.say: Callable[[str], None] = partial(click.echo, err=True)
        """Writes a line to stderr. A command with a line half written there sets its own."""
        self._client: Client | None = None

    # --- which server

    def address(self) -> Address:
        """--host > MINI_HOST > `mini config set-host` > local. Raises UsageError."""
        from mini_core.client.address import parse_address

        given = self.host_option or os.environ.get("MINI_HOST", "")
        if not given:
            from mini_core.client.config import current_host

            given = current_host()
        return parse_address(given)

    def client(self, *, first: bool = False) -> Client:
        """The chosen server's. first: also starts a local platform that was never started or was put down."""
        if self._client is None:
            from mini_core.client.http import Client

            address = self.address()
            local = _Local(self, first) if address.is_local else None
            self._client = Client(address, key=self._key(address), local=local, warn=self.warn)
            if local is not None:
                local()
        return self._client

    def _key(self, address: Address) -> str:
        if address.kind != "http":
            return ""
        if address.exposed:
            self.warn(
                f"{address.text} is not encrypted: key, source and env can be read on the way. "
                "Use https:// or ssh://USER@HOST"
            )
        given = os.environ.get("MINI_API_KEY", "")
        if given:
            return given
        from mini_core.client.config import load_key

        return load_key(address.text)

    # --- which app

    def app(self, given: str | None = None) -> str:
        """-a or the argument > MINI_APP > `app` in mini.toml > the link of this folder. Raises UsageError."""
        from mini_core.errors import UsageError

        name = self.named_app(given) or self.folder_app(Path.cwd(), upwards=True)
        if not name:
            raise UsageError("No app named: pass -a NAME or set MINI_APP", hint='Or write app = "NAME" into mini.toml.')
        return check_app(name)

    def named_app(self, given: str | None = None) -> str:
        """The app that the command line or the environment names, or ""."""
        from mini_core.errors import UsageError

        if given and self.app_option and given != self.app_option:
            raise UsageError(f"Two apps named: {given} and {self.app_option}", hint="Name one of them.")
        return given or self.app_option or os.environ.get("MINI_APP", "")

    def folder_app(self, folder: Path, *, upwards: bool = False) -> str:
        """What mini.toml or the link of a folder says, or ""; upwards: or one above it, up to a repository's top."""
        from mini_core.client.config import linked_app

        folder = folder.resolve()
        host = self.address().text
        for place in (folder, *folder.parents) if upwards else (folder,):
            manifest = mini_toml(place)
            name = (manifest and manifest.app) or linked_app(host, place)
            if name or (place / ".git").exists():
                return name
        return ""

    def named(self, app: str) -> str:
        """The app as commands that change something name it: with its host, when remote."""
        address = self.address()
        return app if address.is_local else f"{app} on {address.text}"

    # --- output

    def data(self, item: Any, text: str | Sequence[str]) -> None:
        """Prints `item` as one JSON document with --json, else the text."""
        if self.json:
            self.document(item)
        elif text:
            click.echo(text if isinstance(text, str) else "\n".join(text))

    def document(self, item: Any) -> None:
        import json

        from mini_core.types import to_data

        click.echo(json.dumps(to_data(item), indent=2, ensure_ascii=False))

    def line(self, item: Any, text: str) -> None:
        """One item of a stream: a line of JSON with --json, else the text. Comes out at once."""
        if self.json:
            from mini_core.types import encode

            text = encode(item).decode()
        click.echo(text)

    def info(self, text: str) -> None:
        self.say(text)

    def warn(self, text: str) -> None:
        self.say(self.style("Warning: ", fg="yellow") + text)

    def style(self, text: str, **how: Any) -> str:
        """For stderr: colour on a terminal, unless NO_COLOR is set."""
        return click.style(text, **how) if colours(sys.stderr) else text

    def show_error(self, error: MiniError) -> int:
        """Two lines: what is wrong, what to do; between them, the last lines of what failed. Returns the exit code."""
        if os.environ.get("MINI_DEBUG") == "1":
            import traceback

            traceback.print_exception(error)
        self.info(self.style("Error: ", fg="red", bold=True) + without_stop(error.message))
        for text in error.tail:
            self.info(f"      {text}".rstrip())
        if error.hint:
            self.info(error.hint)
        return error.exit_status

    def show_bug(self, error: Exception) -> int:
        if os.environ.get("MINI_DEBUG") == "1":
            import traceback

            traceback.print_exception(error)
        text = " ".join(str(error).split())
        self.info(self.style("Error: ", fg="red", bold=True) + f"This is a bug in mini: {type(error).__name__}: {text}")
        self.info("MINI_DEBUG=1 shows where; please report it.")
        return 1

    # --- questions

    @property
    def interactive(self) -> bool:
        """Whether somebody can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> None:
        """Asks, unless --yes was given; ends the command on a no. Raises UsageError where nobody can be asked."""
        if self.yes:
            return
        if not self.interactive:
            from mini_core.errors import UsageError

            raise UsageError(f"{question} Nobody to ask here", hint="Add --yes to do it without asking.")
        click.confirm(question, abort=True, err=True)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class _Local:
    """The local platform's admin socket. Starts the platform where it does not run; after a crash, too. One that is put
    down while a command goes on stays down."""

    def __init__(self, context: Context, first: bool) -> None:
        self._context = context
        self._first = first

    def __call__(self) -> Path:
        from mini_core.errors import Unavailable

        if sys.platform == "win32":
            raise Unavailable(
                "The local platform needs Linux or macOS: use WSL or mini config set-host",
                hint="mini config set-host https://HOST",
            )
        from mini_core.paths import find_paths
        from mini_core.server import local

        paths = find_paths()
        first, self._first = self._first, False
        started = local.ensure_running(paths, first=first)
        if started.message:
            self._context.info(started.message)
        return paths.admin_socket


def check_app(name: str) -> str:
    """The name, if it can be one. Raises UsageError."""
    if not _APP.fullmatch(name):
        from mini_core.errors import UsageError

        raise UsageError(
            f"{name!r} cannot be the name of an app", hint="A name has lower-case letters, digits and hyphens."
        )
    return name


def without_stop(text: str) -> str:
    """A headline has no full stop."""
    return text.removesuffix(".") if not text.endswith("..") else text


def colours(stream: Any) -> bool:
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def mini_toml(folder: Path) -> Manifest | None:
    """What the folder's mini.toml says, read as the server reads it; None where there is none. Raises ConfigError."""
    file = folder / "mini.toml"
    if not file.is_file():
        return None
    from mini_core.manifest import parse_mini_toml
    from mini_core.sources import decode_text

    return parse_mini_toml(decode_text(file.read_bytes()), str(file))
