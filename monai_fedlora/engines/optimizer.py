"""The optimizer over a network's trainable part."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW

from monai_fedlora.networks.decay import decay_groups


def adamw(
    *,
    network: nn.Module,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    betas: Sequence[float] = (0.9, 0.95),
) -> AdamW:
    """AdamW over the parameters that require a gradient; vectors (biases, norms) do not decay.

    The defaults are ours. On GPUs a step is one fused kernel. Where nothing trains there is one group without
    parameters.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = decay_groups(trainable, weight_decay)
    used = [group for group in groups if group["params"]] or groups[:1]
    fused = all(parameter.is_cuda for parameter in trainable)
    return AdamW(used, lr=learning_rate, betas=(float(betas[0]), float(betas[1])), fused=fused or None)
