"""The epochs of a pre-training, on a processor or a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.decay import decay_groups
from monai_fedlora.out_of_memory import memory_told

_WARM_UP = 0.1  # share of the steps over which the learning rate rises (ours)
_WEIGHT_DECAY = 0.05  # of matrices


@memory_told("pre-training", "lower the batch size", "compute in bfloat16 (--mixed-precision bf16)")
def pretraining_epochs(
    batch_of: Callable[[Sequence[int]], Iterable[Tensor]],
    loss_of: Callable[..., Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    count: int,
    epochs: int,
    batch_size: int,
    lr: float,
    betas: tuple[float, float],
    generator: torch.Generator,
    device: torch.device,
    bf16: bool = False,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[float, ...]:
    """Train with AdamW; the learning rate rises linearly over a tenth of the steps and falls by a cosine to zero.

    A GPU is waited for once in an epoch, so that the next batch is read while it computes.

    Args:
        batch_of: the tensors of a batch, by the numbers of its images, on the CPU.
        loss_of: mean loss of these tensors.
        parameters: that train, on ``device``.
        count: number of images.
        epochs: passes over the images.
        batch_size: images in a step.
        lr: the highest learning rate.
        betas: of AdamW.
        generator: of the order of the images, on the CPU.
        device: where the loss is computed.
        bf16: compute matrix products and convolutions in bfloat16.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The mean loss of each epoch.

    Raises:
        ConfigError: the loss became infinite.
        OutOfMemory: memory ran out.
    """
    gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(decay_groups(parameters, _WEIGHT_DECAY), lr=lr, betas=betas, fused=gpu or None)
    n_steps = epochs * math.ceil(count / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, n_steps))
    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), dtype=torch.float64, device=device)
        for indices in torch.randperm(count, generator=generator).split(batch_size):
            tensors = batch_of(indices.tolist())
            batch = [(tensor.pin_memory() if gpu else tensor).to(device, non_blocking=True) for tensor in tensors]
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = loss_of(*batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach().double() * len(indices)
        losses.append(total.item() / count)
        if not math.isfinite(losses[-1]):
            raise ConfigError(
                f"the loss became {losses[-1]} in epoch {epoch}: the images hold NaN or infinite values, "
                f"or the learning rate {lr} is too high"
            )
        if on_epoch is not None:
            on_epoch(epoch, losses[-1])
    return tuple(losses)


def learning_rate_factor(step: int, n_steps: int) -> float:
    """From just above 0 to 1 over the warm-up, then to 0 along half a cosine."""
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
