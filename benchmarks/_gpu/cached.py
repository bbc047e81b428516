"""Stage 3: whole epochs of the trainer with kept features and without, and where the time of the first kind goes."""

from __future__ import annotations

import time
from typing import Any

import torch

from _gpu.place import CINE, IMAGE, Place, Training, trainer
from _gpu.step import cached_step
from _gpu.timing import kernels, milliseconds


def run(place: Place) -> dict[str, Any]:
    """Both networks, each with kept features and without."""
    networks = place.choose({"base": (CINE, 16, 8), "vit_base_16": (IMAGE, 64, 32)}, {"vit_demo": (IMAGE, 4, 2)})
    rows = {}
    for size, (bundle, cases, batch) in networks.items():
        common = {"bundle": bundle, "size": size, "cases": cases, "batch_size": batch}
        kept = Training(**common, settings={"mixed_precision": "bf16"})
        anew = Training(**common, settings={"mixed_precision": "bf16", "cache_features": False})
        row = {"kept": epoch(trainer(kept, place), place), "computed_anew": epoch(trainer(anew, place), place)}
        row["times_faster"] = row["computed_anew"]["milliseconds"] / row["kept"]["milliseconds"]
        rows[size] = row
    return {"epochs": rows}


def epoch(engine: Any, place: Place) -> dict[str, Any]:
    """Milliseconds of an epoch after two others, of which: the loader alone, the step on the device, and the rest."""
    engine.run_epochs(2)
    taken = []
    for _ in range(place.choose(3, 1)):
        place.synchronise()
        started = time.perf_counter()
        engine.run_epochs(1)
        place.synchronise()
        taken.append(1e3 * (time.perf_counter() - started))
    ran = kernels(lambda: engine.run_epochs(1), place)
    steps = engine.state.epoch_length
    row: dict[str, Any] = {"milliseconds": min(taken), "steps": steps, "kernels": ran}
    row["busy_share"] = ran and min(1.0, ran["busy_milliseconds"] / min(taken))
    if engine.inferer.__class__.__name__ == "FrozenInferer":
        batch = engine.data_loader.batch_size
        alone = milliseconds(cached_step(engine, batch, place), place, repeats=place.choose(10, 2))["median"]
        row["step_alone_milliseconds"] = steps * alone
        row["rest_milliseconds"] = min(taken) - steps * alone
        with engine.data_loader.dataset.unopened():
            started = time.perf_counter()
            for _ in engine.data_loader:
                pass
            row["loader_milliseconds"] = 1e3 * (time.perf_counter() - started)
    if place.on_gpu:
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    return row
