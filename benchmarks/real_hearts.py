"""What a cine backbone is worth on real hearts that it has never seen: a linear probe, and its outlines.

Reads 80 patients of ACDC and 37 of Sunnybrook from the folder that MONAI_FEDLORA_REAL_DATA names. The probe is a
logistic regression on pooled features of the frozen encoder, cross-validated with inner folds for its penalty; beside
it stand untrained encoders and, as what measuring could tell at best, the same probe on numbers from the true masks,
as they are and after the way to a network's grid and back. A file with a decoder is also compared with the true masks.
The result holds figures over patients alone; prepared images lie in a temporary folder of the user's own.

    python benchmarks/real_hearts.py
    python benchmarks/real_hearts.py --size fine --weights backbone.safetensors --output build/fine.json
    python benchmarks/real_hearts.py --stages frames --weights backbone.safetensors --output build/frames.json
    python benchmarks/real_hearts.py --stages bounds --grids 48x48x8@3.3x3.3x10,80x80x12@2x2x10
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _real_data import REAL
from _real_hearts import ejection, features, frame_choices, from_masks, grids, outlines, patients, probing

from monai_fedlora.files import sha256, write_json
from monai_fedlora.networks.catalogue import architecture, demo_weights

ROOT = Path(__file__).parent
STAGES = ("probe", "bounds", "outlines", "frames")


def labels_of(some: list[patients.Patient]) -> np.ndarray:
    """(N,) class indices."""
    return np.array([patient.label for patient in some])


def probes(settings: dict[str, Any], weights: Path | None, acdc: list, sunnybrook: list) -> dict[str, Any]:
    """The probe of a file and of untrained encoders."""
    size = settings["size"]
    images = [features.prepared(some, size=size) for some in (acdc, sunnybrook)]
    labels = [labels_of(some) for some in (acdc, sunnybrook)]
    encoders: dict[str, tuple[Path | None, int]] = {"weights": (weights, 0)} if weights else {}
    encoders |= {f"untrained_{seed}": (None, seed) for seed in range(settings["untrained"])}
    found = {}
    for name, (file, seed) in encoders.items():
        network = features.encoder(size=size, weights=file, seed=seed)
        ours, theirs = (
            features.pooled(network, *pair, blocks=settings["blocks"], orders=settings["orders"]) for pair in images
        )
        inside = probing.probe(ours, labels[0])
        outside = probing.transfer(ours, labels[0], theirs, labels[1])
        print(f"{name}: ACDC {inside.told()}; on Sunnybrook {outside.told()}", flush=True)
        found[name] = {"acdc": inside.to_json(), "sunnybrook": outside.to_json()}
    return found


def bounds(settings: dict[str, Any], acdc: list, truths: list[grids.Truth]) -> dict[str, Any]:
    """What the true masks tell, as they are and after the way to each grid and back."""
    labels, found = labels_of(acdc), {}
    for grid in (None, *(grids.Grid.read(text) for text in settings["grids"])):
        name = str(grid or "files")
        masks = [truth.mask if grid is None else grids.round_trip(truth, grid) for truth in truths]
        rows = from_masks.of_patients(masks, [truth.spacing for truth in truths])
        found[name] = {key: probing.probe(values, labels) for key, values in rows.items()}
        for key, probed in found[name].items():
            print(f"true masks, {name}, {key}: {probed.told()}", flush=True)
        found[name] = {key: probed.to_json() for key, probed in found[name].items()}
        if grid is not None:
            found[name]["outlines"] = outlines.agreement(masks, truths)[0]
            print(f"  {told(found[name]['outlines'])}", flush=True)
    return found


def told(figures: dict[str, Any]) -> str:
    """Dice and ejection fraction in one line."""
    dice = ", ".join(f"{row['structure']} {row['phase']} {row['dice_mean']:.3f}" for row in figures["structures"])
    heart = figures["heart"].get("lv_ef")
    if heart is None:
        return f"Dice {dice}; no ejection fraction, since no left ventricle was found"
    return f"Dice {dice}; ejection fraction off by {heart['mean_absolute']:.1f} points (bias {heart['bias']:.1f})"


def outline(settings: dict[str, Any], weights: Path, by_name: dict[str, list], truths: dict[str, list]) -> dict:
    """Outlines of a file's decoder on both collections."""
    chosen = architecture(settings["size"])
    if chosen.spacing is None:
        raise SystemExit(f"{chosen.name} takes photographs")
    x, y, z = chosen.image_size
    grid = grids.Grid(image_size=(x, y, z), spacing=chosen.spacing)
    network = outlines.decoder(size=settings["size"], weights=weights)
    found: dict[str, Any] = {}
    measured: dict[str, dict[str, np.ndarray]] = {}
    for name, some in truths.items():
        masks = [outlines.outlined(network, truth, grid) for truth in some]
        figures, cases = outlines.agreement(masks, some)
        print(f"{name}: {told(figures)}", flush=True)
        print("  worst:", *outlines.worst(cases, labels_of(by_name[name])), sep="\n  ", flush=True)
        measured[name] = from_masks.of_patients(masks, [truth.spacing for truth in some])
        found[name] = figures | {"ejection_fraction_with_true": ejection.parts(masks, some)}
    return found | {"probe_of_numbers": numbers_probed(measured, by_name)}


