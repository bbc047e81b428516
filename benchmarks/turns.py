"""Seconds and memory of simulated sites that take turns, over those of sites whose processes NVFlare starts anew.

Both ways run the same job of small photographs, each site a few steps a round: with the workers of `monai-fedlora
simulate`, and as `nvflare simulator -t` does by itself, where a site that has had its turn loses its process. Seconds
are those of a round after the first, by site; memory is the highest sum over all processes, with pages that they share
counted once. The bits of both are compared.

    python benchmarks/turns.py --sites 8 --threads 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _frameworks.memory import MARK, Sampler
from _frameworks.work import BUNDLE, prepare_backbone, prepare_data
from _machine import machine
from _policy import allow_small_sites

from monai_fedlora.files import load_tensors, sha256, write_json

RESULTS = Path(__file__).parent / "results"
WAYS = ("workers", "nvflare")


class NoPool:
    """In place of the workers: each process of NVFlare's has its own."""

    address = "/nowhere"

    def __init__(self, **_: Any) -> None:
        self.lifeline, self._other = os.pipe()

    def close(self) -> None:
        """Close what stands for it."""
        os.close(self.lifeline)
        os.close(self._other)


def run_once(way: str, job: Path, folder: Path, places: Mapping[str, str], threads: int) -> dict[str, Any]:
    """Run the job; return the seconds of its rounds after the first, and the peak of memory."""
    from monai_fedlora.federated import simulator
    from monai_fedlora.federated.update import payload_digest

    ended: dict[int, float] = {}

    def note(results: Mapping[str, Any]) -> None:
        for entry in results["rounds"]:
            if entry.get("aggregate") is not None or len(entry["sites"]) == len(results["plan"]["sites"]):
                ended.setdefault(entry["round"], time.perf_counter())

    kept = simulator.Pool, simulator._groups_of_gpus
    if way == "nvflare":
        simulator.Pool, simulator._groups_of_gpus = NoPool, lambda options: 2  # type: ignore[misc, assignment]
    os.environ[MARK] = f"{folder}"
    try:
        with Sampler(str(folder)) as memory:
            simulator.simulate(job, workspace=folder, threads=threads, on_progress=note, **places)
    finally:
        simulator.Pool, simulator._groups_of_gpus = kept  # type: ignore[misc]
    first, last, shared = min(ended), max(ended), load_tensors(folder / "shared.safetensors")[0]
    return {
        "way": way,
        "seconds_of_a_round": (ended[last] - ended[first]) / (last - first),
        "peak_bytes": memory.peak_bytes,
        "processes": memory.processes,
        "shared": payload_digest({key: value.numpy() for key, value in shared.items()}),
    }


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Run both ways in turn, and compare."""
    from monai_fedlora.federated.initial import build_shared
    from monai_fedlora.federated.jobs import write_job
    from monai_fedlora.federated.plan import Plan

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MONAI_FEDLORA_CACHE"] = str(folder / "cache")
        classes = prepare_data(folder / "data", sites=settings["sites"], cases=settings["cases"])
        backbone = folder / "backbone.safetensors"
        prepare_backbone(backbone, size=settings["size"], classes=len(classes))
        plan = Plan(
            experiment="turns",
            bundle=BUNDLE,
            method=settings["method"],
            sites=tuple(f"site-{number}" for number in range(1, settings["sites"] + 1)),
            classes=classes,
            rounds=settings["rounds"],
            size=settings["size"],
            backbone_sha256=sha256(backbone),
            training={"batch_size": settings["cases"], "augment": False, "warmup_epochs": 0},
        )
        write_job(plan, build_shared(plan)[0], folder / "job")
        places = {"data": str(folder / "data"), "backbone": str(backbone)}
        for number in range(settings["repeats"]):
            for way in WAYS:
                rows.append(run_once(way, folder / "job", folder / f"{way}-{number}", places, settings["threads"]))
    same = len({row.pop("shared") for row in rows}) == 1
    more = compared(rows, settings["sites"])
    return {"settings": settings, "machine": machine(), "rows": rows, **more, "same_bits": same}


def compared(rows: list[dict[str, Any]], sites: int) -> dict[str, Any]:
    """Medians of each way, and those of the workers over those of NVFlare alone."""

    def median(way: str, what: str) -> float:
        return statistics.median(row[what] for row in rows if row["way"] == way)

    return {
        "seconds_of_a_task": {way: median(way, "seconds_of_a_round") / sites for way in WAYS},
        "seconds_ratio": median("workers", "seconds_of_a_round") / median("nvflare", "seconds_of_a_round"),
        "peak_ratio": median("workers", "peak_bytes") / median("nvflare", "peak_bytes"),
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="sites at once (default: %(default)s)")
    parser.add_argument("--size", default="vit_demo")
    parser.add_argument("--method", default="dual_lora")
    parser.add_argument("--cases", type=int, default=4, help="of each site")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each way")
    settings = vars(parser.parse_args())
    allow_small_sites()
    result = run(settings)
    write_json(RESULTS / f"turns_{settings['method']}_{settings['size']}.json", result)
    for row in result["rows"]:
        print(f"{row['way']:<9}{row['seconds_of_a_round']:>8.1f} s a round{row['peak_bytes'] / 1e6:>8.0f} MB")
    print(f"seconds of a task {result['seconds_of_a_task']}, same bits: {result['same_bits']}")


if __name__ == "__main__":
    main()
