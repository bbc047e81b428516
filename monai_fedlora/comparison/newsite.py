"""A site that joins after the federation has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.engines.utils import IterationEvents

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import load_shared
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.scope import Role
from monai_fedlora.site_report import round_report


class NewSite(Site):
    """A site that receives a finished federation's shared tensors, and trains only its private part.

    The private part is initialised as that of a member in round 0. It is trained for as many epochs as a member's was,
    round by round, with the same learning rates, phases and penalties; shared parameters, a shared head among them, do
    not change. Where members train their whole model further after the last round, this site then does as well.
    Arguments are those of :class:`Site`, with a plan for this site alone.

    Attributes:
        scores: what the model that was evaluated last says of every test case.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, policy=lambda: NOTHING_LEAVES)
        self._trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._keep_shared)
        self._keeps_shared = True
        self.scores: list[dict[str, Any]] = []

    def _check_steps(self) -> None:
        """Do not check: this site can be evaluated without training, see :attr:`can_train`."""

    @property
    def can_train(self) -> bool:
        """Whether it has enough cases for a training step in every phase of a round."""
        try:
            super()._check_steps()
        except ConfigError:
            return False
        return True

    @property
    def can_be_personalised(self) -> bool:
        """Whether anything of the model trains here: private parameters, or all of it after the last round."""
        return bool(self.scope.keys(Role.PRIVATE)) or self.plan.fine_tune_epochs > 0

    def receive(self, path: Path) -> dict[str, np.ndarray]:
        """Read the federation's last shared tensors.

        Raises:
            WeightsError: they are not those of this site's method.
        """
        return load_shared(path, manifest=self.scope.manifest)[0]

    def at_once(self, shared: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
        """Test metrics of the shared model without training; None where the shared parameters alone are not a model."""
        self._claim(0, shared, None)
        self._open(0, shared, None)
        context = self.method.shared_only(self.network)
        if context is None:
            return None
        with context:
            return self._test_metrics()

    def personalised(self, shared: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Train the personal model on the site's training cases; test metrics of it."""
        self._claim(0, shared, None)
        self._open(0, shared, None)
        for _ in range(self.plan.rounds if self.scope.keys(Role.PRIVATE) else 0):
            self._trainer.run_epochs(self.plan.local_epochs)
        if self.plan.fine_tune_epochs:
            self._keeps_shared = False
            self._fine_tune(self.plan.fine_tune_epochs)
            self._keeps_shared = True
        return self._test_metrics()

    def _test_metrics(self) -> dict[str, Any]:
        """Metrics of the test split, rounded like those of members."""
        metrics, _, self.scores = self._evaluation.of_network("test")
        rounded: dict[str, Any] = round_report({"test": {"new": metrics}})["test"]["new"]
        return rounded

    def _keep_shared(self, engine: Any) -> None:
        """Drop the gradients of shared parameters, so that the optimiser does not change them."""
        if not self._keeps_shared:
            return
        shared = set(self.scope.keys(Role.SHARED))
        for name, parameter in self.network.named_parameters():
            if name in shared:
                parameter.grad = None
