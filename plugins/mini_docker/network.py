"""The platform's own network, and the addresses on it.

A bridge named after the platform, with a subnet that nothing else uses, on which containers cannot reach each other:
only the host (so the router) and the outside. Instances with an endpoint get an address of their own from the lower
half, chosen before the container is made; the engine hands out the upper half to all others, so that the two never
meet. The subnet derives from the platform's id, so that it is mostly the same when the network is made anew.

Where the host cannot reach container addresses, an endpoint is a fixed port on 127.0.0.1 instead.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from mini_core.errors import StartError, Unavailable
from mini_core.types import Endpoint
from mini_docker.engine import Engine

PORT = 8080
"""What web instances are told to listen on: each has an address of its own."""

PUBLISHED = range(20000, 32768)
"""Below the ports that systems hand out by themselves (32768 on Linux)."""

_SPACE = ipaddress.ip_network("10.192.0.0/10")
_PREFIX = 20
_ICC = "com.docker.network.bridge.enable_icc"

Net = ipaddress.IPv4Network


class Network:
    """published: publish ports on 127.0.0.1 even where addresses can be reached."""

    def __init__(self, engine: Engine, platform: str, *, published: bool) -> None:
        self.name = f"mini-{platform}"
        self._engine, self._platform, self._published = engine, platform, published
        self._lock = threading.Lock()
        self._last: int | None = None

    @property
    def published(self) -> bool:
        return self._published or not self._engine.reachable_addresses

    def allocate(self, taken: Collection[Endpoint]) -> Endpoint:
        """An endpoint that is none of those taken, and not the one that was given last: what is about to close its
        connections to an old address should not meet a new instance there."""
        with self._lock:
            if self.published:
                return self._port({item.port for item in taken})
            return Endpoint(host=self._address({item.host for item in taken}), port=PORT)

    def ensure(self, containing: str = "") -> Net:
        """The network's subnet; made if there is none, where possible with `containing` in it."""
        with self._lock:
            return self._ensure(containing)

    def problem(self) -> str:
        """Why the host could not reach instances by address, or ""."""
        import docker.errors

        if self.published:
            return ""
        try:
            with self._engine.reached():
                found = self._engine.api.inspect_network(self.name)
        except docker.errors.NotFound:
            return ""  # made at the first start
        gateway = str(_subnet(found).network_address + 1)
        return "" if _is_free(0, gateway) else f"{gateway}, the gateway of {self.name}, is no address of this machine"

    def remove(self) -> None:
        import docker.errors

        with self._engine.reached():
            for found in self._engine.api.networks(filters=self._engine.own(self._platform)):
                try:
                    self._engine.api.remove_network(found["Id"])
                except docker.errors.NotFound:
                    continue

    # --- addresses

    def _address(self, taken: set[str]) -> str:
        subnet = self._ensure("")
        taken = taken | self._in_use()
        first, last = int(subnet.network_address) + 2, int(subnet.network_address) + subnet.num_addresses // 2 - 1
        start = first if self._last is None else self._last + 1 if first <= self._last < last else first
        for number in (*range(start, last + 1), *range(first, start)):
            address = str(ipaddress.IPv4Address(number))
            if address not in taken:
                self._last = number
                return address
        raise Unavailable(f"no free address on the network {self.name}", hint="remove apps that are not needed")

    def _in_use(self) -> set[str]:
        """Addresses of all containers of this platform, running or not."""
        with self._engine.reached():
            found = self._engine.api.containers(all=True, filters=self._engine.own(self._platform))
        labels = (item.get("Labels") or {} for item in found)
        return {label["mini.endpoint"].rpartition(":")[0] for label in labels if label.get("mini.endpoint")}

    def _port(self, taken: set[int]) -> Endpoint:
        start = PUBLISHED.start if self._last is None else self._last + 1
        for port in (*range(start, PUBLISHED.stop), *range(PUBLISHED.start, start)):
            if port not in taken and _is_free(port):
                self._last = port
                return Endpoint(host="127.0.0.1", port=port)
        raise Unavailable(f"no free port from {PUBLISHED.start} to {PUBLISHED.stop - 1} on 127.0.0.1")

    # --- the network

    def _ensure(self, containing: str) -> Net:
        import docker.errors

        try:
            with self._engine.reached():
                return _subnet(self._engine.api.inspect_network(self.name))
        except docker.errors.NotFound:
            pass
        for subnet in self._free_subnets(containing):
            try:
                return self._make(subnet)
            except docker.errors.APIError as error:
                text = str(error.explanation)
                if error.status_code == 409 or "already exists" in text:  # made by another thread or process
                    return _subnet(self._engine.api.inspect_network(self.name))
                if "overlap" not in text.lower():
                    raise Unavailable(f"no network: {text}", hint="see the engine's log") from error
        raise Unavailable(f"no free subnet in {_SPACE}", hint="docker network ls, and remove what is not needed")

    def _make(self, subnet: Net) -> Net:
        half = next(iter(list(subnet.subnets(prefixlen_diff=1))[1:]))
        gateway = str(subnet.network_address + 1)
        config = {
            "Name": self.name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "IPAM": {"Config": [{"Subnet": str(subnet), "IPRange": str(half), "Gateway": gateway}]},
            "Options": {_ICC: "false"},
            "Labels": {"mini.platform": self._platform},
        }
        client = self._engine.api
        with self._engine.reached():
            client._result(client._post_json(client._url("/networks/create"), data=config), json=True)
        return subnet

    def _free_subnets(self, containing: str) -> Iterator[Net]:
        used = [*self._subnets(), *_routes()]
        for subnet in _candidates(self._platform, containing):
            if not any(subnet.overlaps(other) for other in used):
                yield subnet

    def _subnets(self) -> Iterator[Net]:
        with self._engine.reached():
            networks = self._engine.api.networks()
        for network in networks:
            for config in (network.get("IPAM") or {}).get("Config") or ():
                if "." in str(config.get("Subnet", "")):
                    yield Net(config["Subnet"])


def _subnet(network: dict[str, Any]) -> Net:
    return next(Net(item["Subnet"]) for item in network["IPAM"]["Config"] if "." in item["Subnet"])


def _candidates(platform: str, containing: str) -> Iterator[Net]:
    """Where to look for room: around a given address, then from a place that the platform's id gives."""
    if containing:
        yield Net(f"{containing}/{_PREFIX}", strict=False)
    count = 2 ** (_PREFIX - _SPACE.prefixlen)
    start = int.from_bytes(hashlib.sha256(platform.encode()).digest()[:4], "big") % count
    size = 2 ** (32 - _PREFIX)
    for index in range(count):
        yield Net((int(_SPACE.network_address) + (start + index) % count * size, _PREFIX))


def _routes() -> Iterable[Net]:
    """The subnets that this machine has routes to (Linux), the default route aside."""
    try:
        lines = Path("/proc/net/route").read_text("ascii").splitlines()[1:]
    except OSError:
        return ()
    found = []
    for line in lines:
        destination, mask = line.split()[1], line.split()[7]
        bits = int(mask, 16).bit_count()
        if bits:
            found.append(Net((int.from_bytes(bytes.fromhex(destination), "little"), bits), strict=False))
    return found


def _is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def outside(address: str, subnet: Net) -> StartError:
    return StartError(
        f"the address {address} is not on this platform's network ({subnet})",
        hint="mini restart gives the instance a new one",
        code="address-gone",
    )
