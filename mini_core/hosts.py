"""Host names as routes know them.

`canonical` folds what a client may write in a Host header into one form, so that routers compare strings and
need no rules of their own. Wildcard DNS services that answer with the address in the name (nip.io, sslip.io)
make every address an alias: `blog.1.2.3.4.nip.io` is `blog.nip.io` whatever the address.
"""

from __future__ import annotations

import ipaddress
import re

PLATFORM = "mini"
"""The label under which the platform itself answers: `mini.<domain>`."""

IP = "ip"
"""What every bare address is folded into."""

_WILDCARD = ("nip.io", "sslip.io")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_DOTTED = re.compile(r"^(?:(?P<name>.+)[.-])?(?:\d{1,3}[.-]){3}\d{1,3}$")
_DIGITS = re.compile(r"(\d{1,3})[.-](\d{1,3})[.-](\d{1,3})[.-](\d{1,3})$")


def split_port(host: str) -> tuple[str, str]:
    """("name", "8080") of "name:8080"; the brackets of an IPv6 address are dropped."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def canonical(host: str) -> str:
    """The host of a request as route tables hold it, or "" for one that no name can have (RFC 1123, RFC 3986).

    Lower case, without port and trailing dot; `IP` for a bare address; the address of a wildcard DNS name dropped.
    """
    name, port = split_port(host.strip().lower())
    if port and not (port.isascii() and port.isdigit()):
        return ""
    if is_address(name):
        return IP
    name = name.removesuffix(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return ""
    for suffix in _WILDCARD:
        if name.endswith("." + suffix):
            return _without_address(name.removesuffix("." + suffix))
    return name


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_address(prefix: str) -> str:
    match = _DOTTED.match(prefix)
    digits = _DIGITS.search(prefix)
    if not match or not digits or any(int(part) > 255 for part in digits.groups()):
        return f"{prefix}.nip.io"
    name = match["name"]
    return f"{name}.nip.io" if name else "nip.io"


def app_hosts(app: str, domain: str, added: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The canonical hosts of an app: below the platform's domain, `localhost` and wildcard DNS, and its own."""
    names = (f"{app}.{domain}", f"{app}.localhost", f"{app}.nip.io", *added)
    return tuple(dict.fromkeys(canonical(name) for name in names if name))


def platform_hosts(domain: str) -> tuple[str, ...]:
    """The canonical hosts of the platform itself."""
    bases = tuple(dict.fromkeys((domain, "localhost", "nip.io")))
    return tuple(dict.fromkeys((IP, *bases, *(f"{PLATFORM}.{base}" for base in bases))))


def app_url(app: str, base_url: str, domain: str, port: int) -> str:
    """The URL under which a client that reached the platform at `base_url` can open the app.

    A platform with a domain of its own says that; otherwise the host that the client used decides: a bare address
    gives a wildcard DNS name, `localhost` gives `app.localhost`.
    """
    scheme, _, rest = (base_url or "http://localhost").partition("://")
    host, given = split_port(rest.partition("/")[0])
    suffix = f":{given}" if given else ""
    if not base_url:
        suffix = "" if port == 80 else f":{port}"
    if domain != "localhost":
        return f"{scheme}://{app}.{domain}{suffix}"
    if host == "::1" or host == "127.0.0.1" or not host or host == "localhost":
        return f"{scheme}://{app}.localhost{suffix}"
    if is_address(host):
        name = host if "." in host else host.replace(":", "-")
        return f"{scheme}://{app}.{name}.{'nip.io' if '.' in host else 'sslip.io'}{suffix}"
    return f"{scheme}://{app}.{host.removeprefix(PLATFORM + '.')}{suffix}"
