"""What the shapes of a file's tensors tell of the vision transformer that they are of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from monai_fedlora.networks.checkpoint_tensors import Shape
from monai_fedlora.networks.layouts.recognise import Recognised
from monai_fedlora.networks.layouts.vit_layout import Origin
from monai_fedlora.networks.vit import CHANNELS


def sizes_in(found: Recognised, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The settings of :class:`~monai_fedlora.networks.vit.ViTSettings` that shapes tell, by name.

    Args:
        found: the vision transformer in the file.
        shapes: of the file's tensors, by their names there.
    """

    def shape(key: str) -> Shape | None:
        origin: Origin = found.layout.origin(key)
        name = found.names.get(origin.key) if origin.key else None
        return shapes[name] if name else None

    def has(key: str) -> bool:
        return shape(key) is not None

    patch, hidden = shape("embed.patch.weight") or (), shape("blocks.0.mlp.fc2.weight") or ()
    depth = next(n for n in range(len(shapes) + 1) if not has(f"blocks.{n}.norm1.weight"))
    registers = shape("embed.registers")
    said = {
        "dim": patch[0] if patch else None,
        "patch": _patch(patch, linear=found.layout.patch_linear),
        "depth": depth,
        "mlp_width": hidden[1] if len(hidden) == 2 else None,
        "gated": has("blocks.0.mlp.gate.weight"),
        "qkv_bias": has("blocks.0.attn.q.bias"),
        "positions": "learned" if has("embed.position") else "rotary",
        "patch_bias": has("embed.patch.bias"),
        "pre_norm": has("embed.norm.weight"),
        "layer_scale": has("blocks.0.ls1.gamma"),
        "class_token": has("embed.cls"),
        "registers": 0 if registers is None else (registers[-2] if len(registers) > 1 else 1),
    }
    if said["qkv_bias"]:
        said["key_bias"] = has("blocks.0.attn.k.bias")
    return {name: value for name, value in said.items() if value is not None}


def _patch(shape: Shape, *, linear: bool) -> int | None:
    """The side of a patch; a linear embedding's is of three colours or of one channel, which no number confuses."""
    if not linear:
        return shape[2] if len(shape) == 4 and shape[2] == shape[3] else None
    size = shape[-1] if shape else 0
    sides = (math.isqrt(size // channels) for channels in (1, CHANNELS))
    return next((side for side, n in zip(sides, (1, CHANNELS), strict=True) if side and side * side * n == size), None)
