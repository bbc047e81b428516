"""Learning rate as a pure function of the epoch, so that a restarted process continues it exactly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ignite.engine import Events

from monai_fedlora.errors import ConfigError

if TYPE_CHECKING:
    from ignite.engine import Engine
    from torch.optim import Optimizer


def warmup_cosine(epoch: int, *, epochs: int, warmup_epochs: int = 0, min_lr_ratio: float = 0.01) -> float:
    """Fraction of the base learning rate to use in an epoch.

    It rises linearly over the warm-up epochs, is 1 in the first epoch after them and then follows half a
    cosine towards ``min_lr_ratio``, which it keeps after the last epoch (Loshchilov and Hutter, ICLR 2017,
    eq. 5, without restarts).

    Args:
        epoch: 1 for the first epoch.
        epochs: length of the whole training.
        warmup_epochs: epochs of rise; with at least ``epochs`` of them the rate only rises.
        min_lr_ratio: in [0, 1]; 0.01 by default (ours).

    Raises:
        ConfigError: a value is out of range.
    """
    if epoch < 1 or epochs < 1:
        raise ConfigError(f"epoch {epoch} of {epochs} is not a place in a schedule; epochs count from 1")
    if warmup_epochs < 0:
        raise ConfigError(f"warmup_epochs is {warmup_epochs}; it must be at least 0")
    if not 0 <= min_lr_ratio <= 1:
        raise ConfigError(f"min_lr_ratio is {min_lr_ratio}; it must lie in [0, 1]")
    if epoch <= warmup_epochs:
        return epoch / (warmup_epochs + 1)
    progress = (epoch - 1 - warmup_epochs) / (epochs - warmup_epochs) if epoch <= epochs else 1.0
    return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


class WarmupCosine:
    """Handler that sets every parameter group's learning rate when an epoch starts.

    The rate in use is also put in ``engine.state.learning_rate``.

    Args:
        optimizer: the optimizer to steer.
        learning_rate: base rate, above 0.
        epochs, warmup_epochs, min_lr_ratio: see :func:`warmup_cosine`.
        epochs_after: epochs of a training that follows, in which the rate begins at its full value once more and falls
            as before, without a warm-up.
    """

    def __init__(
        self,
        *,
        optimizer: Optimizer,
        learning_rate: float,
        epochs: int,
        warmup_epochs: int = 0,
        min_lr_ratio: float = 0.01,
        epochs_after: int = 0,
    ) -> None:
        if not learning_rate > 0:
            raise ConfigError(f"learning_rate is {learning_rate}; it must be positive")
        warmup_cosine(1, epochs=epochs, warmup_epochs=warmup_epochs, min_lr_ratio=min_lr_ratio)
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.min_lr_ratio = min_lr_ratio
        self.epochs_after = epochs_after

    def attach(self, engine: Engine) -> None:
        """Steer the optimizer from ``engine``'s epochs."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the rate of the epoch that starts."""
        epoch, epochs, warmup = engine.state.epoch, self.epochs, self.warmup_epochs
        if self.epochs_after and epoch > epochs:
            epoch, epochs, warmup = epoch - epochs, self.epochs_after, 0
        rate = self.learning_rate * warmup_cosine(
            epoch, epochs=epochs, warmup_epochs=warmup, min_lr_ratio=self.min_lr_ratio
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        setattr(engine.state, "learning_rate", rate)  # noqa: B010  (ignite's state takes any attribute)
