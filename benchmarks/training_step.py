"""Time and peak memory of one training step, for each way to adapt the backbone, in one run.

Every variant runs in a process of its own on the same random image, one after the other, in a shuffled order
that is repeated; the table holds medians and ratios to full fine-tuning.

    python benchmarks/training_step.py --size base --repeats 3
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import statistics
import time
from pathlib import Path
from typing import Any

from _machine import machine

from monai_fedlora.files import write_json

RESULTS = Path(__file__).parent / "results"

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dual LoRA, last 2 blocks": ("dual_lora", {"blocks": 2}),
    "dual LoRA, all blocks": ("dual_lora", {"blocks": 0}),
    "full fine-tuning": ("fedavg", {}),
}


def measure(variant: str, settings: dict[str, Any], pipe: Any) -> None:
    """Run steps of one variant and send seconds (median) and peak resident bytes of this process."""
    import torch

    from monai_fedlora.methods.build import UNTRAINED, build_network
    from monai_fedlora.networks.cinema import SIZES

    torch.set_num_threads(settings["threads"])
    method, method_args = VARIANTS[variant]
    network = build_network(
        size=settings["size"], out_chans=2, backbone=UNTRAINED, method=method, method_args=method_args
    )
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    image = torch.rand(settings["batch_size"], 2, *SIZES[settings["size"]].image_size)
    label = torch.zeros(settings["batch_size"], dtype=torch.long)
    seconds = []
    for _ in range(settings["steps"]):
        started = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(image), label).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trained_count = sum(p.numel() for p in trained)
    pipe.send({"seconds": statistics.median(seconds), "peak_bytes": peak, "trained_parameters": trained_count})


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure every variant ``repeats`` times."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    context, order = multiprocessing.get_context("spawn"), random.Random(0)
    for repeat in range(settings["repeats"]):
        for variant in order.sample(list(VARIANTS), len(VARIANTS)):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(variant, settings, sender))
            process.start()
            runs[variant].append(receiver.recv())
            process.join()
            print(f"{repeat + 1}/{settings['repeats']} {variant}: {runs[variant][-1]}", flush=True)
    medians = {
        variant: {key: statistics.median(r[key] for r in results) for key in results[0]}
        for variant, results in runs.items()
    }
    reference = medians["full fine-tuning"]
    for row in medians.values():
        row["seconds_ratio"] = row["seconds"] / reference["seconds"]
        row["peak_ratio"] = row["peak_bytes"] / reference["peak_bytes"]
    return {"settings": settings, "machine": machine(), "variants": medians}


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    settings = vars(parser.parse_args())
    result = run(settings)
    path = RESULTS / f"training_step_{settings['size']}.json"
    write_json(path, result)
    print(f"{'variant':28}{'trained':>12}{'s/step':>9}{'ratio':>7}{'peak GB':>9}{'ratio':>7}")
    for variant, row in result["variants"].items():
        print(
            f"{variant:28}{row['trained_parameters']:>12,.0f}{row['seconds']:>9.2f}{row['seconds_ratio']:>7.2f}"
            f"{row['peak_bytes'] / 1e9:>9.2f}{row['peak_ratio']:>7.2f}"
        )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
