"""An adapted linear layer that adds all its adapters' outputs in one product."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from monai_fedlora.adapters.merged_linear import plain_adapters


class StackedLora(Linear):
    """PEFT's layer with one product from the activations A x of all active adapters to the output.

    PEFT computes W x + s_1 B_1 A_1 x + s_2 B_2 A_2 x with a product, a multiplication and an addition of the output's
    size for each adapter. Here the activations and the factors B are stacked, the scales go into B, and the product
    adds to W x in place:

        W x + [s_1 B_1, s_2 B_2] [A_1 x; A_2 x]

    Equal but for rounding. Adapters that are merged or switched off, or that are no plain LoRA, run as PEFT runs them.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map (..., d_in) to (..., d_out); (d_in,) to (d_out,)."""
        names = plain_adapters(self)
        if args or kwargs or not names:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        activations = torch.cat([self.lora_A[name](self.lora_dropout[name](x)) for name in names], dim=-1)
        activations = activations.view(-1, activations.shape[-1])
        up = torch.cat([self.scaling[name] * self.lora_B[name].weight for name in names], dim=1)
        outputs: Tensor = self.base_layer(x)
        outputs.view(len(activations), len(up)).addmm_(activations, up.to(activations.dtype).t())
        return outputs
