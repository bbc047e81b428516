"""A federation of this toolkit beside what is usual, on the same work, in one run.

The systems (see ``_frameworks/systems.py``): dual_lora and LoRA in every block by this toolkit, as NVFlare jobs and in
one process; LoRA in every block in a Client API script with NVFlare's FedAvg recipe, and in Flower's simulation engine;
full fine-tuning by this toolkit. All train the same network with the same random weights on the same photographs,
without augmentation, validation or test, one torch thread for each site, and start with empty caches. The peers'
clients are kinder to themselves than quickstarts: they build the network and read the pictures once per process.

Times are of the machine's clock: a local epoch as the site sees it, a round from its first task to the next round's,
and the part of it in which no site trains. Memory is the highest sum of the proportional set sizes of all processes.
Bytes are those that a site sends in a round: NVFlare's own count of its messages, or the arrays in Flower's.
The floor is a local epoch's multiply-adds at the rate of a matrix product that is measured in the same run.

    make flower                       # Flower in an environment of its own, which is left out otherwise
    python benchmarks/frameworks.py --systems ours,client_api,flower --sites 2,4,8 --cases 16,32
    python benchmarks/frameworks.py --quick
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from _frameworks.floors import data_bytes, floor_of, training_flops
from _frameworks.measure import imports, measure
from _frameworks.systems import SYSTEMS
from _frameworks.table import Row, as_csv, figure, merged, slopes
from _frameworks.work import Work, prepare_backbone, prepare_data
from _machine import machine, matrix_rate
from _policy import allow_small_sites

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "frameworks.json"
QUICK_RESULTS = REPOSITORY / "build" / "frameworks_quick.json"
FLOWER = REPOSITORY / "build" / "flower" / "bin" / "python"
QUICK = {"systems": "ours,in_process,client_api,flower", "sites": "2", "cases": "6", "batch_size": 3, "rounds": 3}


def places(sites: list[int], cases: list[int]) -> list[tuple[int, int]]:
    """All numbers of sites with the first number of cases, and the first number of sites with the others."""
    return [*((count, cases[0]) for count in sites), *((sites[0], count) for count in cases[1:])]


def run(settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Measure every system at every place, in an order that is shuffled anew in every repeat."""
    from monai_fedlora.federated.simulator import default_threads
    from monai_fedlora.files import write_json
    from monai_fedlora.networks.catalogue import architecture

    shape: Any = architecture(settings["size"]).shape
    grid = places(settings["sites"], settings["cases"])
    os.environ["MONAI_FEDLORA_CACHE"] = str(scratch / "phantoms")
    for cases in settings["cases"]:
        most = max(count for count, other in grid if other == cases)
        classes = prepare_data(scratch / f"data-{cases}", sites=most, cases=cases)
    backbone = scratch / "backbone.safetensors"
    prepare_backbone(backbone, size=settings["size"], classes=len(classes))
    tokens = (shape.image_size[0] // shape.patch) * (shape.image_size[1] // shape.patch) + 1
    torch.set_num_threads(1)
    rate = matrix_rate(settings["batch_size"] * tokens, shape.dim)
    chosen = {name: SYSTEMS[name] for name in settings["systems"]}
    result: dict[str, Any] = {"settings": settings, "machine": machine(), "gflop_per_second": rate / 1e9}
    result["data_bytes"] = {cases: data_bytes(scratch / f"data-{cases}") for cases in settings["cases"]}
    result["systems"] = {}
    for name, system in chosen.items():
        counted = training_flops(system, size=settings["size"], classes=len(classes))
        floors = {
            cases: floor_of(counted, cases=cases, rate=rate, wire_bytes=system.wire_bytes)
            for cases in settings["cases"]
        }
        result["systems"][name] = {**asdict(system), **counted, "floor": floors}
    rows: list[Row] = []
    load, order = [], random.Random(0)
    wanted = [(name, sites, cases) for name in chosen for sites, cases in grid if sites <= chosen[name].most_sites]
    for repeat in range(settings["repeats"]):
        for name, sites, cases in order.sample(wanted, len(wanted)):
            system = chosen[name]
            at_once = 1 if system.one_at_a_time else settings["at_once"] or default_threads(sites)
            if system.in_flower:
                at_once = settings["at_once"] or min(sites, os.cpu_count() or 1)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                work = Work(
                    folder=folder,
                    data=str(scratch / f"data-{cases}"),
                    backbone=str(backbone),
                    classes=classes,
                    sites=sites,
                    at_once=at_once,
                    method=system.method,
                    method_args=system.method_args,
                    **{key: settings[key] for key in ("size", "rounds", "epochs", "batch_size", "rank")},
                )
                python = settings["flower_python"] if system.in_flower else sys.executable
                found = measure(system, work, python=python, timeout=settings["timeout"])
            rows.append({"system": name, "sites": sites, "cases": cases, "repeat": repeat, "at_once": at_once, **found})
            load.append(os.getloadavg()[0] / (os.cpu_count() or 1))
            print(rows[-1], flush=True)
            summary = merged(rows)
            result |= {"load_per_core": statistics.median(load), "rows": rows, "summary": summary}
            result["slopes"] = slopes(summary)
            write_json(settings["output"], result)  # what is measured stays, whatever comes
    return result


def numbers(text: str) -> list[int]:
    """Positive numbers between commas."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text} holds a number below 1")
    return found


def names(text: str) -> list[str]:
    """Systems between commas."""
    found = text.split(",")
    if unknown := [name for name in found if name not in SYSTEMS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SYSTEMS)}")
    return found


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four systems and little work; writes to build/")
    parser.add_argument("--systems", type=names, default=",".join(SYSTEMS), help="of %(default)s")
    parser.add_argument("--sites", type=numbers, default="2,4,8", help="numbers of sites (default: %(default)s)")
    parser.add_argument("--cases", type=numbers, default="16,32", help="cases per site (default: %(default)s)")
    parser.add_argument("--size", default="vit_demo", help="of the network (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1, help="local ones per round")
    parser.add_argument("--rounds", type=int, default=4, help="at least 3: the first and the last do not count")
    parser.add_argument("--rank", type=int, default=8, help="of all adapters")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--at-once", type=int, help="sites that train at once (default: what each system chooses)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one system at one place")
    parser.add_argument("--flower-python", default=str(FLOWER), help="interpreter that has Flower")
    parser.add_argument("--output", type=Path, help="a JSON file; csv and figures go beside it")
    return parser


def main() -> None:
    """Run from the command line and write the results."""
    from monai_fedlora.files import write_json, write_text

    parser = build_parser()
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK)
    settings = vars(parser.parse_args())
    allow_small_sites()
    settings["output"] = settings["output"] or (QUICK_RESULTS if settings["quick"] else RESULTS)
    left_out = None
    if any(SYSTEMS[name].in_flower for name in settings["systems"]):
        python = settings["flower_python"]
        if not (Path(python).is_file() and imports(python, "flwr, ray")):
            left_out = f"{python} cannot import flwr and ray; run: make flower, or give --flower-python"
            print(f"Flower is left out: {left_out}", flush=True)
            settings["systems"] = [name for name in settings["systems"] if not SYSTEMS[name].in_flower]
    with tempfile.TemporaryDirectory() as scratch:
        result = run({**settings, "output": str(settings["output"])}, Path(scratch))
    for key in ("output", "flower_python"):
        del result["settings"][key]
    result["left_out"] = left_out
    output = settings["output"]
    write_json(output, result)
    write_text(output.with_suffix(".csv"), as_csv(result["rows"]))
    if result["summary"]:
        seconds = figure(result["summary"], "round_seconds", scale=1, label="a round", unit="s")
        memory = figure(result["summary"], "peak_bytes", scale=1e6, label="peak memory of all processes", unit="MB")
        write_text(output.with_name(f"{output.stem}_time.svg"), seconds)
        write_text(output.with_name(f"{output.stem}_memory.svg"), memory)
    show(result)
    print(f"written to {output}")


def show(result: dict[str, Any]) -> None:
    """Print a line for each place."""
    print(
        f"{'system':24}{'sites':>6}{'cases':>6}{'s/epoch':>9}{'floor':>8}{'s/round':>9}{'idle s':>8}{'wall s':>8}"
        f"{'peak MB':>9}{'kB sent':>9}"
    )
    for row in sorted(result["summary"], key=lambda row: (row["cases"], row["sites"], row["system"])):
        floor = result["systems"][row["system"]]["floor"][row["cases"]]["epoch_seconds"]
        print(
            f"{row['system']:24}{row['sites']:>6}{row['cases']:>6}{row['epoch_seconds']:>9.3f}{floor:>8.3f}"
            f"{row['round_seconds']:>9.2f}{row['beyond_training_seconds']:>8.2f}{row['wall_seconds']:>8.1f}"
            f"{row['peak_bytes'] / 1e6:>9.0f}{row['bytes_sent'] / 1e3:>9.1f}"
        )
    for row in result["rows"]:
        if "failed" in row:
            print(f"{row['system']} with {row['sites']} sites failed: {row['failed']}")


if __name__ == "__main__":
    main()
