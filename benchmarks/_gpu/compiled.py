"""Stage 4: modes of `torch.compile`, with what compiling takes and whether it is done again."""

from __future__ import annotations

import time
from typing import Any

import torch

from _gpu.place import CINE, IMAGE, Place, Training, trainer
from monai_fedlora.errors import FedLoraError


def run(place: Place) -> dict[str, Any]:
    """Epochs with each mode: the first, which compiles, and a later one."""
    bundle, size = place.choose((CINE, "base"), (IMAGE, "vit_demo"))
    modes = place.choose(("off", "default", "reduce-overhead", "max-autotune"), ("off",))
    rows: dict[str, Any] = {}
    for mode in modes:
        training = Training(
            bundle=bundle,
            size=size,
            cases=place.choose(20, 4),
            batch_size=place.choose(8, 2),
            settings={"compiler": mode, "mixed_precision": "bf16"},
        )
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        try:
            rows[mode] = epochs(trainer(training, place), place)
        except (FedLoraError, RuntimeError) as error:
            rows[mode] = {"failed": f"{type(error).__name__}: {error}"[:500]}
    reference = rows["off"].get("loss")
    for row in rows.values():
        if reference and "loss" in row:
            row["loss_apart"] = abs(row["loss"] - reference) / abs(reference)
    return {"modes": rows, "passed": not any("failed" in row for row in rows.values())}


def epochs(engine: Any, place: Place) -> dict[str, Any]:
    """Seconds of the first two epochs, milliseconds of a later one, graphs compiled in each, and the last loss."""
    seconds, graphs = [], []
    for _ in range(4):
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        started = time.perf_counter()
        engine.run_epochs(1)
        place.synchronise()
        seconds.append(time.perf_counter() - started)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
    return {
        "first_seconds": seconds[0],
        "later_milliseconds_per_step": 1e3 * min(seconds[2:]) / engine.state.epoch_length,
        "graphs_by_epoch": graphs,
        "loss": float(engine.state.metrics["train_loss"]),
    }
