"""When an instance is healthy, and where it listens.

An instance is healthy when its health path answers below 400, or, without one, when its port answers at all: a port
that merely accepts connections may have nothing behind it. Where its image has a health check that counts, that has
to succeed, too. What listens decides: an app that ignores PORT is found.
"""

from __future__ import annotations

import http.client
import ipaddress
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from mini_core.engine.causes import folded
from mini_core.engine.failures import InstanceFailed, ended
from mini_core.interfaces import Runtime
from mini_core.types import Endpoint, Health, InstanceSpec, InstanceStatus, LogLine, Value

CONNECT_TIMEOUT = 1.0
"""Seconds for a connection: to a container that has just ended it would take the machine three to see that."""

PROBE_TIMEOUT = 5.0
"""Seconds for the answer to a probe."""

HEADERS = {"User-Agent": "mini-health", "Connection": "close"}

ASK_EVERY = 0.1
"""Seconds between questions to the runtime about what does not listen yet: they take longer than a probe."""

PATIENCE = 1.5
"""Seconds for which an app listens elsewhere, and not on its PORT, before it is taken to ignore PORT."""

LOOPBACK_PATIENCE = 4.0
"""Seconds after which listening on its own loopback only is an error."""

KEPT = 200
"""Lines of a failed instance that are looked at."""

SETTLED = 2.0
"""Seconds that a process without a port has to stay up."""


class Answer(Value):
    """Of a probe. status: of the HTTP answer, if there was one. detail: for an error message. own_check: it is that of
    the image's own health check."""

    ok: bool
    detail: str
    status: int | None = None
    refused: bool = False
    own_check: bool = False


def probe(address: Endpoint, path: str, host: str, timeout: float = PROBE_TIMEOUT) -> Answer:
    """One GET. Without a path any answer is good, and "/" is asked for; a redirect counts as an answer."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_TIMEOUT)
    try:
        connection.connect()
        connection.sock.settimeout(timeout)
        connection.request("GET", path or "/", headers={"Host": host, **HEADERS})
        status = connection.getresponse().status
    except ConnectionRefusedError:
        return Answer(ok=False, detail="nothing listens there", refused=True)
    except http.client.RemoteDisconnected:
        return Answer(ok=False, detail="it closed the connection without an answer")
    except http.client.HTTPException:
        return Answer(ok=not path, detail="its answer is no HTTP")
    except TimeoutError:
        return Answer(ok=False, detail=f"no answer within {timeout:.0f} s")
    except OSError as error:
        return Answer(ok=False, detail=str(error.strerror or error), refused=True)
    finally:
        connection.close()
    return Answer(ok=not path or status < 400, detail=f"it answered {status}", status=status)


def own_check(status: InstanceStatus) -> Answer:
    """What the image's own check says."""
    detail = f"its HEALTHCHECK does not succeed: {status.health_detail}".rstrip(": ")
    return Answer(ok=status.health in ("", "healthy"), detail=detail, own_check=True)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in ("", "*")


class Healthy(Value):
    """found: where it listens, if not where it was told to. warnings: for the user. seconds: how long it took."""

    found: Endpoint | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


