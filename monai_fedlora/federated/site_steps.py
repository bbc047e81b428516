"""How far a site's own cases take the training of a method's parts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from monai.bundle import ConfigParser
from torch import nn

from monai_fedlora.engines.method import check_phases, steps_of_round, trained_after
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class SiteSteps:
    """Steps of a method at a site.

    Attributes:
        site: its name.
        plan: the experiment.
        method: attached to the site's network.
        cases: that train, at least 1.
        config: of the bundle, with the plan's settings.
    """

    site: str
    plan: Plan
    method: Method
    cases: int
    config: ConfigParser

    def check(self, network: nn.Module) -> None:
        """Refuse a plan in which this site never trains a part of the method, whose initial values are never scored.

        Raises:
            ConfigError: its cases make fewer steps in all rounds, or after the last one, than the method has phases.
        """
        try:
            check_phases(
                self.method.phases(network),
                cases=self.cases,
                batch_size=self._batch,
                accumulation_steps=self._accumulation,
                epochs=self.plan.local_epochs,
                rounds=self.plan.start_round + self.plan.rounds,
                fine_tune_epochs=self.plan.fine_tune_epochs,
            )
        except ConfigError as error:
            raise ConfigError(
                f"{self.site} has {self.cases} training cases, in batches of {self._batch}: {error}"
            ) from None

    def trained(self, network: nn.Module, keys: Collection[str], *, epoch: int) -> bool:
        """Whether so many epochs leave none of these parameters, of which there are some, at its initial value."""
        epochs = self.plan.local_epochs
        steps = steps_of_round(
            cases=self.cases, batch_size=self._batch, accumulation_steps=self._accumulation, epochs=epochs
        )
        return trained_after(epoch // epochs, self.method.phases(network), keys=keys, steps=steps)

    @property
    def _batch(self) -> int:
        return int(self.config.get("batch_size"))

    @property
    def _accumulation(self) -> int:
        return int(self.config.get("accumulation_steps", 1))
