"""Seconds of a site's local epoch with and without kept features, beside methods that cannot keep any, in one run.

Every kind of training is the bundle's own trainer on the same cases. Kinds take turns, an epoch each, in an order that
is shuffled anew in every cycle. The first epoch of a kind that keeps features fills the store and is reported apart,
beside a later uncached one and beside the first, in which images are read and preprocessed too.
The floor is what the processor would need for the multiply-adds of a cached step alone, at the rate of a matrix product
of the network's own size in float32 that is measured in the same run; it is given as the step is computed, and as the
method's equations stand (keys and values of all tokens in the last block, adapters beside the weights).

    python benchmarks/local_epoch.py --task cine --cases 3 --batch-size 1 --cycles 7
    python benchmarks/local_epoch.py --task image --cases 64 --batch-size 16 --cycles 3
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _flops import flop_counter, textbook
from _machine import machine, matrix_rate
from monai.bundle import ConfigParser

from monai_fedlora.data.site import CACHE, PhantomSettings, site_data
from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.files import write_json
from monai_fedlora.methods.build import UNTRAINED
from monai_fedlora.resources import bundle_configs

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Kind:
    """A way to train.

    Attributes:
        method: registered name, with its arguments in ``args``.
        cached: whether what is frozen is kept.
        precision: the bundle's ``mixed_precision``.
    """

    method: str
    cached: bool
    precision: str = "off"
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A bundle, its backbone and the kinds to compare; the first of them is the cached one."""

    bundle: str
    size: str
    phantom: str
    kinds: dict[str, Kind]


TASKS = {
    "cine": Task(
        "cine_cmr_dual_lora_classification",
        "base",
        "cine",
        {
            "dual_lora cached": Kind("dual_lora", True),
            "dual_lora": Kind("dual_lora", False),
            "all-block LoRA": Kind("fedit", False, args={"blocks": 0}),
            "dual_lora cached bf16": Kind("dual_lora", True, "bf16"),
        },
    ),
    "image": Task(
        "image_2d_fedopal_classification",
        "vit_base_16",
        "dermoscopy",
        {
            "pfedst cached": Kind("pfedst", True, args={"classifier": "linear"}),
            "pfedst": Kind("pfedst", False, args={"classifier": "linear"}),
            "dual_lora cached": Kind("dual_lora", True),
            "dual_lora": Kind("dual_lora", False),
            "full fine-tuning": Kind("fedavg", False),
            "pfedst cached bf16": Kind("pfedst", True, "bf16", args={"classifier": "linear"}),
            "dual_lora cached bf16": Kind("dual_lora", True, "bf16"),
        },
    ),
}


def trainer(task: Task, kind: Kind, settings: dict[str, Any], datalist: Path) -> Any:
    """The bundle's trainer for a kind."""
    config = ConfigParser()
    config.read_config(bundle_configs(task.bundle))
    overrides = {
        "dataset_dir": str(datalist.parent),
        "output_dir": str(datalist.parent / "run"),
        "size": task.size,
        "backbone": UNTRAINED,
        "method": kind.method,
        "method_args": kind.args,
        "cache_features": kind.cached,
        "cache_dtype": settings["cache_dtype"],
        "mixed_precision": kind.precision,
        "augment": False,
        "epochs": settings["cycles"] + 1,
        "batch_size": settings["batch_size"],
        "val_interval": 0,
        "save_checkpoints": False,
        "show_progress": False,
    }
    for key, value in overrides.items():
        config[key] = value
    return config.get_parsed_content("train::trainer")


def fewer_cases(site: str, task: Task, cases: int) -> Path:
    """A datalist of so many training cases."""
    if task.phantom == "cine":
        return site_data(site, settings=PhantomSettings(training=cases, validation=0, test=0))
    from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

    return site_data(site, phantom=task.phantom, settings=PhotoPhantomSettings(training=cases, validation=0, test=0))


