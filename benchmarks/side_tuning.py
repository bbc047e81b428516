"""Memory and time of a training step of pFedST, of LoRA in every block and of full fine-tuning, in one run.

Every kind trains in a process of its own, with the same images and one thread. The processes take their steps in turn,
never two at once, in an order that is shuffled anew in every cycle, so that whatever else the machine does falls on all
of them alike. The first step of each, which allocates the optimiser's state, counts for memory and not for time.

Memory is the process's highest resident size over that of the built model at rest, with what the allocator holds back.
Times are medians over the cycles, and beside their ratios are the quartiles of the ratios within each cycle. No
features are kept between steps.

    python benchmarks/side_tuning.py --size clip_base_16 --batch-size 16 --cycles 10
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from _machine import machine

from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.files import write_json
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.catalogue import architecture

RESULTS = Path(__file__).parent / "results"
SIDE = "pfedst"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    SIDE: ("pfedst", {"classifier": "linear"}),
    "LoRA in every block": ("fedit", {"blocks": 0}),
    "full fine-tuning": ("fedavg", {}),
}
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
CLASSES = 8


def work(kind: str, settings: dict[str, Any], pipe: Connection) -> None:
    """Build a kind's network, then take a step for every message, and answer with seconds and bytes."""
    torch.set_num_threads(settings["threads"])
    method, method_args = KINDS[kind]
    network = build_network(
        size=settings["size"], out_chans=CLASSES, backbone=UNTRAINED, method=method, method_args=method_args
    )
    optimiser = adamw(network=network)
    trained = [p for p in network.parameters() if p.requires_grad]
    shape = (settings["batch_size"], 3, *architecture(settings["size"]).image_size)
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(settings["batch_size"]) % CLASSES
    gc.collect()
    rest = resident("VmRSS")
    pipe.send({"trained_parameters": sum(p.numel() for p in trained), "rest_bytes": rest})
    while pipe.recv():
        started = {clock: read() for clock, read in CLOCKS.items()}
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        seconds = {clock: read() - started[clock] for clock, read in CLOCKS.items()}
        pipe.send({"seconds": seconds, "training_bytes": resident("VmHWM") - rest})


def resident(what: str) -> int:
    """Bytes of this process in memory, now ("VmRSS") or at most so far ("VmHWM")."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))


class Worker:
    """A process that trains one kind, a step at a time."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(kind, settings, other))
        self._process.start()
        self.built: dict[str, int] = self._pipe.recv()

    def step(self) -> dict[str, Any]:
        """Take a step; its seconds by clock, and the most bytes that training has taken so far."""
        self._pipe.send(True)
        return self._pipe.recv()

    def end(self) -> None:
        """Let the process go."""
        self._pipe.send(False)
        self._process.join()


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure every kind once per cycle, after a cycle that does not count."""
    workers, order = {kind: Worker(kind, settings) for kind in KINDS}, random.Random(0)
    cycles: list[dict[str, dict[str, Any]]] = []
    load = []
    for cycle in range(settings["cycles"] + 1):
        cycles.append({kind: workers[kind].step() for kind in order.sample(list(KINDS), len(KINDS))})
        load.append(os.getloadavg()[0] / (os.cpu_count() or 1))
        print(f"{cycle}/{settings['cycles']} {cycles[-1]}", flush=True)
    for worker in workers.values():
        worker.end()
    kinds = {kind: {**workers[kind].built, **summary(cycles[1:], kind)} for kind in KINDS}
    side = kinds[SIDE]["training_bytes"]
    for row in kinds.values():
        row["training_bytes_of_side_ratio"] = side / row["training_bytes"]
    return {"settings": settings, "machine": machine(), "load_per_core": statistics.median(load[1:]), "kinds": kinds}


def summary(cycles: list[dict[str, dict[str, Any]]], kind: str) -> dict[str, Any]:
    """A kind's memory and median seconds, and how many times as long the side network's steps take."""
    row: dict[str, Any] = {"training_bytes": cycles[-1][kind]["training_bytes"], "seconds": {}}
    for clock in CLOCKS:
        own, side = ([cycle[name]["seconds"][clock] for cycle in cycles] for name in (kind, SIDE))
        ratios = [other / seconds for other, seconds in zip(side, own, strict=True)]
        row["seconds"][clock] = {
            "median": statistics.median(own),
            "side_ratio": statistics.median(side) / statistics.median(own),
            "side_ratio_quartiles": statistics.quantiles(ratios, n=4),
        }
    return row


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="clip_base_16")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cycles", type=int, default=10, help="at least 2 (default: 10)")
    parser.add_argument("--threads", type=int, default=1)
    settings = vars(parser.parse_args())
    result = run(settings)
    path = RESULTS / f"side_tuning_{settings['size']}.json"
    write_json(path, result)
    print(f"{'kind':22}{'trained':>12}{'training MB':>13}{'s/step':>9}  pfedst's memory and time over it")
    for kind, row in result["kinds"].items():
        wall = row["seconds"]["wall"]
        quartiles = " ".join(f"{q:.3f}" for q in wall["side_ratio_quartiles"])
        print(
            f"{kind:22}{row['trained_parameters']:>12,}{row['training_bytes'] / 1e6:>13.0f}{wall['median']:>9.2f}"
            f"  {row['training_bytes_of_side_ratio']:.3f}  {wall['side_ratio']:.3f} ({quartiles})"
        )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
