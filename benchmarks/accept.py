"""What a server's share of a round costs in time, by the way in which updates travel.

Measures, on one thread, how long a gate takes to look at an update, and the server to open the updates of all sites and
to combine them. The tensors are those that a method shares at the given size of CineMA, with random changes.

    python benchmarks/accept.py --size base
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine

from monai_fedlora.encoding import Encoding
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.update import Update
from monai_fedlora.files import write_json
from monai_fedlora.methods import get_method
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import Report

ROOT = Path(__file__).parent
WAYS = {
    "float16": None,
    "8-bit": Encoding(values="int8"),
    "8-bit, largest tenth": Encoding(values="int8", kept=0.1),
}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure every way, all of a repetition before the next; the least processor time of each step counts."""
    torch.set_num_threads(1)
    with torch.device("meta"):
        network = build_network(
            size=settings["size"], out_chans=2, backbone=UNTRAINED, method=settings["method"], method_args={}
        )
    plain = get_method(settings["method"]).scope(network, wire_dtype="float16").manifest
    rounds = {name: Round(plain.encoded(way) if way else plain, settings) for name, way in WAYS.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(settings["repetitions"]):
        for name, each in rounds.items():
            found[name].append(each.measure())
    ways: dict[str, dict[str, float]] = {}
    for name, taken in found.items():
        steps = {step: min(times[step] for times in taken) for step in taken[0]}
        ways[name] = {**steps, "of_float16_ratio": 0.0}
    for row in ways.values():
        row["of_float16_ratio"] = _server(row) / _server(ways["float16"])
    values = sum(int(np.prod(entry.shape)) for entry in plain.up.entries.values())
    return {
        "settings": settings,
        "machine": machine(),
        "tensors": len(plain.up.entries),
        "values": values,
        "ways": ways,
    }


def _server(row: dict[str, float]) -> float:
    return row["accept_ms"] + row["aggregate_ms"]


class Round:
    """A server's round with the updates of every site."""

    def __init__(self, manifest: Manifest, settings: dict[str, Any]) -> None:
        self.method, self.manifest = get_method(settings["method"]), manifest
        generator = np.random.default_rng(settings["seed"])
        self.sent = {
            key: np.array(0.02 * generator.normal(size=entry.shape), entry.dtype)
            for key, entry in manifest.down.entries.items()
        }
        self.updates = {f"site-{n}": self._update(generator) for n in range(settings["sites"])}

    def _update(self, generator: np.random.Generator) -> Update:
        tensors = {}
        for key, entry in self.manifest.up.entries.items():
            change = 0.01 * generator.normal(size=entry.shape)
            plain = np.array(self.sent.get(key, 0.0) + change, entry.dtype)
            tensors[key] = plain if entry.encoding is None else entry.encoding.encode(change)
        return Update(tensors, Report(round=0, cases=20))

    def measure(self) -> dict[str, float]:
        """Milliseconds of a gate for one update, and of the server for all."""
        average = SharedAverage(method=self.method, manifest=self.manifest, sites=tuple(self.updates))
        average.begin(0, self.sent)
        up, updates = self.manifest.up, self.updates.items()
        return {
            "gate_ms": timed(lambda: [up.check(update.tensors) for _, update in updates]) / len(updates),
            "accept_ms": timed(lambda: [average.accept(site, update) for site, update in updates]),
            "aggregate_ms": timed(average.aggregate),
        }


def timed(task: Callable[[], Any]) -> float:
    """Milliseconds of processor time."""
    started = time.process_time()
    task()
    return 1e3 * (time.process_time() - started)


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--method", default="dual_lora")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    settings = vars(parser.parse_args())
    result = run(settings)
    path = ROOT / "results" / f"accept_{settings['method']}_{settings['size']}.json"
    write_json(path, result)
    for name, row in result["ways"].items():
        print(f"{name:22}" + "".join(f"{step} {value:.2f}  " for step, value in row.items()))
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
