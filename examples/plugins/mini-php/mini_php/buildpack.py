"""Recognises PHP apps: a `composer.json`, or an `index.php` in the root or the usual public folders."""

from __future__ import annotations

import json

from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Evidence, Offer, Plan, ProcessType, Strength, Toolchain

_ROOTS = ("public", "web", "htdocs", ".")


class PhpBuildpack:
    name = "php"
    description = "PHP: composer.json, or index.php in the root, public/, web/ or htdocs/"

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        root = next((folder for folder in _ROOTS if source.has(_join(folder, "index.php"))), None)
        if root is None:
            return None
        entry = _join(root, "index.php")
        manifest = source.has("composer.json")
        plan = Plan(
            buildpack=self.name,
            toolchains=(Toolchain(name="debian"),),
            runtime="debian",
            framework=_framework(source),
            summary=(f"PHP → php -S ({root})",),
            evidence=(Evidence(file=entry, detail="the entry point"),),
            runtime_packages=("php-cli",),
            processes=(ProcessType(name="web", command=_command(root)),),
        )
        strength = Strength.PROJECT if manifest else Strength.LOOSE
        return Offer(buildpack=self.name, strength=strength, reason=f"{entry} is there", plan=plan)


def _command(root: str) -> tuple[str, ...]:
    return ("sh", "-c", f'exec php -S "${{HOST:-0.0.0.0}}:$PORT" -t {root}')


def _join(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _framework(source: Source) -> str:
    try:
        required = json.loads(source.text("composer.json") or "{}").get("require", {})
    except (ValueError, AttributeError):
        return ""
    return next((name.partition("/")[2] for name in ("slim/slim", "laravel/framework") if name in required), "")
