"""What clients ask for, checked, before it becomes a deploy."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mini_core import api, hosts
from mini_core.engine.parts import Parts
from mini_core.engine.specs import processes_of
from mini_core.errors import Conflict, UsageError
from mini_core.releases import merge_limits
from mini_core.store.records import App, StoredRelease
from mini_core.types import Limits

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_ENV = frozenset(("PORT", "HOST", "MINI_INSTANCE"))
"""Variables that the platform sets."""

MOST = 100
"""Instances of one process type."""

SMALLEST = 6 * 1024 * 1024
"""Bytes of memory below which Docker starts nothing."""


def check_env(env: Mapping[str, str]) -> None:
    """Raises UsageError for a name or a value that no variable can have, and for those that the platform sets."""
    for name, item in env.items():
        if not ENV_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a variable.", hint="Letters, digits and _, no digit first.")
        if name in OWN_ENV:
            raise UsageError(f"{name} is set by mini.", hint="Leave it out.")
        if "\0" in item:
            raise UsageError(f"The value of {name} holds a zero byte.", hint="Set it in base64, for example.")


def describe_env_change(change: api.EnvChange) -> str:
    words = []
    if change.set:
        words.append(f"env set {' '.join(sorted(change.set))}")
    if change.unset:
        words.append(f"env unset {' '.join(sorted(change.unset))}")
    return ", ".join(words)


def current_release(parts: Parts, app: App) -> StoredRelease:
    """Raises Conflict where there is none yet."""
    if app.release is None:
        raise Conflict(f"{app.name} has no release yet.", hint=f"mini deploy . {app.name}", code="no-release")
    return parts.store.releases.get(app.id, app.release)


def check_scale(stored: StoredRelease, request: api.Scale) -> None:
    """Raises UsageError for process types that there are not, and impossible numbers."""
    known = [item.name for item in processes_of(stored)]
    for name, quantity in request.quantities.items():
        if name not in known:
            raise UsageError(f"There is no process type {name}.", hint=f"There are: {', '.join(known)}.")
        if not 0 <= quantity <= MOST:
            raise UsageError(f"{name}={quantity}: expected 0 to {MOST}.")
    if request.process and request.process not in known:
        raise UsageError(f"There is no process type {request.process}.", hint=f"There are: {', '.join(known)}.")
    check_limits(request)


def check_limits(request: api.Scale) -> None:
    """Raises UsageError for impossible ones."""
    if request.memory is not None and 0 != request.memory < SMALLEST:
        raise UsageError("The memory limit is too small to start anything.", hint="Such as --memory 256m.")
    if request.cpu is not None and request.cpu < 0:
        raise UsageError(f"cpu={request.cpu:g}: expected a number of cores.", hint="Such as --cpu 0.5.")


def limits_change(request: api.Scale) -> dict[str, Limits]:
    """By process type; 0 takes a limit back."""
    if request.memory is None and request.cpu is None:
        return {}
    return {request.process: Limits(memory=request.memory, cpu=request.cpu)}


def limit_first(parts: Parts, app: App, request: api.Scale, actor: str) -> None:
    """Limits of an app whose first release is still to come, perhaps because it needs more memory."""
    check_limits(request)
    parts.store.apps.set_limits(app.id, merge_limits(app.limits, limits_change(request)))
    parts.store.events.add("app.scaled", actor, app.name, {"change": f"scale {request.describe()}"})


def check_domain(parts: Parts, domain: str) -> str:
    """The domain in its canonical form. Raises UsageError for what is no name of somebody's own."""
    name = hosts.canonical(domain)
    taken = (parts.settings.domain, "localhost", "nip.io", "sslip.io")
    if not name or "." not in name or name == hosts.IP:
        raise UsageError(f"{domain!r} is no domain.", hint="Such as example.com or www.example.com.")
    if name in hosts.platform_hosts(parts.settings.domain) or any(name.endswith(f".{item}") for item in taken):
        raise UsageError(f"{name} belongs to the platform.", hint=f"Apps have NAME.{parts.settings.domain}.")
    return name


def domain_info(parts: Parts, domain: str, base_url: str, *, default: bool) -> api.DomainInfo:
    scheme = "https" if parts.router.https else "http"
    suffix = "" if parts.port in (80, 443) else f":{parts.port}"
    host, _ = hosts.split_port(base_url.partition("://")[2].partition("/")[0])
    local = host in ("", "localhost") or host.endswith(".localhost") or host.startswith("127.") or host == "::1"
    where = parts.settings.domain if local and parts.settings.domain != "localhost" else host
    kind = "A" if hosts.is_address(where) else "CNAME"
    note = "" if parts.router.https else _no_https(parts)
    return api.DomainInfo(
        domain=domain,
        url=f"{scheme}://{domain}{suffix}",
        kind="default" if default else "added",
        dns="" if default or (local and where == host) else f"{domain} {kind} {where}",
        note="" if default else note,
    )


def _no_https(parts: Parts) -> str:
    """Names a router that is installed and has HTTPS, where there is one."""
    better = f"mini up --router {parts.https_routers[0]}" if parts.https_routers else ""
    return f"No HTTPS with this router: {better or 'put a server that ends TLS in front of it'}"


def previous_version(parts: Parts, app: App) -> int:
    """The last release before the current one that went live. Raises Conflict where there is none."""
    before = parts.store.releases.live_before(app.id, app.release or 0)
    if before is not None:
        return before
    raise Conflict(f"{app.name} has no earlier release.", hint="mini releases lists them.", code="no-release")