def floor(engine: Any, batch_size: int) -> dict[str, float]:
    """Multiply-adds of a cached training step and of a whole one, the rate, and an epoch's seconds at that rate."""
    network = engine.network
    image = next(iter(engine.data_loader))["image"][:1]
    part = frozen_part(network)
    assert part is not None
    parts = [tensor.repeat(batch_size, *(1,) * (tensor.dim() - 1)) for tensor in part.compute(image)]

    def count(logits: Callable[[], torch.Tensor]) -> int:
        with flop_counter() as counter:
            logits().sum().backward()
        network.zero_grad(set_to_none=True)
        return counter.get_total_flops()

    flops = count(lambda: part.logits(parts, network))
    whole = batch_size * count(lambda: network(image))
    with textbook():
        as_written = count(lambda: part.logits(parts, network))
    rows, width = parts[0].shape[0] * parts[0].shape[1], parts[0].shape[2]
    rate, steps = matrix_rate(rows, width), len(engine.data_loader)
    return {
        "gflop_per_step": flops / 1e9,
        "gflop_per_step_as_written": as_written / 1e9,
        "gflop_per_step_uncached": whole / 1e9,
        "gflop_per_second": rate / 1e9,
        "seconds": steps * flops / rate,
        "seconds_as_written": steps * as_written / rate,
    }


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Train all kinds for an epoch that is reported apart and ``cycles`` that count."""
    torch.set_num_threads(settings["threads"])
    task, order = TASKS[settings["task"]], random.Random(0)
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE] = cache
        datalist = fewer_cases("site-1", task, settings["cases"])
        engines = {name: trainer(task, kind, settings, datalist) for name, kind in task.kinds.items()}
        names, cycles, load = list(engines), [], []
        for _ in range(settings["cycles"] + 1):
            seconds = {}
            for name in order.sample(names, len(names)):
                started = time.perf_counter()
                engines[name].run_epochs(1)
                seconds[name] = time.perf_counter() - started
            cycles.append(seconds)
            load.append(os.getloadavg()[0] / (os.cpu_count() or 1))
            print({name: round(value, 2) for name, value in seconds.items()}, flush=True)
        plain = [name for name, kind in task.kinds.items() if kind.cached and kind.precision == "off"]
        floors = {name: floor(engines[name], settings["batch_size"]) for name in plain}
    later = {name: statistics.median(cycle[name] for cycle in cycles[1:]) for name in names}
    return {
        "settings": {**settings, "size": task.size, "kinds": {name: vars(kind) for name, kind in task.kinds.items()}},
        "machine": machine(),
        "load_per_core": statistics.median(load),
        "first_epoch_seconds": cycles[0],
        "later_epoch_seconds": later,
        "times_slower_than_cached": {
            name: later[name] / later[next(n for n in names if task.kinds[n].cached)] for name in names
        },
        "faster_than_float32": {
            name: later[name.removesuffix(" bf16")] / later[name] for name in names if name.endswith(" bf16")
        },
        "first_epoch_over_uncached": {name: cycles[0][name] / later[name.removesuffix(" cached")] for name in plain},
        "first_epoch_over_uncached_first": {
            name: cycles[0][name] / cycles[0][name.removesuffix(" cached")] for name in plain
        },
        "floor": floors,
        "over_floor": {name: later[name] / floors[name]["seconds"] for name in plain},
        "over_floor_as_written": {name: later[name] / floors[name]["seconds_as_written"] for name in plain},
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), help="default: both")
    parser.add_argument("--cases", type=int, help="default: 3 cines or 32 images")
    parser.add_argument("--batch-size", type=int, help="default: 1 cine or 16 images")
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache-dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    arguments = vars(parser.parse_args())
    for task in [arguments["task"]] if arguments["task"] else list(TASKS):
        settings = {**arguments, "task": task}
        settings["cases"] = settings["cases"] or {"cine": 3, "image": 32}[task]
        settings["batch_size"] = settings["batch_size"] or {"cine": 1, "image": 16}[task]
        result = run(settings)
        write_json(RESULTS / f"local_epoch_{task}.json", result)
        for part in (
            "later_epoch_seconds",
            "times_slower_than_cached",
            "faster_than_float32",
            "first_epoch_over_uncached",
            "first_epoch_over_uncached_first",
            "over_floor",
            "over_floor_as_written",
        ):
            print(f"{part:28}", {name: round(value, 3) for name, value in result[part].items()})


if __name__ == "__main__":
    main()
