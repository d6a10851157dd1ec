"""The files of an installed server: systemd's units, the environment, the command. Text only.

The router holds its sockets through systemd and is a service of its own: as the controller's child it would end
with the controller's control group. `KillMode=process` leaves local processes of apps running while the controller
restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mini_core.server.layout import USER, Layout
from mini_core.types import Value

_HARDENED = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
PrivateDevices=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"""

_HEAD = "# Written by `mini server install`, which writes it anew: put changes into a drop-in (systemctl edit).\n"


class Server(Value):
    """What an operator asks for. docker: the service joins the group that may use Docker."""

    domain: str = ""
    email: str = ""
    port: int = 80
    runtime: str = ""
    docker: bool = False


def files(server: Server, layout: Layout) -> Mapping[Path, tuple[str, int]]:
    """Path → text and mode of each file that an installation writes; server.toml is apart."""
    return {
        layout.units / "mini-router.socket": (router_socket(server.port), 0o644),
        layout.units / "mini-router.service": (router_service(layout), 0o644),
        layout.units / "mini.service": (controller_service(layout, docker=server.docker), 0o644),
        layout.environment: (environment(layout), 0o644),
        layout.prefix / "bin" / "mini": (command(layout), 0o755),
    }


def router_socket(port: int) -> str:
    return f"""{_HEAD}
[Unit]
Description=mini's router: the sockets

[Socket]
ListenStream=0.0.0.0:{port}
ListenStream=[::]:{port}
BindIPv6Only=ipv6-only
Backlog=2048
NoDelay=yes

[Install]
WantedBy=sockets.target
"""


def router_service(layout: Layout) -> str:
    state, controller = layout.run / "router", layout.run / "controller.sock"
    command = f"{layout.python} -P -m mini_proxy --state {state} --controller {controller}"
    return f"""{_HEAD}
[Unit]
Description=mini's router
Requires=mini-router.socket
After=network.target mini-router.socket

[Service]
Type=notify
User={USER}
Group={USER}
EnvironmentFile={layout.environment}
RuntimeDirectory={layout.run.name}
RuntimeDirectoryMode=0750
RuntimeDirectoryPreserve=yes
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
KillMode=process
TimeoutStopSec=60
LimitNOFILE=65536
TasksMax=infinity
UMask=0027
ReadWritePaths={layout.home}
{_HARDENED}
RestrictNamespaces=yes

[Install]
WantedBy=multi-user.target
"""


def controller_service(layout: Layout, *, docker: bool) -> str:
    groups = "SupplementaryGroups=docker\n" if docker else ""
    return f"""{_HEAD}
[Unit]
Description=mini's controller
Wants=network-online.target mini-router.service
After=network-online.target docker.service mini-router.service

[Service]
Type=notify
User={USER}
Group={USER}
{groups}EnvironmentFile={layout.environment}
RuntimeDirectory={layout.run.name}
RuntimeDirectoryMode=0750
RuntimeDirectoryPreserve=yes
ExecStart={layout.python} -P -m mini_core.server --server
Restart=always
RestartSec=1
KillMode=process
TimeoutStartSec=300
TimeoutStopSec=30
LimitNOFILE=65536
TasksMax=infinity
OOMPolicy=continue
UMask=0027
ReadWritePaths={layout.home} /tmp /var/tmp
{_HARDENED}

[Install]
WantedBy=multi-user.target
"""


def environment(layout: Layout) -> str:
    return f"""{_HEAD}MINI_HOME={layout.home}
TMPDIR={layout.home / "tmp"}
PYTHONUNBUFFERED=1
PYTHONPYCACHEPREFIX={layout.home / "cache" / "pycache"}
"""


def command(layout: Layout) -> str:
    return f"""#!/bin/sh
{_HEAD}: "${{MINI_HOME:={layout.home}}}"
export MINI_HOME
exec {layout.python} -P -m mini_core.cli.main "$@"
"""


def server_toml(server: Server) -> str:
    """The first server.toml; from then on it is the operator's."""
    import tomli_w

    settings = {
        "domain": server.domain,
        "email": server.email,
        "bind": ["0.0.0.0", "::"],
        "port": server.port,
        "runtime": server.runtime,
    }
    text = tomli_w.dumps({name: item for name, item in settings.items() if item})
    return f"# The server's settings. After a change: systemctl restart mini\n{text}"
