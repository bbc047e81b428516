"""How much of a GPU's memory kept features may take: one share for all of a process, less where others compute too."""

from __future__ import annotations

import os

import torch

from monai_fedlora.engines.on_device import held_on
from monai_fedlora.environment import GPU_FEATURES, GPU_PROCESSES
from monai_fedlora.errors import ConfigError

_DEFAULT_SHARE = 0.25


def room_on(device: torch.device) -> int:
    """Bytes that all kept features of this process may take on a device; nothing on a processor.

    On a GPU that is the share of the memory that this process can have, divided by the number of processes that share
    the GPU. What it can have is what is free, what PyTorch holds for it and does not use, and what its features take
    already. Processes that begin one after the other therefore take the share of what is free all together, at most.

    Raises:
        ConfigError: one of the two settings in the environment is no such number.
    """
    if device.type != "cuda":
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = torch.cuda.mem_get_info(device)[0] + unused + held_on(device)
    return int(available * features_share() / processes())


def features_share() -> float:
    """The share for features.

    Raises:
        ConfigError: it is no number from 0 to below 1.
    """
    share = _number(GPU_FEATURES, _DEFAULT_SHARE)
    if not 0 <= share < 1:
        raise ConfigError(f"{GPU_FEATURES} is {share:g}; give a share of the memory below 1, 0 for no features there")
    return share


def processes() -> int:
    """How many processes share a GPU.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    number = _number(GPU_PROCESSES, 1.0)
    if not (number >= 1 and number.is_integer()):
        raise ConfigError(f"{GPU_PROCESSES} is {number:g}; give the number of processes that compute on each GPU")
    return int(number)


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}, which is no number") from None
