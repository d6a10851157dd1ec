"""An InstanceSpec as the engine's JSON, and the engine's JSON as an InstanceStatus. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from mini_core.types import Endpoint, InstanceSpec, InstanceState, InstanceStatus
from mini_docker.healthchecks import last_line
from mini_docker.network import PORT

MEMORY = 512 * 1024 * 1024
"""Bytes an instance gets where nothing is said."""

PIDS = 1024

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""What images need that start as root, prepare their folders and then become another user. No raw sockets, no
device nodes, no changing of root folders."""

POLICY = {"Name": "unless-stopped"}
"""Of containers that were healthy once."""

LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}

_COMPOUND = re.compile(r"[;&|\n(){}]")
_PROGRAM = re.compile(r"\s*([\w./+-]+)(?=\s|$)")
_WORDS = """. cd command eval exit export hash jobs kill read readonly set source time times trap type ulimit umask
    unset wait"""
_BUILT_IN = frozenset(_WORDS.split())
"""What a shell does by itself: no program has these names, or, as with `kill`, not every image has it."""

_STATES: Mapping[str, InstanceState] = {
    "created": "starting",
    "restarting": "starting",
    "running": "running",
    "paused": "paused",
    "exited": "exited",
    "dead": "exited",
    "removing": "gone",
}


def config(
    spec: InstanceSpec,
    *,
    platform: str,
    network: str,
    published: bool,
    memory: int = MEMORY,
    pids: int = PIDS,
) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    command, extra = _graceful(spec.command or spec.image.command)
    inner = inner_port(spec, published=published)
    env = {**extra, **{name: text.reveal() for name, text in spec.env.items()}}
    if env.get("HOST", "").startswith(("127.", "localhost")):
        env["HOST"] = "0.0.0.0"  # its own loopback is not what the router can reach
    if spec.endpoint:
        env["PORT"] = str(inner)
    made: dict[str, Any] = {
        "Image": spec.image.ref,
        "Env": [f"{name}={text}" for name, text in env.items()],
        "Labels": _labels(spec, platform, inner),
        "StopTimeout": math.ceil(spec.grace),
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin,
        "AttachStdin": spec.stdin,
        "HostConfig": _host(spec, platform, network, memory, pids),
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }
    if spec.command:
        made["Cmd"] = list(command)
    elif command != spec.image.command:
        made["Entrypoint"] = list(command)  # its own, written as a line of shell
    if not spec.endpoint or spec.plan.health.path:
        made["Healthcheck"] = {"Test": ["NONE"]}  # the image's own is for web, and a path is preferred to it
    if spec.endpoint and published:
        made["ExposedPorts"] = {f"{inner}/tcp": {}}
        made["HostConfig"]["PortBindings"] = {f"{inner}/tcp": [_published(spec.endpoint)]}
    elif spec.endpoint:
        made["NetworkingConfig"]["EndpointsConfig"][network] = {"IPAMConfig": {"IPv4Address": spec.endpoint.host}}
    return made


def inner_port(spec: InstanceSpec, *, published: bool) -> int:
    """The port inside. By address it is the endpoint's. A published port must be known beforehand: where the app is
    known to have one of its own, PORT says that too."""
    if not spec.endpoint or not published:
        return spec.endpoint.port if spec.endpoint else 0
    ports = spec.image.ports
    return spec.plan.port or (ports[0] if len(ports) == 1 else PORT)


def volume_name(platform: str, app: str, name: str) -> str:
    return f"mini-{platform}-{app}-{name}"


def _published(endpoint: Endpoint) -> dict[str, str]:
    return {"HostIp": endpoint.host, "HostPort": str(endpoint.port)}


def _labels(spec: InstanceSpec, platform: str, inner: int) -> dict[str, str]:
    return {
        **spec.labels,
        "mini.platform": platform,
        "mini.app": spec.app,
        "mini.release": str(spec.release),
        "mini.process": spec.process,
        "mini.instance": spec.id,
        "mini.index": str(spec.index),
        "mini.kind": spec.kind,
        **({"mini.endpoint": str(spec.endpoint), "mini.port": str(inner)} if spec.endpoint else {}),
    }


