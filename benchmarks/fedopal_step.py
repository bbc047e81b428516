"""Time of a FedOPAL training step over that of plain dual LoRA, for each form of the penalty, in one run.

One process trains one network with adapters on q and v of every block. The kinds of step take turns in an order that is
shuffled anew in every cycle, so that whatever else the machine does falls on all of them alike. A ratio is that of the
medians over the cycles; beside it are the quartiles of the ratios within each cycle, as processor and as wall-clock
time. With one thread a step waits for nothing: on an idle machine the clocks agree, and on a busy one (see the load per
core) wall-clock time holds other programs' work as well. The penalties of the weights need no forward pass and are also
timed alone, forward and backward.

    python benchmarks/fedopal_step.py --size vit_base_16 --batch-size 8 --cycles 15
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from _machine import machine

from monai_fedlora.adapters.orthogonality import FORMS
from monai_fedlora.files import write_json
from monai_fedlora.methods import get_method
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.catalogue import architecture

RESULTS = Path(__file__).parent / "results"
PLAIN = "dual_lora"
OF_WEIGHTS = [form for form in FORMS if form != "R"]
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


class Steps:
    """One network in training, and the kinds of step it can take."""

    def __init__(self, settings: dict[str, Any]) -> None:
        adapters = {"blocks": 0, "rank": settings["rank"]}
        self.network = build_network(
            size=settings["size"], out_chans=8, backbone=UNTRAINED, method=PLAIN, method_args=adapters
        )
        self.methods = {PLAIN: get_method(PLAIN, adapters)}
        self.methods |= {form: get_method("fedopal", {**adapters, "orthogonality": form}) for form in FORMS}
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=1e-3, weight_decay=1e-2)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(
            settings["batch_size"], 3, *architecture(settings["size"]).image_size, generator=generator
        )
        self.labels = torch.arange(settings["batch_size"]) % 8

    def take(self, kind: str) -> dict[str, float]:
        """Take one step and give its seconds by clock."""
        with self.methods[kind].penalty(self.network) or nullcontext() as penalty:
            started = {clock: read() for clock, read in CLOCKS.items()}
            self.optimiser.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(self.network(self.images), self.labels)
            if penalty is not None:
                loss = loss + penalty()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 5.0)
            self.optimiser.step()
            return {clock: read() - started[clock] for clock, read in CLOCKS.items()}

    def penalty_alone(self, form: str, repeats: int = 25) -> float:
        """Median processor seconds of a penalty of the weights, forward and backward."""
        context = self.methods[form].penalty(self.network)
        assert context is not None
        with context as penalty:
            seconds = []
            for _ in range(repeats):
                started = time.process_time()
                penalty().backward()
                seconds.append(time.process_time() - started)
        return statistics.median(seconds)


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure every kind of step once per cycle, after a cycle that does not count."""
    torch.set_num_threads(settings["threads"])
    steps, order = Steps(settings), random.Random(0)
    for kind in steps.methods:
        steps.take(kind)
    cycles, load = [], []
    for cycle in range(settings["cycles"]):
        cycles.append({kind: steps.take(kind) for kind in order.sample(list(steps.methods), len(steps.methods))})
        load.append(os.getloadavg()[0] / (os.cpu_count() or 1))
        print(f"{cycle + 1}/{settings['cycles']} {cycles[-1]}", flush=True)
    return {
        "settings": settings,
        "machine": machine(),
        "load_per_core": statistics.median(load),
        "trained_parameters": sum(p.numel() for p in steps.trained),
        "penalty_alone_seconds": {form: steps.penalty_alone(form) for form in OF_WEIGHTS},
        "steps": {kind: {clock: summary(cycles, kind, clock) for clock in CLOCKS} for kind in steps.methods},
    }


def summary(cycles: list[dict[str, dict[str, float]]], kind: str, clock: str) -> dict[str, Any]:
    """Median seconds, and the ratio to the plain step."""
    seconds, plain = ([cycle[name][clock] for cycle in cycles] for name in (kind, PLAIN))
    ratios = [own / other for own, other in zip(seconds, plain, strict=True)]
    return {
        "seconds": statistics.median(seconds),
        "ratio": statistics.median(seconds) / statistics.median(plain),
        "quartiles_of_ratios": statistics.quantiles(ratios, n=4),
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vit_base_16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--cycles", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    settings = vars(parser.parse_args())
    result = run(settings)
    path = RESULTS / f"fedopal_step_{settings['size']}.json"
    write_json(path, result)
    for clock in CLOCKS:
        print(f"{clock:12}{'s/step':>9}{'ratio':>8}  quartiles of the ratios within a cycle")
        for kind, row in result["steps"].items():
            quartiles = " ".join(f"{q:.3f}" for q in row[clock]["quartiles_of_ratios"])
            print(f"{kind:12}{row[clock]['seconds']:>9.3f}{row[clock]['ratio']:>8.3f}  {quartiles}")
    print("alone, ms   ", {form: round(1e3 * value, 2) for form, value in result["penalty_alone_seconds"].items()})
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
