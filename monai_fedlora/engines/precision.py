"""Mixed precision on any device, and the types in which features are kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import torch

from monai_fedlora.errors import ConfigError

Precision = Literal["off", "bf16"]
Kept = Literal["float16", "bfloat16", "float32"]


def autocast(device: torch.device | str, precision: Precision) -> Callable[[], AbstractContextManager]:
    """Return a function that opens an autocast context for ``device``.

    Args:
        device: CPU or GPU.
        precision: "off" computes in float32, "bf16" runs matrix products and convolutions in bfloat16, which
            has float32's range and therefore needs no loss scaling.

    Raises:
        ConfigError: another precision.
    """
    if precision not in ("off", "bf16"):
        raise ConfigError(f"mixed_precision is {precision!r}; it is either 'off' or 'bf16'")
    return partial(torch.autocast, torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")
