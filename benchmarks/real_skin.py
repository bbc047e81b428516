"""What a backbone for photographs is worth on real skin: untrained, packaged, and pre-trained on the user's own images.

Reads Fed-ISIC2019 from the folder that MONAI_FEDLORA_REAL_DATA names, or any folder in its layout. Lesions are dealt
into two halves: on the photographs of one, whose labels are not read, a backbone is pre-trained as
`monai-fedlora pretrain --data` does; on the other, a logistic regression reads the frozen features of every backbone,
centre by centre, cross-validated with all photographs of a lesion on one side. Epochs, batch and learning rate are
those of the packaged backbone, so that the two differ in their photographs. The result holds balanced accuracies
alone. What is computed on the way, weights among it, lies in a folder outside the project, and a run that was stopped
goes on from there at the stage that it was in.

    python benchmarks/real_skin.py
    python benchmarks/real_skin.py --source FED_ISIC2019 --epochs 100 --work /scratch/skin --output build/skin.json
    python benchmarks/real_skin.py --also labelled=new_vit.safetensors --output build/skin.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from _machine import machine
from _real_data import add_source, fed_isic
from _real_skin.lesions import Centre, centre_of, figures, out_of_fold

import monai_fedlora as fl
from monai_fedlora.data.cases import SPLITS, Case, Datalist
from monai_fedlora.data.datalist import read_prepared, write_datalists
from monai_fedlora.data.site import cache_folder
from monai_fedlora.engines.config import preprocessing
from monai_fedlora.files import load_tensors, make_folder, save_tensors, sha256, write_json
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone

ROOT = Path(__file__).parent
PACKAGED, OWN = "packaged", "in_domain"
STYLE = "dermoscopy"
BATCH = 64


def halves(source: Path, work: Path, *, limit: int | None) -> tuple[Path, list[Datalist]]:
    """A prepared folder of one half of each centre's lesions, and the datalists with the other half."""
    whole, unlabelled = work / "whole", work / "unlabelled"
    if not unlabelled.is_dir():
        fl.prepare(
            "fed_isic2019", source=source, output=whole, fractions=(0.5, 0.0, 0.5), published_split=False, limit=limit,
            overwrite=True,
        )  # fmt: skip
        write_datalists([replace(site, test=()) for site in read_prepared(whole)], unlabelled, overwrite=True)
    return unlabelled, list(read_prepared(whole))


def images(sites: list[Datalist], work: Path, *, size: str) -> torch.Tensor:
    """(N, 3, H, W) of all test cases, one site after the other."""
    path = work / "images.safetensors"
    if not path.is_file():
        transform = preprocessing(size=size, style=STYLE)
        items = [transform(item) for site in sites for item in site.items("test")]
        save_tensors(path, {"image": torch.stack([torch.as_tensor(item["image"]) for item in items])})
    return load_tensors(path)[0]["image"]


def centres_of(sites: list[Datalist]) -> dict[str, Centre]:
    """The centres with two classes or more that can be cross-validated."""
    found, start = {}, 0
    for site in sites:
        cases: tuple[Case, ...] = site.test
        rows = range(start, start + len(cases))
        centre = centre_of(rows, [case.group for case in cases], [case.unit or case.subject for case in cases])
        if len(centre.classes) > 1:
            found[site.site] = centre
        start += len(cases)
    return found


