"""The epochs of a pre-training, on a processor or a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.decay import decay_groups
from monai_fedlora.networks.pretraining_state import PretrainingState
from monai_fedlora.out_of_memory import memory_told

_WARM_UP = 0.1  # share of the steps over which the learning rate rises (ours)
_WEIGHT_DECAY = 0.05  # of matrices
_SEEDS = 1_000_003


@torch.random.fork_rng(devices=[])
@memory_told("pre-training", "lower the batch size", "compute in bfloat16 (--mixed-precision bf16)")
def pretraining_epochs(
    batches: Callable[[int], Iterable[Sequence[Tensor]]],
    loss_of: Callable[..., Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    steps: int,
    epochs: int,
    lr: float,
    betas: tuple[float, float],
    generator: torch.Generator,
    device: torch.device,
    bf16: bool = False,
    max_grad_norm: float | None = None,
    state: PretrainingState | None = None,
    on_resume: Callable[[int], None] = lambda epochs: None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[float, ...]:
    """Train with AdamW; the learning rate rises linearly over a tenth of the steps and falls by a cosine to zero.

    A GPU is waited for once in an epoch, so that the next batch is read while it computes.

    Args:
        batches: the batches of an epoch (from 1), each a few tensors on the CPU with an item per row.
        loss_of: mean loss of these tensors.
        parameters: that train, on ``device``.
        steps: batches in an epoch.
        epochs: passes.
        lr: the highest learning rate.
        betas: of AdamW.
        generator: of what is random in ``batches``, on the CPU.
        device: where the loss is computed.
        bf16: compute matrix products and convolutions in bfloat16.
        max_grad_norm: clip the gradient to this L2 norm; None turns it off.
        state: where it is written after each epoch how far the training is, and from where it goes on; all that is
            random must then come from ``generator`` or from the number of the epoch. None keeps nothing.
        on_resume: called with the number of finished epochs where a training goes on.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The mean loss of each epoch.

    Raises:
        ConfigError: the loss became infinite, or ``state`` is that of another training.
        OutOfMemory: memory ran out.
    """
    gpu = device.type == "cuda"
    trained = list(parameters)
    optimizer = torch.optim.AdamW(decay_groups(trained, _WEIGHT_DECAY), lr=lr, betas=betas, fused=gpu or None)
    losses = state.load(trained, optimizer, generator) if state else []
    if losses:
        on_resume(len(losses))
    for epoch in range(len(losses) + 1, epochs + 1):
        torch.manual_seed(generator.initial_seed() * _SEEDS + epoch)  # for what a network drops at random
        total, count = torch.zeros((), dtype=torch.float64, device=device), 0
        for step, tensors in enumerate(batches(epoch), (epoch - 1) * steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * learning_rate_factor(step, epochs * steps)
            batch = [(tensor.pin_memory() if gpu else tensor).to(device, non_blocking=True) for tensor in tensors]
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = loss_of(*batch)
            optimizer.zero_grad()
            loss.backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(trained, max_grad_norm)
            optimizer.step()
            total += loss.detach().double() * len(batch[0])
            count += len(batch[0])
        losses.append(total.item() / count)
        if not math.isfinite(losses[-1]):
            raise ConfigError(
                f"the loss became {losses[-1]} in epoch {epoch}: the images hold NaN or infinite values, "
                f"or the learning rate {lr} is too high"
            )
        if state is not None:
            state.save(losses, trained, optimizer, generator)
        if on_epoch is not None:
            on_epoch(epoch, losses[-1])
    return tuple(losses)


def shuffled(
    batch_of: Callable[[Sequence[int]], Sequence[Tensor]], *, count: int, batch_size: int, generator: torch.Generator
) -> Callable[[int], Iterable[Sequence[Tensor]]]:
    """Batches for :func:`pretraining_epochs` of ``count`` images in another order in each epoch.

    Args:
        batch_of: the tensors of a batch, by the numbers of its images.
        count: number of images.
        batch_size: images in a step.
        generator: of the order.
    """
    return lambda epoch: (
        batch_of(numbers.tolist()) for numbers in torch.randperm(count, generator=generator).split(batch_size)
    )


def learning_rate_factor(step: int, n_steps: int) -> float:
    """From just above 0 to 1 over the warm-up, then to 0 along half a cosine."""
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
