"""The precision of products and convolutions on any device, and the types in which features are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.frozen_weights import frozen_in_bfloat16

Precision = Literal["off", "tf32", "bf16"]
Kept = Literal["float16", "bfloat16", "float32"]


def autocast(device: torch.device | str, precision: Precision) -> Callable[[], AbstractContextManager]:
    """Return a function that opens an autocast context for ``device``.

    Args:
        device: CPU or GPU.
        precision: "off" computes in float32, and so does "tf32", whose products and convolutions read 10 bits of a
            number's fraction on an NVIDIA GPU from Ampere on (:func:`computing`) and all elsewhere; "bf16" runs both in
            bfloat16, which has float32's range and therefore needs no loss scaling.

    Raises:
        ConfigError: another precision.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"mixed_precision is {precision!r}; choose from {', '.join(get_args(Precision))}")
    return partial(torch.autocast, torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def computing(network: nn.Module, precision: Precision) -> Iterator[None]:
    """Let a network's run compute in a precision, which :func:`autocast` opens inside it.

    TF32 is used by matrix products and convolutions alike, or by neither; PyTorch itself leaves it on for convolutions
    alone. The settings are the process's and are put back at the end. With "bf16", frozen weights are held in bfloat16.
    """
    backends: Any = torch.backends
    products, convolutions = backends.cuda.matmul, backends.cudnn
    operators = (products, convolutions.conv, convolutions.rnn)
    before = [operator.fp32_precision for operator in operators]
    # PyTorch's compiler reads the older flags, and refuses to where only the newer ones were set.
    products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
    try:
        with frozen_in_bfloat16(network, enabled=precision == "bf16"):
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = (setting == "tf32" for setting in before[:2])
        for operator, setting in zip(operators, before, strict=True):
            if operator.fp32_precision != setting:
                operator.fp32_precision = setting


def float32_settings(device: torch.device) -> tuple[str, str]:
    """How a device computes matrix products and convolutions of float32 numbers at this moment."""
    backends: Any = torch.backends
    if device.type == "cuda":
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    return backends.mkldnn.matmul.fp32_precision, backends.mkldnn.conv.fp32_precision
