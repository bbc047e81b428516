"""A site that notes when it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _frameworks.events import EPOCHS, TASK, noted

if TYPE_CHECKING:
    from monai_fedlora.federated.federated_site import Site


def timed(site: Site) -> Site:
    """Let a site note its tasks and their epochs."""
    trainer, train_round = site._trainer, site.train_round
    run_epochs: Callable[[int], None] = trainer.run_epochs
    number = 0

    def epochs(count: int) -> None:
        with noted(EPOCHS, site=site.name, round_number=number):
            run_epochs(count)

    def task(round_number: int, shared: Any, **more: Any) -> Any:
        nonlocal number
        number = round_number
        with noted(TASK, site=site.name, round_number=round_number):
            return train_round(round_number, shared, **more)

    trainer.run_epochs, site.train_round = epochs, task  # type: ignore[method-assign]
    return site
