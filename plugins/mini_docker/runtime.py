"""Starts and watches instances as containers.

An instance's id is its container's name, and all that is known about it is in its labels, so a new controller finds
everything again. Containers do not restart by themselves until they were healthy once (`supervise`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

from mini_core.errors import Conflict, NotFound, StartError
from mini_core.interfaces import Job, OneOff, Runtime
from mini_core.types import Endpoint, InstanceSpec, InstanceStatus, LogLine, Secret, replace
from mini_docker import containers
from mini_docker.attached import Attachment, Execution
from mini_docker.engine import Engine
from mini_docker.healthchecks import HealthChecks
from mini_docker.logs import Followers, Logs, Written
from mini_docker.machine import Usage, listening, parse
from mini_docker.network import Network, outside
from mini_docker.volumes import Volumes

_MB = 1024 * 1024

LAST_WORDS = 2.0
"""Seconds that removing waits for those who follow the logs."""


class DockerRuntime(Runtime):
    name = "docker"
    accepts = frozenset({"docker"})
    abilities = frozenset({"limits", "isolation", "volumes", "exec", "tty", "side-by-side-ports", "platforms"})
    notice = ""

    def __init__(self, engine: Engine, platform: str, settings: Mapping[str, Any] | None = None) -> None:
        """settings: `[plugins.docker]`, see the package."""
        settings = settings or {}
        self._engine, self._platform = engine, platform
        self._memory = int(settings.get("memory", containers.MEMORY // _MB)) * _MB
        self._pids = int(settings.get("pids", containers.PIDS))
        self.network = Network(engine, platform, published=settings.get("addresses") == "published")
        self._volumes = Volumes(engine, platform)
        self._usage = Usage()
        self._followers = Followers()
        self._health = HealthChecks(self._output)

    def check(self) -> None:
        with self._engine.reached():
            self._engine.api.ping()

    def allocate(self, taken: Collection[Endpoint]) -> Endpoint:
        return self.network.allocate(taken)

    # --- starting

    def start(self, spec: InstanceSpec, job: Job) -> InstanceStatus:
        job.check()
        if self._make(spec):
            self._run(spec.id)
        return self._required(spec.id)

    def supervise(self, instance: str) -> None:
        if self._find(instance):
            with self._engine.reached():
                self._engine.api.update_container(instance, restart_policy=containers.POLICY)

    def attach(self, spec: InstanceSpec, job: Job) -> OneOff:
        job.check()
        self._make(spec)
        attached = Attachment(self._engine, spec.id, tty=spec.tty, stdin=spec.stdin)
        try:
            self._started(spec.id, attached.start)
        except BaseException:
            attached.close()
            raise
        return attached

    def exec(self, instance: str, command: Sequence[str], *, tty: bool = False, env: Mapping[str, Secret]) -> OneOff:
        found = self._find(instance)
        if found is None:
            raise NotFound(f"no instance {instance}", hint="mini ps shows what runs")
        if not found["State"]["Running"]:
            raise Conflict(f"{instance} is not running", hint="mini ps shows what runs; mini run starts a one-off")
        return Execution(self._engine, instance, command, tty=tty, env=env)

    def _make(self, spec: InstanceSpec) -> bool:
        """Makes the container, or adopts the one that is there; whether it is still to be started."""
        import docker.errors

        found = self._find(spec.id)
        if found:
            if found["State"]["Status"] == "paused":
                with self._engine.reached():
                    self._engine.api.unpause(spec.id)
            return bool(found["State"]["Status"] == "created")
        published = self.network.published
        address = spec.endpoint.host if spec.endpoint and not published else ""
        subnet = self.network.ensure(address)
        if address and not _within(address, subnet):
            raise outside(address, subnet)
        body = containers.config(
            spec,
            platform=self._platform,
            network=self.network.name,
            published=published,
            memory=self._memory,
            pids=self._pids,
        )
        try:
            with self._engine.reached():
                self._engine.api.create_container_from_config(body, spec.id)
        except docker.errors.APIError as error:
            if error.status_code == 409 and (found := self._find_soon(spec.id)):
                return bool(found["State"]["Status"] == "created")  # made by another call meanwhile
            raise _not_started(spec.id, error) from error
        if spec.volumes:
            self._volumes.hand_over(spec.id)
        return True

    def _run(self, instance: str) -> None:
        def start() -> None:
            with self._engine.reached():
                self._engine.api.start(instance)

        self._started(instance, start)

    def _started(self, instance: str, start: Callable[[], None]) -> None:
        import docker.errors

        try:
            start()
        except docker.errors.APIError as error:
            raise _not_started(instance, error) from error

    # --- ending

    def stop(self, instance: str, *, grace: float) -> None:
        import docker.errors

        found = self._find(instance)
        if found is None or found["State"]["Status"] in ("created", "exited", "dead"):
            return
        try:
            with self._engine.reached():
                self._engine.api.stop(instance, timeout=ceil(grace))
        except docker.errors.NotFound:
            pass

    def remove(self, instance: str) -> None:
        found = self._find(instance)
        if found:
            self._end(found["Id"], found["Config"].get("StopTimeout") or 10, running=found["State"]["Running"])

    def destroy(self, app: str) -> None:
        self._end_all(app=app)
        self._volumes.remove_all(app)

    def shutdown(self) -> None:
        self._end_all()
        self.network.remove()

    def _end_all(self, **labels: str) -> None:
        found = self._containers(**labels)
        with ThreadPoolExecutor(max_workers=16, thread_name_prefix="docker-end") as pool:
            ended = [pool.submit(self._end, item["Id"], 10, running=item["State"] == "running") for item in found]
        for one in ended:
            one.result()

    def _end(self, container: str, grace: int, *, running: bool) -> None:
        """Stops and removes it, and waits until it is gone."""
        import docker.errors

        client = self._engine.api
        self._health.forget(container)
        with self._engine.reached():
            try:
                if running:
                    client.stop(container, timeout=grace)
                self._followers.wait(container, LAST_WORDS)
                client.remove_container(container, force=True, v=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
            self._until_gone(container)

    def _until_gone(self, container: str) -> None:
        """Another call may be removing it; the engine says 409 and goes on."""
        import docker.errors

        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self._engine.api.inspect_container(container)
            except docker.errors.NotFound:
                return
            time.sleep(0.05)
        raise Conflict(f"the engine does not remove {container[:12]}", hint="see the engine's log")

    # --- watching

    def status(self, instance: str) -> InstanceStatus | None:
        found = self._find(instance)
        return self._status(found, thorough=True) if found else None

    def listening(self, instance: str) -> tuple[Endpoint, ...] | None:
        found = self._find(instance)
        if found is None or found["State"]["Status"] != "running":
            return ()
        ports = listening(self._pid(found))
        ports = self._ask_inside(found["Id"]) if ports is None else ports
        return _outer(ports, containers.status(found), found)

    def list(self) -> tuple[InstanceStatus, ...]:
        instances = (item for item in self._containers() if "mini.instance" in (item.get("Labels") or {}))
        found = (self._inspect(item["Id"]) for item in instances)
        return tuple(self._status(item, thorough=False) for item in found if item)

    def wait(self, instance: str, timeout: float) -> InstanceStatus | None:
        deadline = time.monotonic() + timeout
        pause = 0.02
        while True:
            found = self._find(instance)
            if found is None:
                return None
            if found["State"]["Status"] in ("exited", "dead"):
                return self._status(found, thorough=False)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            time.sleep(min(pause, remaining))
            pause = min(pause * 1.5, 0.25)

    def logs(self, instance: str, *, since: float = 0.0, follow: bool = False) -> Iterator[LogLine]:
        found = self._find(instance)
        if found is None:
            return
        known = containers.status(found)
        logs = Logs(self._engine, lambda: self._plain(found["Id"]), found["Id"], tty=bool(found["Config"].get("Tty")))
        for line in self._followed(found["Id"], logs, since) if follow else logs.past(since):
            yield LogLine(
                at=line.at,
                app=known.app,
                source="platform" if line.lost else "app",
                text=line.text,
                process=f"{known.process}.{known.index}",
                instance=instance,
                release=known.release,
                stream=line.stream,
            )

    def _followed(self, container: str, logs: Logs, since: float) -> Iterator[Written]:
        with self._followers.one(container) as caught_up:
            yield from logs.follow(since, caught_up)

    def _required(self, instance: str) -> InstanceStatus:
        status = self._plain(instance)
        if status is None:
            raise StartError(f"{instance} was removed while it started", hint="deploy again", code="gone")
        return status

    def _plain(self, container: str) -> InstanceStatus | None:
        found = self._inspect(container)
        return containers.status(found) if found else None

    def _status(self, found: Mapping[str, Any], *, thorough: bool) -> InstanceStatus:
        status = containers.status(found)
        if status.state != "running":
            return status
        memory, cpu = self._usage.of(self._pid(found))
        status = replace(status, memory=memory, cpu=cpu)
        return self._checked(status, found) if thorough and status.health == "starting" else status

    def _pid(self, found: Mapping[str, Any]) -> int:
        """Of its first process on this machine; 0 for an engine elsewhere, which has other processes."""
        return int(found["State"].get("Pid") or 0) if self._engine.is_here else 0

    def _checked(self, status: InstanceStatus, found: Mapping[str, Any]) -> InstanceStatus:
        well, said = self._health.look(found["Id"], containers.health_check(found))
        return replace(status, health="healthy" if well else "starting", health_detail=said)

    def _ask_inside(self, container: str) -> tuple[Endpoint, ...] | None:
        """Open ports, by a command in the container; None where the image has no `cat`."""
        _, text = self._output(container, ["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        return parse([text]) if "local_address" in text else None

    def _output(self, container: str, command: Sequence[str]) -> tuple[int | None, str]:
        """Exit code and output of a command in the container; no code where it cannot be run."""
        import docker.errors

        client = self._engine.api
        try:
            with self._engine.reached():
                made = client.exec_create(container, list(command))
                text = client.exec_start(made["Id"]).decode("utf-8", "replace")
                return client.exec_inspect(made["Id"])["ExitCode"], text
        except docker.errors.APIError as error:
            return None, str(error.explanation or error)

    # --- what there is

    def _containers(self, **labels: str) -> Iterable[Mapping[str, Any]]:
        with self._engine.reached():
            found: list[Mapping[str, Any]] = self._engine.api.containers(
                all=True, filters=self._engine.own(self._platform, **labels)
            )
            return found

    def _find(self, instance: str) -> dict[str, Any] | None:
        """The instance's container. What has the name and is not this platform's raises Conflict."""
        found = self._inspect(instance)
        if found is None or found["Name"] != f"/{instance}":
            return None
        if (found["Config"].get("Labels") or {}).get("mini.platform") != self._platform:
            raise Conflict(
                f"a container named {instance} exists and is not this platform's", hint=f"docker rm {instance}"
            )
        return found

    def _find_soon(self, instance: str) -> dict[str, Any] | None:
        """The engine reserves a name before the container can be found by it."""
        deadline = time.monotonic() + 2
        while (found := self._find(instance)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _inspect(self, container: str) -> dict[str, Any] | None:
        import docker.errors

        try:
            with self._engine.reached():
                found: dict[str, Any] = self._engine.api.inspect_container(container)
                return found
        except docker.errors.NotFound:
            return None

    # --- volumes

    def remove_volume(self, app: str, name: str) -> None:
        self._volumes.remove(app, name)

    def volume_path(self, app: str, name: str) -> Path | None:
        return self._volumes.path(app, name)

    def export_volume(self, app: str, name: str) -> Iterator[bytes]:
        return self._volumes.export(app, name)

    def import_volume(self, app: str, name: str, data: Iterator[bytes]) -> None:
        self._volumes.import_(app, name, data)


def _within(address: str, subnet: Any) -> bool:
    import ipaddress

    return ipaddress.ip_address(address) in subnet


def _outer(
    ports: tuple[Endpoint, ...] | None, status: InstanceStatus, found: Mapping[str, Any]
) -> tuple[Endpoint, ...] | None:
    """Ports as they are seen from outside: a published one has another number there."""
    inner = int((found["Config"].get("Labels") or {}).get("mini.port") or 0)
    if not ports or not status.endpoint or inner == status.endpoint.port:
        return ports
    outer = status.endpoint.port
    return tuple(replace(item, port=outer) if item.port == inner else item for item in ports)


def _not_started(instance: str, error: Any) -> StartError:
    text = " ".join(str(error.explanation or error).split())
    lowered = text.lower()
    if "no such image" in lowered:
        return StartError(f"the image of {instance} is gone", hint="deploy again", code="image-gone")
    if "address already in use" in lowered or "port is already allocated" in lowered:
        return StartError(f"the address is in use: {text}", hint="mini restart takes another", code="address-in-use")
    if "no command specified" in lowered:
        return StartError(
            "its image names no command: the Dockerfile has neither CMD nor ENTRYPOINT",
            hint="Add a CMD, or a Procfile: web: COMMAND",
            code="no-command",
        )
    if cores := re.search(r"there are only (\d+) CPUs available", text):
        more = f"the machine has {cores[1]} CPU cores, and more were asked for"
        return StartError(more, hint=f"mini scale --cpu {cores[1]}", code="too-much-cpu")
    return StartError(f"the engine did not start {instance}: {text}", hint="see the engine's log")
