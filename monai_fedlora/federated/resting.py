"""Free what a site's network need not hold between two tasks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.federated.one_backbone import tensors_by_key
from monai_fedlora.scope import Role, Scope


class Resting:
    """The tensors of a network that every task overwrites first.

    Args:
        network: attached to a method.
        scope: roles of its tensors.
        optimiser: over its parameters.
    """

    def __init__(self, *, network: nn.Module, scope: Scope, optimiser: Optimizer) -> None:
        self._network = network
        self._scope = scope
        self._optimiser = optimiser
        self._inferers: set[FrozenInferer] = set()

    def uses(self, inferer: Any) -> None:
        """Learn of an engine's inferer, which may keep features on a GPU."""
        if isinstance(inferer, FrozenInferer):
            self._inferers.add(inferer)

    def rest(self) -> None:
        """Free them; until :meth:`wake` the network's outputs are meaningless."""
        self._optimiser.state.clear()
        self._optimiser.zero_grad(set_to_none=True)
        for inferer in self._inferers:
            inferer.rest()
        for tensor in self._brought():
            tensor.data = tensor.data.new_zeros(()).expand(tensor.shape)

    def wake(self) -> None:
        """Allocate them again."""
        for tensor in self._brought():
            if tensor.untyped_storage().nbytes() < tensor.nbytes:
                tensor.data = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    def _brought(self) -> list[Tensor]:
        places = tensors_by_key(self._network)
        return [places[key] for key in (*self._scope.keys(Role.PRIVATE), *self._scope.manifest.down.entries)]
