"""What planning comes to: the plan, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping

from mini_core import api
from mini_core.manifest import CronJob, Manifest
from mini_core.types import Offer, Plan, Value


class Planned(Value):
    """A plan, and how it came about.

    offers: of all buildpacks, the chosen one first. alternatives: what else could be deployed, and how to choose
    it. warnings: for the user, the plan's own included. formation: instances per process type, `release` left out.
    """

    plan: Plan
    manifest: Manifest = Manifest()
    offers: tuple[Offer, ...] = ()
    alternatives: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    formation: Mapping[str, int] = {}

    @property
    def cron(self) -> tuple[CronJob, ...]:
        return self.manifest.cron

    def info(self, files: Mapping[str, str] | None = None) -> api.PlanInfo:
        """The same for the API. files: generated ones, such as a Dockerfile."""
        offers = tuple(
            api.OfferInfo(buildpack=offer.buildpack, strength=offer.strength.name.lower(), reason=offer.reason)
            for offer in self.offers
        )
        return api.PlanInfo(
            plan=self.plan,
            offers=offers,
            alternatives=self.alternatives,
            files=files or {},
            warnings=self.warnings,
        )
