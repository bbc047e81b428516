"""What a fixed number of augmented images per case costs in balanced accuracy, against new ones in every epoch.

Kept features need images that come again. Runs a job of ``nvflare_jobs`` in one process, on its synthetic cine studies
or photographs, once per number of views and seed: without augmentation, with so many fixed views of each case that take
turns in the epochs, and with new ones in every epoch, of which nothing can be kept.

    python benchmarks/views.py --seeds 3
    python benchmarks/views.py --job fedopal --local-epochs 4 --views 4
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from _runs import over_seeds, plan_of, told, training

from monai_fedlora.files import write_json

ROOT = Path(__file__).parent
NONE, FREE = "no augmentation", "new in every epoch"


def ways(views: list[int]) -> dict[str, dict[str, Any]]:
    """Settings of training, by what they are called."""
    fixed = {f"{count} fixed": {"augment": True, "augmented_views": count} for count in views}
    free = {"augment": True, "augmented_views": 0, "cache_features": False}
    return {NONE: {"augment": False}, **fixed, FREE: free}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Run every way once per seed."""
    torch.set_num_threads(settings["threads"])
    plan = plan_of(settings["job"])
    plan = dataclasses.replace(plan, local_epochs=settings["local_epochs"] or plan.local_epochs)
    plans = {way: training(plan, **change) for way, change in ways(settings["views"]).items()}
    return {
        "settings": {**settings, "plan": plan.to_json()},
        "machine": machine(),
        "ways": over_seeds(plans, seeds=settings["seeds"]),
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 8])
    parser.add_argument("--job", default="dual_lora", help="one of nvflare_jobs (default: %(default)s)")
    parser.add_argument("--local-epochs", type=int, help="per round; enough for views to repeat (default: the job's)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a JSON file (default: views_JOB.json beside the other results)")
    arguments = vars(parser.parse_args())
    output = arguments.pop("output") or ROOT / "results" / f"views_{arguments['job']}.json"
    result = run(arguments)
    write_json(output, result)
    print(f"{'views':22}{'bal. acc.':>11}{'+-':>7}{'shared only':>13}{'seconds':>9}")
    for way, row in result["ways"].items():
        on, spread, off = told(row)
        print(f"{way:22}{on:>11.3f}{spread:>7.3f}{off:>13.3f}{row['seconds']:>9.0f}")
    print(f"written to {output.name}")


if __name__ == "__main__":
    main()
