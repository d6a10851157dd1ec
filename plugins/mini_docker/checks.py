"""What `mini doctor` asks of Docker. Each check says what it saw, and the command that mends it."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mini_core.errors import MiniError, Unavailable
from mini_core.types import Check, Toolchain
from mini_docker.cache import BuildCache
from mini_docker.engine import Engine
from mini_docker.images import BARE, FAMILIES, candidates
from mini_docker.network import Network

LOW = 0.10
"""Share of the disk that should be free; and at least `LEAST` bytes."""
LEAST = 5e9


class Checks:
    """images: `[images]` of server.toml. network, cache, platform (its id), data (its folder): the platform's."""

    def __init__(
        self,
        engine: Engine,
        images: Mapping[str, str],
        network: Network | None = None,
        cache: BuildCache | None = None,
        platform: str = "",
        data: Path | None = None,
    ) -> None:
        self._engine, self._images, self._network_, self._cache_ = engine, images, network, cache
        self._platform, self._data = platform, data

    def __call__(self) -> Sequence[Check]:
        try:
            with self._engine.reached():
                facts = self._engine.api.info()
        except Unavailable as error:
            wanted = error.code != "no-docker"  # without any Docker, local processes are what is used
            state: Literal["error", "warning"] = "error" if wanted else "warning"
            return [Check(name="docker", state=state, detail=error.message, hint=error.hint)]
        checks: Sequence[Callable[[Mapping[str, object]], Check]] = (
            self._version,
            self._network,
            self._disk,
            self._cache,
            self._limits,
            self._strays,
            self._bases,
        )
        return [self._run(check, facts) for check in checks]

    @staticmethod
    def _run(check: Callable[[Mapping[str, object]], Check], facts: Mapping[str, object]) -> Check:
        try:
            return check(facts)
        except MiniError as error:
            return Check(name="docker", state="error", detail=error.message, hint=error.hint)

    def _version(self, facts: Mapping[str, object]) -> Check:
        builder = "BuildKit" if self._engine.has_buildkit() else "classic builder: no caches, no build secrets"
        way = "by address" if self._engine.reachable_addresses else "by ports on 127.0.0.1"
        api = self._engine.api.api_version
        detail = f"engine {facts.get('ServerVersion')}, API {api}, {builder}, instances are reached {way}"
        return Check(name="docker", state="ok", detail=detail)

    def _network(self, facts: Mapping[str, object]) -> Check:  # noqa: ARG002
        problem = self._network_.problem() if self._network_ else ""
        if problem:
            return Check(name="docker network", state="error", detail=problem, hint="restart the engine, then mini up")
        name = self._network_.name if self._network_ else "the platform's network"
        return Check(name="docker network", state="ok", detail=f"{name}: instances are reached, and not each other")

    def _disk(self, facts: Mapping[str, object]) -> Check:
        root = Path(str(facts.get("DockerRootDir") or ""))
        try:
            total, _, free = shutil.disk_usage(root)
        except OSError:
            return Check(name="docker disk", state="skipped", detail=f"{root} is not on this machine")
        detail = f"{free / 1e9:.0f} of {total / 1e9:.0f} GB free at {root}"
        if free < LEAST or free < total * LOW:
            return Check(
                name="docker disk", state="warning", detail=detail, hint="docker builder prune; docker image prune"
            )
        return Check(name="docker disk", state="ok", detail=detail)

    def _cache(self, facts: Mapping[str, object]) -> Check:  # noqa: ARG002
        name = "docker build cache"
        if self._cache_ is None or not self._engine.has_buildkit():
            return Check(name=name, state="skipped", detail="the classic builder has none")
        usage, limit = self._cache_.usage(), self._cache_.limits.size
        detail = f"{usage.ours / 1e9:.1f} of {limit / 1e9:.0f} GB from this platform's builds"
        if usage.others > max(LEAST, limit):
            others = f"{usage.others / 1e9:.1f} GB from others, which mini leaves alone"
            hint = "docker builder prune --filter until=168h"
            return Check(name=name, state="warning", detail=f"{detail}, {others}", hint=hint)
        return Check(name=name, state="ok", detail=detail)

    def _limits(self, facts: Mapping[str, object]) -> Check:
        named = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "CPU"}
        missing = [name for key, name in named.items() if facts.get(key) is False]
        detail = f"control groups version {facts.get('CgroupVersion') or '1'}"
        if missing:
            hint = "enable the kernel's controllers (cgroup_enable=memory), or move to control groups version 2"
            return Check(name="docker limits", state="warning", detail=f"no limits of {', '.join(missing)}", hint=hint)
        return Check(name="docker limits", state="ok", detail=f"memory, processes, CPU ({detail})")

    def _strays(self, facts: Mapping[str, object]) -> Check:  # noqa: ARG002
        """Instances of platforms of this machine whose folder was removed, or is another's now: nobody stops them."""
        with self._engine.reached():
            found = self._engine.api.containers(all=True, filters={"label": ["mini.home", "mini.platform"]})
        homes = {item["Labels"]["mini.platform"]: item["Labels"]["mini.home"] for item in found}
        gone = {
            platform: home for platform, home in homes.items() if platform != self._platform and self._is_gone(home)
        }
        if not gone:
            return Check(name="docker strays", state="ok", detail="every instance has its platform")
        count = sum(item["Labels"]["mini.platform"] in gone for item in found)
        folders = ", ".join(sorted({home.partition(":")[2] for home in gone.values()}))
        hint = " && ".join(
            f"docker rm -f $(docker ps -aq --filter label=mini.platform={name}) && docker network rm mini-{name}"
            for name in sorted(gone)
        )
        detail = f"{count} container{'' if count == 1 else 's'} of a platform that is gone: it was in {folders}"
        return Check(name="docker strays", state="warning", detail=detail, hint=hint)

    def _is_gone(self, home: str) -> bool:
        """home: "HOST:FOLDER", as instances are labelled."""
        host, _, folder = home.partition(":")
        with contextlib.suppress(OSError):  # not ours to look into
            return host == socket.gethostname() and (folder == str(self._data) or not Path(folder).exists())
        return False

    def _bases(self, facts: Mapping[str, object]) -> Check:  # noqa: ARG002
        with self._engine.reached():
            local = {tag for image in self._engine.api.images() for tag in image.get("RepoTags") or ()}
        wanted = [candidates(Toolchain(name=name), self._images)[0].run for name in FAMILIES]
        missing = [name for name in dict.fromkeys((*wanted, BARE)) if name not in local]
        if missing:
            hint = " && ".join(f"docker pull {name}" for name in missing)
            detail = f"not here yet: {', '.join(missing)} (pulled when first needed)"
            return Check(name="docker base images", state="warning", detail=detail, hint=hint)
        return Check(name="docker base images", state="ok", detail=", ".join(dict.fromkeys((*wanted, BARE))))