def pretrained(data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """The backbone that has seen the unlabelled half alone."""
    path = work / "in_domain.safetensors"
    if not path.is_file():
        fl.pretrain(
            [data], output=path, size=settings["size"], styles=[STYLE], epochs=settings["epochs"],
            batch_size=settings["batch_size"], learning_rate=settings["learning_rate"], standardise=True,
            on_epoch=lambda epoch, loss: print(f"epoch {epoch} of {settings['epochs']}: {loss:.4f}", flush=True),
        )  # fmt: skip
    return path


@torch.inference_mode()
def features(pictures: torch.Tensor, *, size: str, weights: Path | None, seed: int = 0) -> np.ndarray:
    """What a linear head reads of every image, (N, D); an untrained backbone of a seed without weights."""
    torch.manual_seed(seed)
    network = build_backbone(size, out_chans=2)
    if not isinstance(network, VisionTransformer):
        raise SystemExit(f"{size} is no vision transformer for photographs")
    if weights is not None:
        load_backbone(network, weights, heads=False)
    network.eval()
    last = len(network.blocks) - 1
    rows = []
    for batch in pictures.split(BATCH):
        before = network.prefix(batch, last)
        rows.append(network.pool(before._replace(tokens=network.blocks[last](before.tokens))))
    return torch.cat(rows).double().numpy()


def kept(work: Path, name: str, weights: Path | None) -> Path:
    """Where the chances of an encoder lie: other weights of the same name have another place."""
    mark = f"_{sha256(weights)[:12]}" if weights else ""
    return work / f"chances_{name}{mark}.safetensors"


def chances_of(read: Callable[[], np.ndarray], centres: dict[str, Centre], path: Path) -> dict[str, np.ndarray]:
    """By centre, the chances of the classes that the probe of features gives to lesions that it has not seen."""
    if not path.is_file():
        known = read()
        save_tensors(path, {name: torch.from_numpy(out_of_fold(known[one.rows], one)) for name, one in centres.items()})
        print(f"{path.stem}: done", flush=True)
    return {name: value.numpy() for name, value in load_tensors(path)[0].items()}


def run(
    settings: dict[str, Any], *, source: Path, work: Path, also: Mapping[str, Path] = MappingProxyType({})
) -> dict[str, Any]:
    """Run what is missing of the stages; ``also`` names further weights of the same size, which are only read."""
    torch.set_num_threads(settings["threads"])
    started, size = time.perf_counter(), settings["size"]
    told = json.dumps([settings, str(source)], sort_keys=True)
    work = work / hashlib.sha256(told.encode()).hexdigest()[:16]
    make_folder(work)
    print(f"what is computed on the way lies in {work}", flush=True)
    unlabelled, sites = halves(source, work, limit=settings["limit"])
    pictures, centres = images(sites, work, size=size), centres_of(sites)
    if not centres:
        raise SystemExit("no centre has two classes of ten lesions or more; give more photographs")
    own = pretrained(unlabelled, work, settings)
    encoders: dict[str, tuple[Path | None, int]] = {OWN: (own, 0), PACKAGED: (demo_weights(size), 0)}
    encoders |= {name: (weights, 0) for name, weights in also.items()}
    encoders |= {f"untrained_{seed}": (None, seed) for seed in range(settings["untrained"])}
    found = {
        name: chances_of(
            partial(features, pictures, size=size, weights=weights, seed=seed),
            centres,
            kept(work, name, weights),
        )
        for name, (weights, seed) in encoders.items()
    }
    return {
        "settings": settings,
        "machine": machine(),
        "unlabelled": sum(len(site.cases(split)) for site in read_prepared(unlabelled) for split in SPLITS),
        "centres": {
            name: {"classes": list(centre.classes), "images": len(centre.labels)} for name, centre in centres.items()
        },
        "balanced_accuracy": figures(found, centres, against=PACKAGED),
        "seconds_of_last_start": round(time.perf_counter() - started),
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--size", default="vit_demo", help="a backbone for photographs (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="of the pre-training (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="of the pre-training (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the pre-training (default: %(default)s)")
    parser.add_argument("--untrained", type=int, default=2, help="untrained backbones beside it (default: %(default)s)")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FILE", help="further weights of that size")
    parser.add_argument("--limit", type=int, help="photographs of each centre (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for what is computed on the way (default: in the cache)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "real_skin.json")
    arguments = vars(parser.parse_args())
    output, source, work, also = (arguments.pop(name) for name in ("output", "source", "work", "also"))
    source = fed_isic(source)
    if wrong := [one for one in also if "=" not in one]:
        raise SystemExit(f"--also {wrong[0]} names no file; give NAME=FILE")
    further = {name: Path(file) for name, _, file in (one.partition("=") for one in also)}
    result = run(arguments, source=source, work=work or cache_folder() / "real_skin", also=further)
    for name, row in result["balanced_accuracy"].items():
        print(name, {key: f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for key, one in row.items()})
    write_json(output, result)


if __name__ == "__main__":
    main()