def _host(spec: InstanceSpec, platform: str, network: str, memory: int, pids: int) -> dict[str, Any]:
    limit = spec.limits.memory or memory
    return {
        "Init": True,
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "PidsLimit": spec.limits.pids or pids,
        "Memory": limit,
        "MemorySwap": limit,  # the same: no swap on top
        "NanoCpus": int(spec.limits.cpu * 1e9) if spec.limits.cpu else 0,
        "LogConfig": LOGS,
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": network,
        "Mounts": [
            {
                "Type": "volume",
                "Source": volume_name(platform, spec.app, volume.name),
                "Target": volume.target,
                "VolumeOptions": {
                    "Labels": {"mini.platform": platform, "mini.app": spec.app, "mini.volume": volume.name}
                },
            }
            for volume in spec.volumes
        ],
    }


def _graceful(command: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """(command, environment) with which SIGTERM reaches the app behind a shell.

    A shell that is signalled dies and takes the app along: Debian's stays the parent of even a single command. So it
    gives way to a program that is all there is to run. Otherwise it waits for what it runs, and init signals the
    whole group.
    """
    if len(command) != 3 or command[0] not in ("sh", "/bin/sh") or command[1] != "-c":
        return command, {}
    shell, _, line = command
    if not _COMPOUND.search(line.strip()):
        first = _PROGRAM.match(line)
        if first and first[1] == "exec":
            return command, {}
        if first and first[1] not in _BUILT_IN:
            return (shell, "-c", f"exec {line.strip()}"), {}
    return (shell, "-c", f"trap 'exit $?' TERM INT\n{line}"), {"TINI_KILL_PROCESS_GROUP": "1"}


# --- what the engine says -----------------------------------------------------------------------------------------


def status(found: Mapping[str, Any]) -> InstanceStatus:
    """From `GET /containers/ID/json`; without what only the machine itself can tell."""
    labels, state = found["Config"].get("Labels") or {}, found["State"]
    ended, restarts = state["Status"] not in ("running", "paused", "created"), int(found.get("RestartCount") or 0)
    code = int(state["ExitCode"]) if ended else None
    return InstanceStatus(
        id=labels.get("mini.instance", ""),
        app=labels.get("mini.app", ""),
        release=_number(labels.get("mini.release")),
        process=labels.get("mini.process", ""),
        index=_number(labels.get("mini.index"), 1),
        state="gone" if _is_cut_off(found) else _STATES.get(state["Status"], "gone"),
        endpoint=_endpoint(labels.get("mini.endpoint", "")),
        started_at=timestamp(state.get("StartedAt", "")),
        ended_at=timestamp(state.get("FinishedAt", "")) if ended else None,
        exit_code=code,
        signal=code - 128 if code is not None and 128 < code <= 192 else None,
        oom=(ended or restarts > 0) and bool(state.get("OOMKilled")),
        restarts=restarts,
        supervised=found["HostConfig"]["RestartPolicy"]["Name"] == POLICY["Name"],
        health=_health(state),
        health_detail=_last_words(state),
    )


def _is_cut_off(found: Mapping[str, Any]) -> bool:
    """It runs, but not on our network any more: others may answer at its address, outside of this machine."""
    networks = (found["NetworkSettings"].get("Networks") or {}).values()
    return found["State"]["Status"] == "running" and not any(network.get("IPAddress") for network in networks)


def _health(state: Mapping[str, Any]) -> Literal["", "starting", "healthy", "unhealthy"]:
    said = (state.get("Health") or {}).get("Status", "")
    return said if state["Status"] == "running" and said in ("starting", "healthy", "unhealthy") else ""


def _last_words(state: Mapping[str, Any]) -> str:
    checks = (state.get("Health") or {}).get("Log") or [{}]
    return last_line(str(checks[-1].get("Output", "")))


def health_check(found: Mapping[str, Any]) -> list[str]:
    """The command of the container's health check."""
    kind, *words = (found["Config"].get("Healthcheck") or {}).get("Test") or ("NONE",)
    return {"CMD": words, "CMD-SHELL": ["/bin/sh", "-c", *words]}.get(kind, [])


def timestamp(text: str) -> float | None:
    """Seconds since the epoch of the engine's RFC 3339 time; None for its zero time."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not match or text.startswith("0001-"):
        return None
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).timestamp()
    return whole + float(match[2] or 0)


def _endpoint(text: str) -> Endpoint | None:
    host, _, port = text.rpartition(":")
    return Endpoint(host=host, port=int(port)) if host and port.isdecimal() else None


def _number(text: str | None, otherwise: int = 0) -> int:
    return int(text) if text and text.lstrip("-").isdecimal() else otherwise
