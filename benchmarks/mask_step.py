"""CPU time of a training step of the segmentation network: whole, behind kept features, and of its decoder alone.

The decoder trains and cannot be kept, so that it bounds what kept features can save: a step can take no less than the
decoder's own. All three kinds of step take turns in one process with one thread, and the ratios are medians over the
turns, so that they say little of what else the machine does. Kept features also spare augmenting image and mask, which
is timed by itself; opening and preprocessing files is not measured.

    python benchmarks/mask_step.py
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _machine import machine

from monai_fedlora.engines.config import augmentation
from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.files import write_json
from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.catalogue import architecture

RESULT = Path(__file__).parent / "results" / "mask_step.json"
WHOLE, KEPT, DECODER, AUGMENT = "whole network", "behind kept features", "decoder alone", "augmenting"
WITH_IMAGES = f"{AUGMENT} and {WHOLE}"
CHANNELS = 4


def steps_of(size: str, batch: int, blocks: int) -> tuple[dict[str, Callable[[], None]], float]:
    """What is timed for one network, and the megabytes of an image's kept features."""
    network: Any = build_network(
        size=size,
        out_chans=CHANNELS,
        backbone=UNTRAINED,
        method="dual_lora",
        method_args={"blocks": blocks},
        masks=True,
    )
    network.train()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    images = torch.rand(batch, 2, *architecture(size).image_size)
    masks = torch.randint(CHANNELS, (batch * 2, *images.shape[2:]))
    part = frozen_part(network)
    assert part is not None
    with torch.no_grad():
        kept = [tensor.half() for tensor in part.compute(images)]
        before = network.prefix(images, len(network.blocks))
    tokens = before.tokens.detach().requires_grad_()

    cases = [{"image": image, "mask": torch.randint(CHANNELS, image.shape).byte()} for image in images]
    data = CaseDataset(cases, [], augmentation=augmentation(size=size), along=("mask",))
    epochs = itertools.count(1)

    def augment() -> None:
        data.set_epoch(next(epochs))
        for index in range(batch):
            data[index]

    def step(logits: Callable[[], torch.Tensor]) -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits().flatten(0, 1), masks).backward()
        optimiser.step()

    return {
        WHOLE: lambda: step(lambda: network(images)),
        KEPT: lambda: step(lambda: part.logits([tensor.float() for tensor in kept], network)),
        DECODER: lambda: step(lambda: network.readout(Features(tokens, before.addend))),
        AUGMENT: augment,
    }, sum(tensor.nbytes for tensor in kept) / batch / 1e6


def measure(size: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds per case of each kind of step, medians, and ratios to the decoder's own."""
    steps, megabytes = steps_of(size, settings["batch_size"], settings["blocks"])
    taken: dict[str, list[float]] = {kind: [] for kind in steps}
    order = random.Random(settings["seed"])
    for turn in range(settings["turns"] + 1):
        for kind in order.sample(list(steps), len(steps)):
            started = time.process_time()
            steps[kind]()
            if turn:  # the first one warms up
                taken[kind].append(1e3 * (time.process_time() - started) / settings["batch_size"])
    taken[WITH_IMAGES] = [sum(both) for both in zip(taken[WHOLE], taken[AUGMENT], strict=True)]
    ratios = {
        "augmenting_and_whole_over_kept": (WITH_IMAGES, KEPT),
        "whole_over_kept": (WHOLE, KEPT),
        "whole_over_decoder": (WHOLE, DECODER),
        "kept_over_decoder": (KEPT, DECODER),
    }
    return {
        "megabytes_kept_per_image": round(megabytes, 3),
        "milliseconds_per_case": {kind: statistics.median(values) for kind, values in taken.items()},
        **{name: ratio([taken[kind] for kind in kinds]) for name, kinds in ratios.items()},
    }


def ratio(values: list[list[float]]) -> dict[str, float]:
    """Median and quartiles of the ratios of two lists, turn by turn."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(*values, strict=True)], n=4)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["small", "fine"])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=2, help="last blocks with adapters, 0 for all")
    parser.add_argument("--turns", type=int, default=20, help="steps of each kind that are timed")
    parser.add_argument("--seed", type=int, default=0)
    settings = vars(parser.parse_args())
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    found = {size: measure(size, settings) for size in settings["sizes"]}
    write_json(RESULT, {"settings": settings, "machine": machine(), "sizes": found})
    for size, row in found.items():
        taken = "  ".join(f"{kind} {value:.0f} ms" for kind, value in row["milliseconds_per_case"].items())
        print(
            f"{size:6} {taken}  kept features save {1 - 1 / row['whole_over_kept']['median']:.0%} of a step, ", end=""
        )
        print(f"and at most {1 - 1 / row['whole_over_decoder']['median']:.0%} could be saved")


if __name__ == "__main__":
    main()
