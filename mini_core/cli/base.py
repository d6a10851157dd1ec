"""What commands share: the options that choose server, app and output, and groups with a command by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mini_core.cli.context import Context

F = TypeVar("F", bound=Callable[..., Any])

pass_context = click.make_pass_decorator(Context)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, given: Any) -> None:
        if given:
            setattr(ctx.ensure_object(Context), name, given)

    return callback


def _option(*names: str, keep: str, help: str, **more: Any) -> Callable[[], click.Option]:  # noqa: A002 - click's word
    return lambda: click.Option([*names], expose_value=False, callback=_keep(keep), help=help, **more)


APP = _option("app_option", "-a", "--app", keep="app_option", metavar="NAME", help="The app; by default this folder's.")
HOST = _option("host_option", "--host", keep="host_option", metavar="URL", help="The server, or local.")
JSON = _option("json_option", "--json", keep="json", is_flag=True, help="Print JSON.")
YES = _option("yes_option", "-y", "--yes", keep="yes", is_flag=True, help="Ask nothing.")
COMMON = (HOST, JSON, YES)


def options(*makers: Callable[[], click.Option]) -> Callable[[F], F]:
    """Adds options after those of the command itself."""

    def decorate(function: F) -> F:
        target: Any = function
        if isinstance(target, click.Command):
            target.params.extend(make() for make in makers)
        else:
            target.__click_params__ = [*(make() for make in reversed(makers)), *getattr(target, "__click_params__", [])]
        return function

    return decorate


on_server = options(HOST, JSON)
"""For a command about the server."""
on_app = options(APP, HOST, JSON)
"""For a command about one app, which is found by the usual rules."""


class DefaultGroup(click.Group):
    """A group that means one of its commands where none is named: `mini apps` is `mini apps list`, and, where that
    takes an app, `mini releases blog` is `mini releases list blog`."""

    def __init__(self, *arguments: Any, default: str = "list", **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        wants_help = args and args[0] in ctx.help_option_names
        if not wants_help and (not args or args[0].startswith("-") or self._is_app(args[0])):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def _is_app(self, word: str) -> bool:
        """Whether it can be meant as an app's name, and is no misspelt command."""
        from difflib import get_close_matches

        takes_app = any(isinstance(item, click.Argument) and item.name == "app" for item in self._default().params)
        return takes_app and word not in self.commands and not get_close_matches(word, self.commands)

    def _default(self) -> click.Command:
        return self.commands[self.default]
