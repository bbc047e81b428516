"""Ways to tell unusual images, by what each of them tells of the patients behind it and by what it detects.

Each split draws a federation of the demonstration's kind from a pool of synthetic patients: members of every site and,
from the same scanner, patients that had no part in anything. The federation is trained, and every way is tried on each
site's model: how well the distance and every number that would be shipped tell members from the others, and which share
of other images lies beyond the threshold. Some kinds of foreign content chose the directions, others did not.

    python benchmarks/unusual.py --splits 5
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _policy import allow_small_sites
from _runs import plan_of
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn.functional import avg_pool3d

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME, load_datalist
from monai_fedlora.data.site import PhantomSettings, phantom_data
from monai_fedlora.exporting.attacks import roc_area
from monai_fedlora.exporting.cine_modality import Cine
from monai_fedlora.exporting.directions import QUANTILE, Directions, PublicFeatures, find_directions
from monai_fedlora.exporting.finished import find_backbone, read_finished, rebuild
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.public_images import public_features, public_images
from monai_fedlora.exporting.published_means import closeness, cross_scored, inner_product, likelihood_ratio
from monai_fedlora.exporting.reference import fit_reference
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import load_tensors, save_tensors, write_json
from monai_fedlora.networks.head_inputs import head_inputs, joined

ROOT = Path(__file__).parent
POOL, TRAINING, VALIDATION, TEST, SHOWN = 160, 32, 12, 20, 24
POOL_SEED, NOISE_DRAWS = 7, 5
MEMBERS = ("training", "validation")


def _levels(image: Tensor) -> Tensor:
    return (image - image.amin()) / (image.amax() - image.amin()).clamp(min=1e-6)


def middle_slices(count: int) -> Callable[[Tensor], Tensor]:
    """Of a stack."""
    return lambda image: image[..., max((image.shape[-1] - count) // 2, 0) :][..., :count]


def equalised(image: Tensor) -> Tensor:
    """Every grey level as often as any other."""
    return 1000 * image.flatten().argsort().argsort().reshape(image.shape) / image.numel()


def blurred(image: Tensor) -> Tensor:
    """Out of focus in plane."""
    return avg_pool3d(image[None], (9, 9, 1), stride=1, padding=(4, 4, 0))[0]


def noisy(image: Tensor) -> Tensor:
    """With noise as large as the contrast."""
    generator = torch.Generator().manual_seed(image.numel())
    return (image + 0.9 * image.std() * torch.randn(image.shape, generator=generator)).abs()


def late_enhancement(image: Tensor) -> Tensor:
    """Dark muscle, bright fat, and nothing that moves."""
    generator = torch.Generator().manual_seed(image.numel())
    still = 1000 * _levels(image[:1]) ** 2.5
    return still.expand_as(image) + 5 * torch.rand(image.shape, generator=generator)


OTHER_KINDS = {
    "two slices": middle_slices(2),
    "five slices": middle_slices(5),
    "equalised contrast": equalised,
    "blurred": blurred,
    "noisy": noisy,
    "late enhancement": late_enhancement,
}


# ---- images and models ----------------------------------------------------------------------------------


def draw(split: int, site: str, pool: Datalist) -> dict[str, tuple[Case, ...]]:
    """Who is a member of what in a split."""
    generator = np.random.default_rng([split, int(site.rpartition("-")[2])])
    cases = [pool.training[place] for place in generator.permutation(len(pool.training))]
    edges = np.cumsum([0, TRAINING, VALIDATION, TEST, len(cases)])
    names = ("training", "validation", "test", "outside")
    return {name: tuple(cases[a:b]) for name, a, b in zip(names, edges, edges[1:], strict=False)}


def features_of(split: int, job: str, workspace: Path) -> dict[str, dict[str, Tensor]]:
    """By site, what the heads of its personal model read of members, others, other scanners and foreign content."""
    plan = dataclasses.replace(plan_of(job), seed=split, experiment=f"split_{split}")
    files = {site: workspace / f"split-{split}-{site}.safetensors" for site in plan.sites}
    if all(file.is_file() for file in files.values()):
        return {site: load_tensors(file)[0] for site, file in files.items()}
    settings = PhantomSettings(training=POOL, validation=0, test=0, seed=POOL_SEED)
    pools = {site: load_datalist(phantom_data(site, settings=settings)) for site in plan.sites}
    groups = {site: draw(split, site, pool) for site, pool in pools.items()}
    with tempfile.TemporaryDirectory() as scratch:
        for site, pool in pools.items():
            own = {name: cases for name, cases in groups[site].items() if name != "outside"}
            write_json(Path(scratch) / "data" / site / FILE_NAME, dataclasses.replace(pool, **own).to_json())
        run_in_process(plan, folder=Path(scratch) / "run", data_root=str(Path(scratch) / "data"))
        for site in plan.sites:
            model = read_finished(Path(scratch) / "run", site)
            network, modality = rebuild(model, find_backbone(plan, None)), modality_of(plan)
            merge_lora(network)
            save_tensors(files[site], seen_by(network, modality, site, pools, groups))
            print(f"split {split}, {site}: features kept", flush=True)
    return {site: load_tensors(file)[0] for site, file in files.items()}


def seen_by(
    network: Any,
    modality: Any,
    site: str,
    pools: Mapping[str, Datalist],
    groups: Mapping[str, Mapping[str, Sequence[Case]]],
) -> dict[str, Tensor]:
    """``<group>`` and ``public ordinary/<device>``, ``public foreign/<kind>``: (n, D)."""
    preprocessor = modality.preprocessor().eval()

    def run(cases: Sequence[Case], pool: Datalist, change: Callable[[Tensor], Tensor] = lambda image: image) -> Tensor:
        items = dataclasses.replace(pool, training=tuple(cases)).items("training")
        rows = []
        with torch.no_grad(), head_inputs(network) as inputs:
            for item in items:
                image, *rest = modality.inputs(item)
                network(preprocessor(change(image)[None].float(), *(part[None] for part in rest)))
                rows.append(joined(inputs))
        return torch.cat(rows)

    found = {name: run(cases, pools[site]) for name, cases in groups[site].items()}
    shown = groups[site]["outside"][:SHOWN]
    for other, pool in pools.items():
        if other != site:
            found[f"scanner/{other}"] = run(groups[other]["outside"][:SHOWN], pool)
    for kind, change in {**Cine.foreign, **OTHER_KINDS}.items():
        found[f"content/{kind}"] = run(shown, pools[site], change)
    public = public_features(network, public_images("cine"), modality)
    for name in ("ordinary", "foreign"):
        found |= {f"public {name}/{group}": rows for group, rows in getattr(public, name).items()}
    return found


# ---- ways to tell unusual images ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way, fitted for one model.

    Attributes:
        distance: (n,) of features (n, D).
        threshold: beyond which an image is called unusual.
        members: the groups behind its numbers; empty where there are no patients behind them.
        mean: the vector that is shipped, and of how many patients; None where there is none.
        project: what single cases are compared with it in.
    """

    distance: Callable[[Tensor], Tensor]
    threshold: float
    members: tuple[str, ...] = ()
    mean: tuple[Tensor, int] | None = None
    project: Callable[[Tensor], Tensor] = lambda features: features


