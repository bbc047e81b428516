"""Optimisers of the server: the mean change of a round as the gradient of a step, in place of the mean itself.

Reddi et al., Adaptive Federated Optimization, ICLR 2021 (arXiv 2003.00295, algorithm 2); FedAvgM is Hsu et al.,
arXiv 1909.06335. With x what the server sent, and x_k what site k made of it:

    d = sum_k n_k / n x_k - x,    m <- beta1 m + (1 - beta1) d        elementwise, without correction of the bias
    FedAdagrad:  v <- v + d^2
    FedAdam:     v <- beta2 v + (1 - beta2) d^2
    FedYogi:     v <- v - (1 - beta2) d^2 sign(v - d^2)
    x <- x + learning_rate m / (sqrt(v) + tau)

    FedAvgM:     m <- beta1 m + d,    x <- x + learning_rate m

What a site sends, and what it is allowed to send, is not touched by this; d is that of the updates after all limits.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.methods import Method
from monai_fedlora.methods.checks import check_choice
from monai_fedlora.methods.rules import Payload
from monai_fedlora.scope import Manifest

Moments = Mapping[str, np.ndarray]
"""Moments in float32, by ``m/<key>`` and ``v/<key>`` of the shared tensors' keys; empty before the first step."""


@dataclass(frozen=True, kw_only=True)
class ServerOptimizer(ABC):
    """How a server steps from what it sent towards what the sites made of it.

    Args:
        learning_rate: of the server, above 0; sites have their own.
        beta1: share of the earlier mean changes in the next step, from 0 to below 1.
    """

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]

    learning_rate: float
    beta1: float = 0.9

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_share = field.name.startswith("beta")
            if type(value) not in (int, float) or not (0 <= value < 1 if is_share else 0 < value < math.inf):
                which = "from 0 to below 1" if is_share else "above 0"
                raise ConfigError(f"server_{field.name} is {value!r}; it must be a number {which}")

    def step(
        self, mean: Payload, sent: Payload, moments: Moments
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Step from what was sent, in float64.

        Args:
            mean: of the sites' tensors, as averaging gives it.
            sent: what they started from, with the same keys.
            moments: after the step before.

        Returns:
            The new tensors, and the new moments in float32: what is kept is what the next step goes on with, so that a
            run that goes on from a file makes the same steps.
        """
        stepped: dict[str, np.ndarray] = {}
        after: dict[str, np.ndarray] = {}
        for key, value in mean.items():
            before = np.asarray(sent[key], np.float64)
            change = np.asarray(value, np.float64) - before
            held: dict[str, np.ndarray] = {}
            for slot in self.slots:
                found = moments.get(f"{slot}/{key}")
                held[slot] = self._first(slot, change) if found is None else np.asarray(found, np.float64)
            for slot, value in zip(self.slots, self._advance(change, *held.values()), strict=True):
                after[f"{slot}/{key}"] = np.asarray(value, np.float32)
                held[slot] = after[f"{slot}/{key}"].astype(np.float64)
            stepped[key] = before + self.learning_rate * self._direction(*held.values())
        return stepped, after

    def _first(self, slot: str, change: np.ndarray) -> np.ndarray:
        """A moment before the first step."""
        return np.zeros_like(change)

    @abstractmethod
    def _advance(self, change: np.ndarray, *held: np.ndarray) -> tuple[np.ndarray, ...]:
        """The moments after a round of this mean change."""

    @abstractmethod
    def _direction(self, *held: np.ndarray) -> np.ndarray:
        """What is multiplied with the learning rate."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form; :meth:`from_json` is its inverse."""
        return {"optimizer": self.name, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(value: Any) -> ServerOptimizer:
        """Parse :meth:`to_json`'s form; what is left out has its default.

        Raises:
            ConfigError: the optimiser, or one of its settings, is unknown (the nearest is suggested) or out of range.
        """
        if not isinstance(value, Mapping) or not isinstance(value.get("optimizer"), str):
            raise ConfigError(f"server_optimizer is {value!r:.80}; it must be one of {', '.join(OPTIMIZERS)}")
        settings = {str(key): entry for key, entry in value.items() if key != "optimizer"}
        check_choice("server_optimizer", value["optimizer"], list(OPTIMIZERS))
        chosen = OPTIMIZERS[value["optimizer"]]
        known = [field.name for field in dataclasses.fields(chosen)]
        if unknown := [name for name in settings if name not in known]:
            raise ConfigError(f"{chosen.name} has no server_{unknown[0]}{nearest(unknown[0], known)}")
        return chosen(**settings)


@dataclass(frozen=True, kw_only=True)
class FedAvgM(ServerOptimizer):
    """Momentum on the server. With ``beta1`` 0 and a learning rate of 1 it is averaging."""

    name = "fedavgm"
    slots = ("m",)

    learning_rate: float = 1.0

    def _advance(self, change: np.ndarray, *held: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.beta1 * held[0] + change,)

    def _direction(self, *held: np.ndarray) -> np.ndarray:
        return held[0]


@dataclass(frozen=True, kw_only=True)
class _Adaptive(ServerOptimizer):
    """Steps that are shorter where changes were large.

    Args:
        tau: is added to sqrt(v), above 0; v begins at tau^2, the least that the paper asks for.
    """

    slots = ("m", "v")

    learning_rate: float = 0.01
    tau: float = 1e-3

    def _first(self, slot: str, change: np.ndarray) -> np.ndarray:
        return np.full_like(change, self.tau**2 if slot == "v" else 0.0)

    def _advance(self, change: np.ndarray, *held: np.ndarray) -> tuple[np.ndarray, ...]:
        m, v = held
        return self.beta1 * m + (1 - self.beta1) * change, self._second(v, np.square(change))

    def _direction(self, *held: np.ndarray) -> np.ndarray:
        m, v = held
        return m / (np.sqrt(v) + self.tau)

    @abstractmethod
    def _second(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """The second moment after a round."""


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(_Adaptive):
    """The sum of all squared changes; without momentum, as in the paper."""

    name = "fedadagrad"

    beta1: float = 0.0

    def _second(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return v + square


@dataclass(frozen=True, kw_only=True)
class FedAdam(_Adaptive):
    """A running mean of squared changes; ``beta2`` is the share of the earlier ones, from 0 to below 1."""

    name = "fedadam"

    beta2: float = 0.99

    def _second(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return self.beta2 * v + (1 - self.beta2) * square


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAdam):
    """As FedAdam, with a second moment that moves by no more than a share of the squared change."""

    name = "fedyogi"

    def _second(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return v - (1 - self.beta2) * square * np.sign(v - square)


OPTIMIZERS: Mapping[str, type[ServerOptimizer]] = {
    found.name: found for found in (FedAdam, FedYogi, FedAdagrad, FedAvgM)
}
"""All optimisers of the server by name."""


def check_steps_fit(method: Method, network: Any, manifest: Manifest) -> None:
    """Refuse a method of which the server does not average what goes up, tensor by tensor.

    Args:
        method: of the plan.
        network: attached to it.
        manifest: what travels.

    Raises:
        ConfigError: nothing goes up; other tensors come down than go up; or some come down as other factors of the same
            product, so that their difference to what was sent is no direction.
    """
    up, down = set(manifest.up.entries), set(manifest.down.entries)
    if not up or method.most_sites == 1:
        why = "nothing is averaged"
    elif up != down:
        why = f"{sorted(up ^ down)[0]!r} travels one way only, so that what comes down is no mean of what went up"
    elif anew := [key for key in sorted(down) if method.starts_over(key, network)]:
        why = f"{anew[0]!r} begins anew in every round, so that its change is no direction to go on in"
    else:
        return
    raise ConfigError(
        f"{method.name} cannot have a server_optimizer: {why}; leave it out, or choose a method or averaging that goes "
        "on with the mean of its factors"
    )
