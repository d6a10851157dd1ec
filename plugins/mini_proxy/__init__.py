"""The built-in router: Flask served by waitress, with a proxy of its own on waitress's connections.

The controller uses `ProxyRouter` (see `router`); the processes are `python -m mini_proxy`, a `master` and its
`worker`s. `proxy` decides what becomes of a request, `exchange` carries it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mini_proxy.plugin import ProxyPlugin as ProxyPlugin


def __getattr__(name: str) -> Any:
    """The plugin, loaded when it is asked for: the router's processes need no hooks, and start the sooner."""
    if name == "ProxyPlugin":
        from mini_proxy.plugin import ProxyPlugin

        return ProxyPlugin
    raise AttributeError(name)
