"""The state of an optimiser as named tensors, which a file can hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from monai_fedlora.errors import WeightsError


def optimiser_tensors(optimiser: Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """What an optimiser has stored, by ``<parameter name>/<slot>``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    return {
        f"{names[parameter]}/{slot}": torch.as_tensor(value)
        for parameter, slots in optimiser.state.items()
        for slot, value in slots.items()
    }


def load_optimiser(optimiser: Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser what it had stored, each tensor where the optimiser keeps it.

    Raises:
        WeightsError: a parameter is unknown, or its state is of another shape or lacks what others have.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    optimised = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    numbers = {names[parameter]: number for number, parameter in enumerate(optimised)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in numbers:
            raise WeightsError(f"the stored optimiser state names {name!r}, which this network does not have")
        if value.dim() and value.shape != optimised[numbers[name]].shape:
            raise WeightsError(f"the stored optimiser state {key!r} is {tuple(value.shape)}, unlike its parameter")
        state.setdefault(numbers[name], {})[slot] = value
    slots = {slot for found in state.values() for slot in found}
    for number, found in state.items():
        if missing := sorted(slots - found.keys()):
            name = names[optimised[number]]
            raise WeightsError(f"the stored optimiser state of {name!r} lacks {', '.join(missing)}")
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
