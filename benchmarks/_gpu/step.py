"""Stage 2: a training step behind kept features, by network, size of the batch and precision, beside its roofline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from _gpu.place import CINE, IMAGE, Place, Training, trainer
from _gpu.timing import Operations, ceilings, kernels, milliseconds
from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.engines.modes import set_training_mode
from monai_fedlora.engines.precision import Precision, computing

PRECISIONS: dict[str, tuple[Precision, Precision]] = {
    "fp32": ("off", "off"),
    "tf32": ("tf32", "tf32"),
    "bf16": ("bf16", "off"),
    "bf16 with bf16 weights": ("bf16", "bf16"),
}
"""The bundle's `mixed_precision`, and the precision of :func:`computing`, which alone holds weights in bfloat16."""


def run(place: Place) -> dict[str, Any]:
    """Every network, batch and precision; what finds no memory says so."""
    found = ceilings(place)
    networks = place.choose({"base": CINE, "vit_base_16": IMAGE}, {"small": CINE, "vit_demo": IMAGE})
    batches = place.choose((8, 32, 128), (2, 4))
    rows = []
    for size, bundle in networks.items():
        for batch in batches:
            for precision, (setting, held) in PRECISIONS.items():
                settings = {"mixed_precision": setting}
                training = Training(bundle=bundle, size=size, cases=2, batch_size=2, settings=settings)
                try:
                    engine = trainer(training, place)
                    with computing(engine.network, held):
                        row = measured(engine, batch, precision, found, place)
                except torch.OutOfMemoryError:
                    row = {"failed": "out of memory"}
                rows.append({"size": size, "batch": batch, "precision": precision, **row})
                if place.on_gpu:
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
    return {"ceilings": found, "steps": rows}


def measured(engine: Any, batch: int, precision: str, ceilings: dict[str, float], place: Place) -> dict[str, Any]:
    """Milliseconds of a step, what the device does in it, and what it would take at best."""
    work = cached_step(engine, batch, place)
    timed = milliseconds(work, place, repeats=place.choose(20, 3))
    ran = kernels(work, place)
    rate = ceilings[f"{precision.partition(' ')[0]}_operations"]
    with Operations(operations_per_second=rate, bytes_per_second=ceilings["bytes"]) as counted:
        work()
    floor = 1e3 * max(counted.operations / rate, smallest_bytes(engine, batch, place) / ceilings["bytes"])
    return {
        "milliseconds": timed,
        "kernels": ran,
        "busy_share": ran and min(1.0, ran["busy_milliseconds"] / timed["median"]),
        "tflop": counted.operations / 1e12,
        "tflop_per_second": counted.operations / 1e9 / timed["median"],
        "share_of_peak": counted.operations / rate * 1e3 / timed["median"],
        "roofline_milliseconds": floor,
        "over_roofline": timed["median"] / floor,
        "roofline_by_operation_milliseconds": 1e3 * counted.seconds,
        "over_roofline_by_operation": timed["median"] / (1e3 * counted.seconds),
        "peak_bytes": torch.cuda.max_memory_allocated() if place.on_gpu else None,
    }


def features_of(engine: Any, batch: int, place: Place) -> list[torch.Tensor]:
    """What the frozen part gives for random images, as the features of a batch are kept on the device."""
    part = frozen_part(engine.network)
    shape = next(iter(engine.data_loader))["image"].shape[1:]
    with engine._autocast(), torch.no_grad():
        made = part.compute(torch.rand(1, *shape, device=place.device))
    return [torch.randn(batch, *each.shape[1:], device=place.device).to(torch.float16) for each in made]


def cached_step(engine: Any, batch: int, place: Place) -> Callable[[], None]:
    """A step as the trainer takes it from features on the device on: cast, forward, backward, clipping, optimiser."""
    part, network, optimizer = frozen_part(engine.network), engine.network, engine.optimizer
    kept = features_of(engine, batch, place)
    labels = torch.arange(batch, device=place.device) % 2
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    set_training_mode(network)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with engine._autocast():
            loss = engine.loss_function(part.logits([each.float() for each in kept], network), labels).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, engine.max_grad_norm)
        optimizer.step()

    return step


def smallest_bytes(engine: Any, batch: int, place: Place) -> int:
    """What no step can do without moving: features, the weights behind them forward and backward, AdamW's moments."""
    features = sum(each.nbytes for each in features_of(engine, batch, place))
    behind = frozen_part(engine.network).prefixes_behind
    weights = sum(value.nbytes for name, value in engine.network.named_parameters() if name.startswith(behind))
    trained = sum(value.nbytes for value in engine.network.parameters() if value.requires_grad)
    return features + 2 * weights + 6 * trained