def upper(distances: Tensor) -> float:
    """The smallest distance that at least :data:`QUANTILE` of n + 1 exchangeable cases stay within."""
    ordered = distances.sort().values
    return float(ordered[min(math.ceil((len(ordered) + 1) * QUANTILE), len(ordered)) - 1])


def described(features: Tensor, *, diagonal: bool = False) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Mean, and Mahalanobis distance from it with the shrunk covariance or the variances alone."""
    values = features.double()
    mean = values.mean(dim=0)
    covariance = torch.diag(values.var(dim=0)) if diagonal else torch.from_numpy(ledoit_wolf(values.numpy())[0])
    metric = torch.linalg.inv(covariance)
    return mean, lambda new: (((new.double() - mean) @ metric) * (new.double() - mean)).sum(dim=1).clamp(min=0).sqrt()


def mahalanobis(seen: Mapping[str, Tensor], *, diagonal: bool = False) -> Way:
    """Mean and covariance of the training cases; the threshold is cross-fitted, as bundles without a form have it."""
    training = seen["training"]
    mean, distance = described(training, diagonal=diagonal)
    apart = [distance(seen["validation"])]
    for fold in range(5):
        inside = torch.arange(len(training)) % 5 != fold
        apart.append(described(training[inside], diagonal=diagonal)[1](training[~inside]))
    return Way(distance=distance, threshold=upper(torch.cat(apart)), members=("training",), mean=(mean, len(training)))


def devices(seen: Mapping[str, Tensor], *, without: str | None = None) -> PublicFeatures:
    """The public features, without a device's."""
    parts = {}
    for name in ("ordinary", "foreign"):
        prefix = f"public {name}/"
        parts[name] = {
            key.removeprefix(prefix): rows
            for key, rows in seen.items()
            if key.startswith(prefix) and not (without and key.endswith(f" {without}"))
        }
    return PublicFeatures(**parts)


