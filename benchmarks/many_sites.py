"""Memory of many simulated sites over that of one, all in one process, with base-sized networks.

Each number of sites is run in a process of its own: a round of training and the final evaluation, on random weights and
a few photographs for each site. Memory is the process's highest resident size; beside it is what the process holds when
all sites have answered, and what it held with the libraries alone.

    python benchmarks/many_sites.py --sites 1,8,64 --method dual_lora
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from _frameworks.floors import slope
from _frameworks.work import BUNDLE, prepare_backbone, prepare_data
from _machine import machine
from _policy import allow_small_sites

from monai_fedlora.files import write_json

RESULTS = Path(__file__).parent / "results"


def work(sites: int, settings: dict[str, Any], folder: Path, classes: tuple[str, ...], pipe: Connection) -> None:
    """Run a federation of so many sites, and send bytes and seconds."""
    import torch

    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.federated.rounds import run_in_process
    from monai_fedlora.files import sha256

    torch.set_num_threads(1)
    backbone = folder / "backbone.safetensors"
    plan = Plan(
        experiment="many",
        bundle=BUNDLE,
        method=settings["method"],
        sites=tuple(f"site-{number}" for number in range(1, sites + 1)),
        classes=classes,
        rounds=settings["rounds"],
        size=settings["size"],
        backbone_sha256=sha256(backbone),
        training={"batch_size": settings["cases"], "augment": False, "warmup_epochs": 0},
    )
    libraries, started = resident("VmRSS"), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.environ["MONAI_FEDLORA_CACHE"] = f"{scratch}/cache"
        run_in_process(plan, folder=Path(scratch), data_root=str(folder / "data"), backbone=str(backbone))
        seconds, rest = time.perf_counter() - started, resident("VmRSS")
    pipe.send(
        {
            "sites": sites,
            "libraries_bytes": libraries,
            "rest_bytes": rest,
            "peak_bytes": resident("VmHWM"),
            "seconds": seconds,
        }
    )


def resident(what: str) -> int:
    """Bytes of this process in memory, now ("VmRSS") or at most so far ("VmHWM")."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure every number of sites."""
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MONAI_FEDLORA_CACHE"] = str(folder / "phantoms")
        classes = prepare_data(folder / "data", sites=max(settings["sites"]), cases=settings["cases"])
        prepare_backbone(folder / "backbone.safetensors", size=settings["size"], classes=len(classes))
        for sites in settings["sites"]:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(sites, settings, folder, classes, sender))
            process.start()
            sender.close()
            rows.append(receiver.recv())
            process.join()
            print(rows[-1], flush=True)
    return {"settings": settings, "machine": machine(), "rows": rows, **compared(rows)}


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Peaks over that of the fewest sites, and the growth with every site more."""
    fewest = min(rows, key=lambda row: row["sites"])["peak_bytes"]
    return {
        "peak_ratio": {row["sites"]: row["peak_bytes"] / fewest for row in rows},
        "peak_bytes_per_site": slope([(row["sites"], row["peak_bytes"]) for row in rows]),
        "rest_bytes_per_site": slope([(row["sites"], row["rest_bytes"]) for row in rows]),
    }


def numbers(text: str) -> list[int]:
    """Numbers between commas."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=numbers, default="1,8,64", help="numbers of sites (default: %(default)s)")
    parser.add_argument("--size", default="vit_base_16")
    parser.add_argument("--method", default="dual_lora")
    parser.add_argument("--cases", type=int, default=2, help="of each site")
    parser.add_argument("--rounds", type=int, default=1)
    settings = vars(parser.parse_args())
    allow_small_sites()
    result = run(settings)
    path = RESULTS / f"many_sites_{settings['method']}_{settings['size']}.json"
    write_json(path, result)
    print(f"{'sites':>6}{'libraries MB':>14}{'at rest MB':>12}{'peak MB':>9}{'ratio':>7}{'s':>8}")
    for row in result["rows"]:
        print(
            f"{row['sites']:>6}{row['libraries_bytes'] / 1e6:>14.0f}{row['rest_bytes'] / 1e6:>12.0f}"
            f"{row['peak_bytes'] / 1e6:>9.0f}{result['peak_ratio'][row['sites']]:>7.3f}{row['seconds']:>8.1f}"
        )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