class Watch:
    """Watches one instance that was just started. `look` is called again and again until it has an answer.

    where: says in which line of its source a port is written, or "".
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: InstanceSpec,
        app: str,
        host: str,
        *,
        isolated: bool,
        where: Callable[[int], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self._runtime = runtime
        self._app = app
        self._host = host
        self._isolated = isolated
        self._where = where
        self._clock = clock
        self._began = clock()
        self._ask_again = self._began
        self._elsewhere_since: float | None = None
        self._last = Answer(ok=False, detail="nothing listens there", refused=True)
        self._listening: tuple[Endpoint, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.spec.process}.{self.spec.index}"

    def look(self) -> Healthy | None:
        """Healthy, or None for not yet. Raises InstanceFailed when it never will be."""
        if self.spec.endpoint is not None:
            self._last = probe(self.spec.endpoint, self.spec.plan.health.path, self._host)
            if self._last.refused and self._clock() < self._ask_again:
                return None
        self._ask_again = self._clock() + ASK_EVERY
        status = self._runtime.status(self.spec.id)
        if status is None or status.state in ("exited", "gone"):
            raise self._ended(status)
        if self.spec.endpoint is None:
            up = self._clock() - self._began
            return Healthy(seconds=up) if up >= SETTLED and status.state == "running" else None
        if healthy := self._judge(self.spec.endpoint, status):
            return healthy
        if self._clock() - self._began > self.spec.plan.health.timeout:
            raise self._too_late()
        return None

    def _judge(self, endpoint: Endpoint, status: InstanceStatus) -> Healthy | None:
        if self._last.ok:
            return self._well(None, status)
        self._listening = self._runtime.listening(self.spec.id) or () if self._last.refused else ()
        if not self._listening:
            self._elsewhere_since = None
            return None
        return self._elsewhere(endpoint, status)

    def _elsewhere(self, endpoint: Endpoint, status: InstanceStatus) -> Healthy | None:
        """It listens, but not where it was told to."""
        now, listening = self._clock(), self._listening
        self._elsewhere_since = self._elsewhere_since or now
        waited = now - self._elsewhere_since
        reachable = [found for item in listening if (found := self._reachable(item, endpoint))]
        if not reachable:
            if waited >= LOOPBACK_PATIENCE:
                raise self._loopback_only(listening)
            return None
        if waited < PATIENCE:
            return None
        for found in self._likeliest(reachable):
            self._last = probe(found, self.spec.plan.health.path, self._host)
            if self._last.ok:
                return self._well(found, status)
        return None

    def _reachable(self, item: Endpoint, endpoint: Endpoint) -> Endpoint | None:
        """The address from which something that listens there can be reached from here."""
        if is_wildcard(item.host):
            return Endpoint(host=endpoint.host, port=item.port)
        if is_loopback(item.host):
            return None if self._isolated else item
        return item if not self._isolated else Endpoint(host=endpoint.host, port=item.port)

    def _likeliest(self, found: Iterable[Endpoint]) -> list[Endpoint]:
        declared = (self.spec.plan.port, *self.spec.image.ports)
        return sorted(set(found), key=lambda item: (item.port not in declared, item.port, item.host))

    def _well(self, found: Endpoint | None, status: InstanceStatus) -> Healthy | None:
        """It answers; what its image says counts, too."""
        own = own_check(status)
        if own.ok:
            return self._healthy(found)
        self._last = own
        return None

    def _healthy(self, found: Endpoint | None) -> Healthy:
        warnings = []
        if found is not None and self.spec.endpoint is not None and found.port != self.spec.endpoint.port:
            where = self._where(found.port)
            warnings.append(f"Listens on {found.port}, ignoring PORT{f' ({where})' if where else ''}")
        port = (found or self.spec.endpoint or Endpoint(host="", port=0)).port
        listening = () if self._isolated else self._runtime.listening(self.spec.id) or ()
        if any(item.port == port and is_wildcard(item.host) for item in listening):
            warnings.append(
                f"{self.name} listens on all interfaces: port {port} can be reached past the router. "
                "Listen on $HOST (127.0.0.1)"
            )
        return Healthy(found=found, warnings=tuple(warnings), seconds=self._clock() - self._began)

    # --- errors

    def _lines(self) -> deque[LogLine]:
        return deque(self._runtime.logs(self.spec.id), maxlen=KEPT)

    def _tail(self) -> list[str]:
        return folded(line.text for line in self._lines())

    def _ended(self, status: InstanceStatus | None) -> InstanceFailed:
        if status is None:
            return InstanceFailed(f"{self.name} was removed from outside while it started.", code="gone")
        return ended(self._app, self.name, status, self.spec.limits.memory, self._lines())

    def _loopback_only(self, listening: Sequence[Endpoint]) -> InstanceFailed:
        ports = ", ".join(dict.fromkeys(str(item) for item in listening))
        return InstanceFailed(
            f"{self.name} listens on its own loopback only ({ports}): nobody else can reach it.",
            code="loopback-only",
            hint="listen on 0.0.0.0 (or $HOST) instead of 127.0.0.1 or localhost.",
            tail=self._tail(),
        )

    def _too_late(self) -> InstanceFailed:
        path, seconds = self.spec.plan.health.path, f"{self.spec.plan.health.timeout:.0f} s"
        if not self._last.refused:
            where = f"GET {path}: " if path else ""
            return InstanceFailed(
                f"{self.name} was not healthy within {seconds}: {where}{self._last.detail}.",
                code="unhealthy",
                hint=_advice(self.spec.plan.health, self._host, self._last),
                tail=self._tail(),
            )
        port = self.spec.endpoint.port if self.spec.endpoint else 0
        elsewhere = ", ".join(dict.fromkeys(str(item) for item in self._listening))
        instead = f" (it listens on {elsewhere})" if elsewhere else ""
        return InstanceFailed(
            f"{self.name} never listened on port {port} within {seconds}{instead}.",
            code="never-listens",
            hint=f"Listen on $PORT; {_slow_start(self.spec.plan.health.timeout)}",
            tail=self._tail(),
        )


def _slow_start(timeout: float) -> str:
    return f'for a slow start, in mini.toml: [health] timeout = "{2 * timeout:.0f}s"'


def _advice(health: Health, host: str, last: Answer) -> str:
    """What to do about an app that answers, but not well."""
    if last.own_check:
        return 'Mend the HEALTHCHECK, or have a path asked for instead: [health] path = "/" in mini.toml.'
    if last.status is None:
        return f"It has to answer HTTP requests; {_slow_start(health.timeout)}"
    if last.status == 400:
        return f"Does it accept the host name {host} (Django: ALLOWED_HOSTS)?"
    return f"{health.path} has to answer below 400; [health] path in mini.toml names another one."
