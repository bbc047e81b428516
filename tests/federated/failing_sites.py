"""Sites whose process ends while it works, or that find no number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Events

from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.site_work import SiteWork
from monai_fedlora.scope import Role


class DiesOnce(SiteWork):
    """Is killed once, at the end of the training of round 1."""

    def build_site(self) -> Site:
        site = super().build_site()
        train: Callable[[int], None] = site._trainer.run_epochs

        def then_die(epochs: int) -> None:
            train(epochs)
            died = self._private / "died"
            if site._trainer.state.epoch == 2 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        site._trainer.run_epochs = then_die
        return site


class Diverges(SiteWork):
    """Has no number left after the first step."""

    def build_site(self) -> Site:
        site = super().build_site()

        def diverge(engine: Any) -> None:
            with torch.no_grad():
                for key in site.scope.keys(Role.PRIVATE):
                    site.network.get_parameter(key).fill_(float("nan"))

        site._trainer.add_event_handler(Events.ITERATION_STARTED, diverge)
        return site
