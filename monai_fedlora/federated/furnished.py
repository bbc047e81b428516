"""The bundle that trains at a site, with the plan's settings and the site's own data and network in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from monai_fedlora.data.cases import Datalist
from monai_fedlora.federated.materials import Source, built, put_into
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.plan_settings import plan_settings
from monai_fedlora.resources import bundle_configs

_NETWORK = "network_def"  # on the CPU; "network" is the same object where it trains


@dataclass(frozen=True, kw_only=True)
class Furnished:
    """A site's bundle, whose parts are built once, when they are first asked for.

    Attributes:
        site: its name in the plan.
        config: of the bundle.
        cases: of the site.
    """

    site: str
    config: ConfigParser
    cases: Datalist

    @classmethod
    def of(cls, plan: Plan, site: str, *, source: Source, output: Path) -> Furnished:
        """Read the configuration of the plan's bundle as it is installed here, and furnish it.

        Args:
            plan: the experiment.
            site: one of its sites.
            source: of the site's data and network.
            output: folder that the bundle may write into.

        Raises:
            ConfigError: the bundle lacks a setting of the plan, or the site's classes are not the plan's.
            DataError: the site's list cannot be used.
        """
        config = ConfigParser(excludes=__package__.partition(".")[0])  # all of it would be imported to look there
        config.read_config(bundle_configs(plan.bundle))
        put_into(config, plan_settings(plan, site, output=output), bundle=plan.bundle)
        return cls(site=site, config=config, cases=source.furnish(config, plan=plan, site=site))

    def part(self, name: str) -> Any:
        """An object of the bundle; the same one each time."""
        return built(self.config, name, site=self.site)

    def network(self) -> nn.Module | None:
        """The network with its weights, before it goes to where it trains; None of a bundle that names it otherwise."""
        return self.part(_NETWORK) if _NETWORK in self.config.get() else None
