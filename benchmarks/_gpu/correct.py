"""Stage 1: every method trains on the device what it trains on a processor; how often a step waits for the device."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from _gpu.place import Place, Training, trainer
from monai_fedlora.methods.base import METHODS, get_method

LARGEST = 1e-2
"""Norm of the difference over that of the trained tensors, in float32; AdamW divides by small gradients."""
LARGEST_LOSS = 1e-3


def run(place: Place) -> dict[str, Any]:
    """Two epochs of each method on both devices, from the same values."""
    names = place.choose(METHODS.names(), ("dual_lora", "pfedst"))
    rows = {name: compared(name, place) for name in names}
    failed = sorted(name for name, row in rows.items() if not row["equal"])
    return {"methods": rows, "failed": failed, "passed": not failed}


def compared(method: str, place: Place) -> dict[str, Any]:
    """How far the device's trained tensors and losses are from the processor's."""
    reads = get_method(method, {}).reads_text or method == "pfedst"
    training = Training(
        size="clip_demo" if reads else "vit_demo",
        method=method,
        settings={"backbone": "demo", "epochs": 2},
    )
    expected, losses = trained(training, place, device="cpu")
    found, device_losses = trained(training, place, device=place.device)
    waits = _waits(training, place)
    distance = sum((found[key] - value).square().sum() for key, value in expected.items()) ** 0.5
    length = sum(value.square().sum() for value in expected.values()) ** 0.5
    apart = float(distance / length) if expected else 0.0
    loss_apart = max(abs(one - other) / max(abs(one), 1e-9) for one, other in zip(losses, device_losses, strict=True))
    return {
        "tensors_apart": apart,
        "losses_apart": loss_apart,
        "waits_per_step": waits,
        "equal": apart <= LARGEST and loss_apart <= LARGEST_LOSS,
    }


def trained(training: Training, place: Place, *, device: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The trained tensors on the CPU in float64, and the loss of every epoch."""
    engine = trainer(training, place, device=device)
    losses = []
    for _ in range(2):
        engine.run_epochs(1)
        losses.append(float(engine.state.metrics["train_loss"]))
    tensors = {
        name: parameter.detach().double().cpu()
        for name, parameter in engine.network.named_parameters()
        if parameter.requires_grad
    }
    return tensors, losses


def _waits(training: Training, place: Place) -> float | None:
    """How many times a step whose features are kept waits for the device, as CUDA warns; None on a processor."""
    if not place.on_gpu:
        return None
    engine = trainer(training, place)
    engine.run_epochs(1)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.run_epochs(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught) / engine.state.epoch_length