def phantoms_alone(seen: Mapping[str, Tensor], site: str) -> Way:
    """Phantoms of the site's own scanner: no patients at all."""
    own = devices(seen).ordinary[f"phantom {site}"]
    _, distance = described(own)
    folds = [torch.arange(len(own)) % 4 == fold for fold in range(4)]
    apart = torch.cat([described(own[~fold])[1](own[fold]) for fold in folds])
    return Way(distance=distance, threshold=upper(apart))


def directions(seen: Mapping[str, Tensor], site: str, *, seed: int | None, own: bool = True, most: int = 8) -> Way:
    """As exported (a seed of the noise) or with the exact mean and quantile (None)."""
    public = devices(seen, without=None if own else site)
    if seed is None:
        return exact(seen, find_directions(public, most=most))
    found = fit_reference(
        Evidence(
            features={name: seen[name] for name in MEMBERS},
            units={name: torch.arange(len(seen[name])) for name in MEMBERS},
        ),
        public,
        description="",
        generator=torch.Generator().manual_seed(seed),
    )
    return Way(
        distance=found.distances,
        threshold=found.threshold,
        members=MEMBERS,
        mean=(found.location.double(), found.patients),
        project=lambda features: features.double() @ found.directions.double(),
    )


def exact(seen: Mapping[str, Tensor], found: Directions) -> Way:
    """The same directions, and numbers without noise."""
    members = torch.cat([seen[name] for name in MEMBERS]).double() @ found.matrix
    mean = members.mean(dim=0)

    def distance(features: Tensor) -> Tensor:
        return (features.double() @ found.matrix - mean).norm(dim=1)

    return Way(
        distance=distance,
        threshold=upper((members - mean).norm(dim=1)),
        members=MEMBERS,
        mean=(mean, len(members)),
        project=lambda features: features.double() @ found.matrix,
    )


WAYS: dict[str, Callable[[Mapping[str, Tensor], str, int], Way]] = {
    "mean and precision of training cases": lambda seen, site, seed: mahalanobis(seen),
    "mean and variances of training cases": lambda seen, site, seed: mahalanobis(seen, diagonal=True),
    "phantoms of the site's scanner, no patients": lambda seen, site, seed: phantoms_alone(seen, site),
    "public directions, exact numbers": lambda seen, site, seed: directions(seen, site, seed=None),
    "public directions, noise (exported)": lambda seen, site, seed: directions(seen, site, seed=seed),
    "the same, scanner not among the phantoms": lambda seen, site, seed: directions(seen, site, seed=seed, own=False),
}


# ---- what they tell and what they find ------------------------------------------------------------------


