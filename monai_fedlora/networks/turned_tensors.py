"""What files of DINOv3's authors hold beside the weights: how tokens turn, and which biases count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor
from monai_fedlora.networks.layouts.recognise import Recognised
from monai_fedlora.networks.rotary import PERIOD_BASE
from monai_fedlora.networks.vit import ViTSettings

_PERIODS = "rope_embed.periods"
_TOLERANCE = 1e-2  # relative; above the rounding of bfloat16
_INSTEAD = "build it with its owner's library and put a method into it with monai_fedlora.attach"


def check_turned(found: Recognised, tensors: Mapping[str, CheckpointTensor], settings: ViTSettings, path: Path) -> None:
    """Refuse rotary positions of other periods than ours, and biases of keys that count.

    Turned keys make their bias part of what tells places apart, so that it can be left out only where its network
    masks it. A training without the mask has biases there, which are left out where they are zero.

    Args:
        found: the vision transformer in the file.
        tensors: of the file.
        settings: of the network that is to be filled.
        path: of the file, for messages.

    Raises:
        WeightsError: see above.
    """
    if settings.positions != "rotary":
        return
    if name := found.names.get(_PERIODS):
        _check_periods(tensors[name].read_finite(name, path).double(), settings, f"{path}: {name}")
    if settings.key_bias:
        return
    for block in range(settings.depth):
        origin = found.layout.origin(f"blocks.{block}.attn.q.bias")
        bias = found.names.get(str(origin.key))
        if bias is None or origin.parts != 3:
            continue
        values, mask = tensors[bias].read_finite(bias, path), found.names.get(f"{origin.key}_mask")
        if mask is not None:
            values = values * tensors[mask].read_finite(mask, path)
        if values.chunk(3)[1].any():
            raise WeightsError(
                f"{path}: {bias} holds biases of keys that no mask takes away, and the network has none; {_INSTEAD}"
            )


def _check_periods(periods: torch.Tensor, settings: ViTSettings, name: str) -> None:
    width = settings.dim // settings.n_heads
    own = PERIOD_BASE ** (torch.arange(0, width // 4, dtype=torch.float64) * 4 / width)
    if periods.shape != own.shape:
        heads = settings.dim / (4 * periods.numel()) if periods.numel() else 0
        raise WeightsError(f"{name} is of {heads:g} heads, not {settings.n_heads}; choose the size to fit")
    if not torch.allclose(periods, own, rtol=_TOLERANCE, atol=0):
        raise WeightsError(
            f"{name} holds other periods than those of the released DINOv3 (a base of {PERIOD_BASE:g}), so that "
            f"its tokens turn otherwise; {_INSTEAD}"
        )
