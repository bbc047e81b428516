"""What bfloat16 costs in balanced accuracy, on the cine demonstration.

Runs the federation of ``nvflare_jobs/dual_lora`` in one process, on its synthetic cine studies, once per precision and
seed; ``benchmarks/local_epoch.py`` measures what it saves in time.

    python benchmarks/precision.py --seeds 3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from _runs import over_seeds, plan_of, told, training

from monai_fedlora.files import write_json

ROOT = Path(__file__).parent
PRECISIONS = ("off", "bf16")


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Run both precisions once per seed."""
    torch.set_num_threads(settings["threads"])
    plan = plan_of("dual_lora")
    plans = {precision: training(plan, mixed_precision=precision) for precision in PRECISIONS}
    return {
        "settings": {**settings, "plan": plan.to_json()},
        "machine": machine(),
        "mixed_precision": over_seeds(plans, seeds=settings["seeds"]),
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "precision_cine_demo.json")
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    result = run(arguments)
    write_json(output, result)
    for precision, row in result["mixed_precision"].items():
        on, spread, off = told(row)
        print(f"{precision:6}{on:>8.3f} +- {spread:.3f}, shared only {off:.3f}")
    print(f"written to {output.name}")


if __name__ == "__main__":
    main()
