"""What a budget for privacy costs: accuracy on real skin at two centres, and the time of a noised step.

Accuracy: the dermatoscopy centres 1 and 2 of Fed-ISIC2019, whose units of privacy are lesions, from the folder that
MONAI_FEDLORA_REAL_DATA names, or any folder in its layout. `monai_fedlora.compare` runs each method without a budget
and with each epsilon beside sites that train alone, all with the same settings, class weights among them; under a
budget the private part, or a method without one as a whole, is trained after the last round for as many steps as a site
alone takes in all. Intervals draw lesions. What was stopped goes on at its cell, also when more seeds are asked for.

Time: on phantoms, with all features kept, a step of the bundle's own trainer and a noised one on the same cases take
turns in one process with one thread; the ratio is of the medians, the quartiles are of the ratios within the turns.

    python benchmarks/private_training.py
    python benchmarks/private_training.py --steps-alone --output build/steps.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _real_data import add_source, fed_isic
from monai.bundle import ConfigParser

import monai_fedlora as fl
from monai_fedlora.comparison.case_scores import read_scores
from monai_fedlora.comparison.runner import SCORES
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import CACHE, PhantomSettings, cache_folder, site_data
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.engines.noised_trainer import NoisedTrainer
from monai_fedlora.files import make_folder, write_json
from monai_fedlora.methods import get_method
from monai_fedlora.methods.build import UNTRAINED
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.randomness import Randomness
from monai_fedlora.resources import bundle_configs

ROOT = Path(__file__).parent
CENTRES = ("centre-1", "centre-2")
BUNDLE = "image_2d_fedopal_classification"
NONE, LOCAL = "no_budget", "local"
CHANCE = 0.5
STEPS = (
    ("vit_demo", BUNDLE, "dermoscopy", 32, "dual_lora"),
    ("vit_demo", BUNDLE, "dermoscopy", 32, "fedopal"),
    ("vit_demo", BUNDLE, "dermoscopy", 32, "ffa_lora"),
    ("vit_base_16", BUNDLE, "dermoscopy", 8, "dual_lora"),
    ("small", "cine_cmr_dual_lora_classification", "cine", 8, "dual_lora"),
)
"""Backbone, bundle, phantom, number of cases, which are one batch, and method of each measurement of time."""


def row(method: str, budget: str | float) -> str:
    """Name of a method's row of the comparison."""
    return f"{method}_{budget}" if isinstance(budget, str) else f"{method}_epsilon_{budget:g}"


def accuracy(settings: dict[str, Any], *, source: Path, work: Path) -> dict[str, Any]:
    """Compare on the real centres; what a run that was stopped has finished is kept in ``work``."""
    data = work / "data"
    if not data.is_dir():
        fl.prepare(
            "fed_isic2019", source=source, output=data, task="binary", published_split=False, limit=settings["limit"]
        )
    rounds = settings["rounds"]
    rows = {row(method, budget): method for method in settings["methods"] for budget in (NONE, *settings["epsilons"])}
    budget = {"dp_delta": settings["delta"], "dp_clip": settings["clip"], "fine_tune_epochs": rounds}
    training = {"batch_size": settings["batch_size"], "class_weights": settings["class_weights"]}
    compared = fl.compare(
        {**rows, LOCAL: LOCAL},
        output=work / "comparison",
        data=str(data),
        sites=list(CENTRES),
        seeds=settings["seeds"],
        rounds=rounds,
        bundle=BUNDLE,
        size="vit_demo",
        settings={**training, "learning_rate": settings["learning_rate"], "warmup_epochs": 0},
        method_settings={
            row(method, epsilon): {**budget, "dp_epsilon": epsilon}
            for method in settings["methods"]
            for epsilon in settings["epsilons"]
        },
    )
    if compared.failures:
        raise SystemExit(f"runs failed, so that the table says nothing: {compared.failures}")
    lists = {site: load_datalist(data / site / "datalist.json") for site in CENTRES}
    lesions = {site: len(set(unit_numbers(listed.training))) for site, listed in lists.items()}
    return {"training_lesions": lesions}