def attacked(way: Way, seen: Mapping[str, Tensor]) -> dict[str, float]:
    """AUC of every attack on the way's distance and numbers; members against patients that had no part in anything."""
    if not way.members:
        members = torch.cat([seen[name] for name in MEMBERS])
    else:
        members = torch.cat([seen[name] for name in way.members])
    others = torch.cat([seen["test"], seen["outside"]])
    units = torch.arange(len(others))
    pairs = {
        "distance": (-way.distance(members), -way.distance(others)),
        "threshold": tuple(-(way.distance(rows) - way.threshold).abs() for rows in (members, others)),
    }
    if way.mean is not None:
        mean, count = way.mean
        scores = {
            "tracing": inner_product(mean),
            "likelihood ratio": likelihood_ratio(mean, count),
            "closeness": closeness(mean),
        }
        for name, score in scores.items():
            pairs[name] = cross_scored(score, way.project(members).double(), way.project(others).double(), units)
    return {name: roc_area(*(scores.double() for scores in pair)) for name, pair in pairs.items()}


def flagged(way: Way, seen: Mapping[str, Tensor]) -> dict[str, float]:
    """Share beyond the threshold, by what the images are."""
    found = {"own scanner, others": seen["outside"]}
    scanners = [rows for name, rows in seen.items() if name.startswith("scanner/")]
    found["another scanner"] = torch.cat(scanners)
    found |= {name.removeprefix("content/"): rows for name, rows in seen.items() if name.startswith("content/")}
    return {name: float((way.distance(rows) > way.threshold).double().mean()) for name, rows in found.items()}


def with_limits(values: Sequence[float]) -> dict[str, Any]:
    """Mean over splits and sites with its 95 % interval (normal)."""
    mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    half = 1.96 * spread / math.sqrt(len(values))
    return {"mean": round(mean, 4), "interval_95": [round(mean - half, 4), round(mean + half, 4)]}


def run(settings: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """Every way on every site of every split."""
    told: dict[str, dict[str, list[float]]] = {name: {} for name in WAYS}
    detected: dict[str, dict[str, list[float]]] = {name: {} for name in WAYS}
    for split in range(settings["splits"]):
        features = features_of(split, settings["job"], workspace)
        for site, seen in features.items():
            for name, way in WAYS.items():
                draws = [way(seen, site, 1000 * split + 10 * int(site[-1]) + draw) for draw in range(NOISE_DRAWS)]
                for values, measure in ((told[name], attacked), (detected[name], flagged)):
                    rows = [measure(each, seen) for each in draws]
                    for key in rows[0]:
                        values.setdefault(key, []).append(statistics.fmean(row[key] for row in rows))
    ways = {}
    for name in WAYS:
        attacks = {key: with_limits(values) for key, values in told[name].items()}
        strongest = max(attacks, key=lambda key: attacks[key]["mean"])
        ways[name] = {
            "attacks": attacks,
            "strongest": {"name": strongest, **attacks[strongest]},
            "beyond_the_threshold": {key: round(statistics.fmean(v), 4) for key, v in detected[name].items()},
        }
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="dual_lora", help="one of nvflare_jobs with four sites of hearts")
    parser.add_argument("--splits", type=int, default=5, help="federations, of four sites each (default: 5)")
    parser.add_argument("--workspace", type=Path, help="keeps features, so that a stopped run goes on")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "unusual_dual_lora.json")
    args = parser.parse_args()
    settings = {"job": args.job, "splits": args.splits}
    allow_small_sites()  # few of a drawn site's patients can be normal, and count much
    with tempfile.TemporaryDirectory() as scratch:
        ways = run(settings, args.workspace or Path(scratch))
    for name, way in ways.items():
        strongest = way["strongest"]
        print(f"{name}: {strongest['name']} {strongest['mean']:.3f} {strongest['interval_95']}")
        print("   ", {key: round(value, 2) for key, value in way["beyond_the_threshold"].items()})
    kinds = {"chose the directions": list(Cine.foreign), "did not": list(OTHER_KINDS)}
    write_json(args.output, {"settings": settings, "kinds": kinds, "machine": machine(), "ways": ways})


if __name__ == "__main__":
    main()