def numbers_probed(measured: dict[str, dict[str, np.ndarray]], by_name: dict[str, list]) -> dict[str, Any]:
    """The probe on numbers from a decoder's own outlines, in place of an encoder's features."""
    labels = {name: labels_of(some) for name, some in by_name.items()}
    found = {}
    for key in from_masks.SETS:
        inside = probing.probe(measured["acdc"][key], labels["acdc"])
        outside = probing.transfer(
            measured["acdc"][key], labels["acdc"], measured["sunnybrook"][key], labels["sunnybrook"]
        )
        print(f"outlines, {key}: ACDC {inside.told()}; on Sunnybrook {outside.told()}", flush=True)
        found[key] = {"acdc": inside.to_json(), "sunnybrook": outside.to_json()}
    return found


def frames(
    settings: dict[str, Any], weights: Path | None, root: Path, truths: dict[str, list[grids.Truth]]
) -> dict[str, Any]:
    """End-diastole and end-systole by volumes, beside the choice by grey levels."""
    chosen = architecture(settings["size"])
    if chosen.spacing is None:
        raise SystemExit(f"{chosen.name} takes photographs")
    x, y, z = chosen.image_size
    grid = grids.Grid(image_size=(x, y, z), spacing=chosen.spacing)
    decodes = weights is not None and features.has_decoder(weights)
    network = outlines.decoder(size=settings["size"], weights=weights) if weights and decodes else None
    found: dict[str, Any] = {}
    for name, some in truths.items():
        found[name] = frame_choices.of_pairs(some, network, grid)
        print(f"{name}, ED of two frames: {found[name]}", flush=True)
    studies = sorted(folder for place in root.glob("*_dicom") for folder in place.iterdir() if folder.is_dir())
    found["cines"] = [frame_choices.of_cine(folder, network, grid) for folder in studies]
    for cine in found["cines"]:
        print(f"cine: {cine}", flush=True)
    return found


def run(settings: dict[str, Any], weights: Path | None) -> dict[str, Any]:
    """Run the chosen stages."""
    if REAL not in os.environ:
        raise SystemExit(f"set {REAL} to the folder with acdc and sunnybrook")
    torch.set_num_threads(settings["threads"])
    root, started = Path(os.environ[REAL]), time.perf_counter()
    by_name = {"acdc": patients.acdc(root), "sunnybrook": patients.sunnybrook(root)}
    stages = settings["stages"]
    result: dict[str, Any] = {"settings": settings, "machine": machine()}
    if weights:
        result["weights_sha256"] = sha256(weights)
    if "probe" in stages:
        result["probe"] = probes(settings, weights, *by_name.values())
    truths: dict[str, list] = {}
    if {"bounds", "frames"} & set(stages) or (weights and "outlines" in stages):
        truths["acdc"] = [grids.read(patient) for patient in by_name["acdc"]]
    if "bounds" in stages:
        result["bounds"] = bounds(settings, by_name["acdc"], truths["acdc"])
    if weights and "outlines" in stages:
        if features.has_decoder(weights):
            truths["sunnybrook"] = [grids.read(patient) for patient in by_name["sunnybrook"]]
            result["outlines"] = outline(settings, weights, by_name, truths)
        else:
            print(f"{weights.name} holds no decoder, so that it outlines nothing", flush=True)
    if "frames" in stages:
        if "sunnybrook" not in truths:
            truths["sunnybrook"] = [grids.read(patient) for patient in by_name["sunnybrook"]]
        result["frames"] = frames(settings, weights, root, truths)
    return {**result, "seconds": round(time.perf_counter() - started)}


def names(text: str) -> list[str]:
    """Stages from a command line."""
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in STAGES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(STAGES)}")
    return chosen


def numbers(text: str) -> list[int]:
    """Numbers separated by commas."""
    return [int(number) for number in text.split(",")] if text else []


def grid_names(text: str) -> list[str]:
    """Grids from a command line, written the same way whatever way they were given."""
    return [str(grids.Grid.read(one)) for one in text.split(",")]


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="a ConvViT's size (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="the encoder's file (default: the packaged one of the size)")
    parser.add_argument(
        "--stages", type=names, default=list(STAGES[:3]), help="of probe, bounds, outlines (default) and frames"
    )
    parser.add_argument("--blocks", type=numbers, default=[], help="inner blocks whose tokens are read too, from 1")
    parser.add_argument("--orders", type=int, default=1, help="orders of axes to average over (default: %(default)s)")
    parser.add_argument("--untrained", type=int, default=3, help="untrained encoders beside it (default: %(default)s)")
    parser.add_argument(
        "--grids",
        type=grid_names,
        default=["48x48x8@3.3x3.3x10", "96x96x10@2x2x10"],
        help="of the true masks' way there and back (default: those of small and fine)",
    )
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "real_hearts.json")
    arguments = vars(parser.parse_args())
    output, weights = arguments.pop("output"), arguments.pop("weights")
    result = run(arguments, weights or demo_weights(arguments["size"]))
    write_json(output, result)
    print(f"{result['seconds']} s, written to {output.name}")


if __name__ == "__main__":
    main()
