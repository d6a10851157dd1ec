"""`mini config`: which server, and its key."""

from __future__ import annotations

import os
import sys

import click

from mini_core.cli.base import HOST, JSON, DefaultGroup, options, pass_context
from mini_core.cli.context import Context
from mini_core.client import config as stored
from mini_core.client.address import parse_address
from mini_core.errors import UsageError


@click.group(cls=DefaultGroup, default="show")
def config() -> None:
    """Shows and sets the server that commands talk to, and its key."""


@config.command()
@options(HOST, JSON)
@pass_context
def show(context: Context) -> None:
    """Shows server and key, and where each comes from."""
    address = context.address()
    if context.host_option:
        source = "--host"
    elif os.environ.get("MINI_HOST"):
        source = "MINI_HOST"
    else:
        source = str(stored.config_file()) if stored.current_host() != stored.LOCAL else "default"
    key = "MINI_API_KEY" if os.environ.get("MINI_API_KEY") else "kept" if stored.load_key(address.text) else "none"
    key = key if address.kind == "http" else "not needed"
    data = {"host": address.text, "host_source": source, "key": key, "file": str(stored.config_file())}
    context.data(data, [f"Host: {address.text} ({source})", f"Key:  {key}", f"File: {stored.config_file()}"])


@config.command("get-host")
@options(HOST, JSON)
@pass_context
def get_host(context: Context) -> None:
    """Prints the server's address."""
    text = context.address().text
    context.data({"host": text}, text)


@config.command("set-host")
@click.argument("url", metavar="URL|local")
@pass_context
def set_host(context: Context, url: str) -> None:
    """Chooses the server: https://HOST, http://HOST, ssh://USER@HOST, or local."""
    address = parse_address(url)
    stored.set_host(address.text)
    context.info(f"Commands now talk to {address.text}.")
    if address.exposed:
        context.warn(
            "http:// is not encrypted: key, source and env can be read on the way. Use https:// or ssh://USER@HOST"
        )
    if address.kind == "http" and not stored.load_key(address.text):
        context.info("Set its key: mini config set-api-key")


@config.command("set-api-key")
@click.argument("key", default="")
@options(HOST)
@pass_context
def set_api_key(context: Context, key: str) -> None:
    """Keeps the key of the chosen server. Without KEY it asks for it, or reads stdin."""
    address = context.address()
    if address.kind != "http":
        raise UsageError(f"{address.text} needs no key", hint="Choose a server first: mini config set-host URL")
    if not key:
        key = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("That is no key", hint="Copy it whole, as `mini keys create` showed it.")
    stored.save_key(address.text, key)
    context.info(f"Key kept for {address.text}.")
