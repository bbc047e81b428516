"""What the way in which updates travel costs in bytes and in balanced accuracy, on the cine demonstration.

Runs the federation of ``nvflare_jobs/dual_lora`` in one process, on its synthetic cine studies, once per way and seed.
Bytes are those of the declared arrays, per site and round, without what NVFlare's messages take around them.

    python benchmarks/wire.py --seeds 3
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from _runs import over_seeds, plan_of, told

from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import write_json

ROOT = Path(__file__).parent
WAYS: dict[str, dict[str, Any]] = {
    "float32": {"wire_dtype": "float32"},
    "float16": {"wire_dtype": "float16"},
    "8-bit": {"wire_dtype": "int8"},
    "8-bit, largest tenth": {"wire_dtype": "int8", "top_k": 0.1},
}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Run every way once per seed."""
    torch.set_num_threads(settings["threads"])
    changes = {name: settings[name] for name in ("rounds", "local_epochs") if settings[name]}
    base = dataclasses.replace(plan_of("dual_lora"), **changes)
    plans = {way: dataclasses.replace(base, **wire) for way, wire in WAYS.items()}
    found = over_seeds(plans, seeds=settings["seeds"])
    ways = {way: {**sizes(plan), **found[way]} for way, plan in plans.items()}
    for row in ways.values():
        row["up_of_float16_ratio"] = row["bytes_up"] / ways["float16"]["bytes_up"]
    return {"settings": {**settings, "plan": base.to_json()}, "machine": machine(), "ways": ways}


def sizes(plan: Plan) -> dict[str, int]:
    """Bytes and tensors per site and round."""
    manifest, _ = build_shared(plan)
    up, down = manifest.up, manifest.down
    return {"bytes_up": up.nbytes, "bytes_down": down.nbytes, "tensors_up": len(up.entries)}


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, help="rounds (default: the job's)")
    parser.add_argument("--local-epochs", type=int, help="epochs per round (default: the job's)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "wire_cine_demo.json")
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    result = run(arguments)
    write_json(output, result)
    print(f"{'way':24}{'bytes up':>10}{'ratio':>7}{'bal. acc.':>11}{'+-':>7}{'shared only':>13}")
    for way, row in result["ways"].items():
        on, spread, off = told(row)
        print(f"{way:24}{row['bytes_up']:>10,}{row['up_of_float16_ratio']:>7.2f}{on:>11.3f}{spread:>7.3f}{off:>13.3f}")
    print(f"written to {output.name}")


if __name__ == "__main__":
    main()