def step_cost(size: str, bundle: str, phantom: str, cases: int, method: str, *, turns: int) -> dict[str, Any]:
    """Seconds of a noised step over those of an ordinary one, on kept features of the same cases."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE] = cache
        kind = PhantomSettings if phantom == "cine" else PhotoPhantomSettings
        datalist = site_data("site-1", phantom=phantom, settings=kind(training=cases, validation=0, test=0))
        config = ConfigParser()
        config.read_config(bundle_configs(bundle))
        settings = {
            "dataset_dir": str(datalist.parent), "output_dir": str(datalist.parent / "run"), "size": size,
            "backbone": UNTRAINED, "method": method, "method_args": {}, "augment": False, "cache_features": True,
            "batch_size": cases, "class_weights": None, "val_interval": 0, "save_checkpoints": False,
            "show_progress": False, "trackers": [],
        }  # fmt: skip
        for key, value in settings.items():
            config[key] = value
        trainer = config.get_parsed_content("train::trainer")
        built = get_method(method)
        noised = NoisedTrainer(
            trainer,
            method=built,
            shared=built.scope(trainer.network).manifest.up.entries,
            mechanism=Mechanism(noise_multiplier=1.0, sample_rate=1, steps=1),
            clip=1.0,
            expected=cases,
            units=range(cases),
            randomness=Randomness(),
        )
        taken: dict[str, list[float]] = {"ordinary": [], "noised": []}
        for turn in range(turns + 2):
            for name, engine in (("ordinary", trainer), ("noised", noised)):
                started = time.process_time()
                engine.run_epochs(1)
                if turn > 1:  # features are made in the first turn, and memory is found
                    taken[name].append(time.process_time() - started)
    ratios = [other / one for one, other in zip(taken["ordinary"], taken["noised"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "size": size, "method": method, "cases": cases,
        "ordinary_ms": 1e3 * statistics.median(taken["ordinary"]),
        "noised_ms": 1e3 * statistics.median(taken["noised"]),
        "ratio": statistics.median(taken["noised"]) / statistics.median(taken["ordinary"]),
        "quartiles_of_ratios": [low, high],
    }  # fmt: skip


def figures(work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Balanced accuracies by method, budget and view: means over centres, classes and seeds, and differences.

    A method's gain is the shared model's balanced accuracy less that of guessing; ``kept`` is the share of the gain
    without a budget that is left with one. Lesions are drawn with replacement within their centre and class, the same
    ones for all rows.
    """
    files = sorted((work / "comparison" / SCORES).glob("*.csv"))
    scores = [score for path in files for score in read_scores(path) if score.seed < settings["seeds"]]
    places = {key: place for place, key in enumerate(sorted({(s.site, s.label, s.patient) for s in scores}))}
    strata: dict[tuple[str, str], list[int]] = {}
    for (site, label, _), place in places.items():
        strata.setdefault((site, label), []).append(place)
    models = sorted({(score.method, score.view) for score in scores})
    right, asked = (np.zeros((len(models), len(places))) for _ in range(2))
    for score in scores:
        at = models.index((score.method, score.view)), places[score.site, score.label, score.patient]
        right[at] += score.score or 0.0
        asked[at] += 1

    def balanced(counts: np.ndarray) -> np.ndarray:
        return np.mean([right[:, i] @ counts[i] / (asked[:, i] @ counts[i]) for i in strata.values()], axis=0)

    random = np.random.default_rng(0)
    values = [balanced(np.ones(len(places)))]
    for _ in range(settings["draws"]):
        counts = np.zeros(len(places))
        for i in strata.values():
            counts[i] = np.bincount(random.integers(len(i), size=len(i)), minlength=len(i))
        values.append(balanced(counts))
    of = dict(zip(models, np.array(values).T, strict=True))
    found: dict[str, Any] = {LOCAL: {"personal": {"balanced_accuracy": figure(of[LOCAL, "personal"])}}}
    for method in settings["methods"]:
        for budget in (NONE, *settings["epsilons"]):
            name = row(method, budget)
            entry = found.setdefault(method, {})[name.removeprefix(f"{method}_")] = {}
            for view in ("shared", "personal"):
                if (name, view) not in of:
                    continue
                drawn = of[name, view]
                entry[view] = {
                    "balanced_accuracy": figure(drawn),
                    "minus_local": figure(drawn - of[LOCAL, "personal"]),
                }
                if budget != NONE and (free := of.get((row(method, NONE), view))) is not None:
                    entry[view]["minus_no_budget"] = figure(drawn - free)
                    if view == "shared" and free[0] > CHANCE:
                        entry[view]["kept"] = round(float((drawn[0] - CHANCE) / (free[0] - CHANCE)), 2)
    return found


def figure(values: np.ndarray) -> dict[str, float]:
    """The first value, and the interval that 95 % of the others lie in."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return {"value": round(float(values[0]), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["dual_lora"], help="between commas")
    parser.add_argument("--epsilons", type=lambda text: [float(part) for part in text.split(",")], default=[8.0, 1.0])
    parser.add_argument("--delta", type=float, default=1e-5, help="(default: %(default)s)")
    parser.add_argument("--clip", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="(default: %(default)s)")
    parser.add_argument(
        "--class-weights", type=lambda text: [float(part) for part in text.split(",")], default=[1.0, 3.0],
        help="of benign and other lesions, the same at both centres (default: 1,3)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="photographs of each centre (default: all)")
    parser.add_argument("--turns", type=int, default=15, help="of the timing (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=1000, help="of lesions (default: %(default)s)")
    parser.add_argument("--steps-alone", action="store_true", help="measure the time of steps and no accuracy")
    parser.add_argument("--accuracy-alone", action="store_true", help="measure accuracy and no time")
    parser.add_argument("--work", type=Path, help="folder for what is computed on the way (default: in the cache)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "private_training.json")
    settings = vars(parser.parse_args())
    output, source, work, steps_alone, accuracy_alone = (
        settings.pop(name) for name in ("output", "source", "work", "steps_alone", "accuracy_alone")
    )
    result: dict[str, Any] = {"settings": settings, "machine": machine()}
    torch.set_num_threads(1)
    if not accuracy_alone:
        result["steps"] = [step_cost(*each, turns=settings["turns"]) for each in STEPS]
        for row in result["steps"]:
            print(row, flush=True)
    if not steps_alone:
        source = fed_isic(source)
        kept = {
            name: value for name, value in settings.items() if name not in ("methods", "epsilons", "seeds", "draws")
        }
        told = hashlib.sha256(json.dumps([kept, str(source)], sort_keys=True).encode()).hexdigest()[:16]
        place = (work or cache_folder() / "private_training") / told
        make_folder(place)
        result |= accuracy(settings, source=source, work=place)
        result["balanced_accuracy"] = figures(place, settings)
        print(json.dumps(result["balanced_accuracy"], indent=1))
    write_json(output, result)


if __name__ == "__main__":
    main()
