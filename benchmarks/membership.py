"""What a server can tell of who trains at a site, from all that the site sends: membership, with and without a budget.

Sites of 96 lesions each, made from the dermatoscopy centres of Fed-ISIC2019 in the folder that MONAI_FEDLORA_REAL_DATA
names, run a federation; every site is attacked in turn with its own lesions and as many others of the same centre
(`monai_fedlora.auditing.server_view` says how). Sites are those of the package, with their ledgers and noise; the
attacker reads what the server decodes. Figures are means over sites and seeds; intervals draw sites and seeds, and
lesions within. The attacks were settled on seed 0, which is in no figure.

    python benchmarks/membership.py
    python benchmarks/membership.py --runs none,epsilon --seeds 1
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _auroc import auroc_of
from _machine import machine
from _membership.centres import Candidates, deal, prepared
from _real_data import add_source, fed_isic

from monai_fedlora.auditing.server_view import Server, scores
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import cache_folder
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.seen_rounds import SeenRound
from monai_fedlora.files import make_folder, read_json, write_json
from monai_fedlora.networks.catalogue import demo_weights
from monai_fedlora.networks.pinned import pin_backbone
from monai_fedlora.privacy.privacy_settings import PrivacySettings

ROOT = Path(__file__).parent
BUNDLE, SIZE = "image_2d_fedopal_classification", "vit_demo"
EPSILON = "epsilon"
RUNS = {"none": {}, "int8": {"wire_dtype": "int8"}, EPSILON: {}}
"""What differs between the runs. One in int8 under the budget could tell no more: it rounds what is private already."""


def plan_of(run: str, settings: Mapping[str, Any], data: Path, sites: list[str], seed: int) -> Plan:
    """The experiment."""
    budget = {name: settings[name] for name in ("epsilon", "delta", "clip")}
    return Plan(
        experiment="membership",
        bundle=BUNDLE,
        method=settings["method"],
        method_args={"blocks": settings["blocks"]},
        sites=tuple(sites),
        classes=tuple(load_datalist(data / sites[0] / "datalist.json").classes),
        rounds=settings["rounds"],
        local_epochs=settings["local_epochs"],
        size=SIZE,
        backbone_sha256=pin_backbone(SIZE, str(demo_weights(SIZE))),
        seed=seed,
        declared_cases=dict.fromkeys(sites, settings["cases"]),
        training={
            "batch_size": settings["batch_size"], "learning_rate": settings["learning_rate"], "warmup_epochs": 0,
            "augment": False, "cache_features": True, "class_weights": settings["class_weights"],
        },
        privacy=PrivacySettings(**budget) if run == EPSILON else None,
        **RUNS[run],
    )  # fmt: skip


def run_seen(plan: Plan, source: Installed, folder: Path) -> tuple[list[SeenRound], Any]:
    """Run all rounds; what the server has sent and received, and the network as it began."""
    start = source.start(plan)
    sites = {name: Site(name=name, plan=plan, private_root=folder, source=source, alone=False) for name in plan.sites}
    network = copy.deepcopy(source.network(plan, plan.build_method()))
    average, shared, seen = SharedAverage.of(plan, start.manifest), start.shared, []
    for number in range(plan.rounds):
        average.begin(number, shared)
        answers = {}
        for name, site in sites.items():
            update = site.train_round(number, shared)
            answers[name] = update.opened(start.manifest.up, shared).tensors
            average.accept(name, update)
        seen.append(SeenRound(shared, answers))
        shared = average.aggregate()
    return seen, network


def attacked(run: str, settings: Mapping[str, Any], data: Path, candidates: Mapping[str, Candidates], seed: int) -> Any:
    """By site and attack, the scores of members and of others."""
    plan = plan_of(run, settings, data, sorted(candidates), seed)
    with tempfile.TemporaryDirectory() as folder:
        seen, network = run_seen(plan, Installed(data_root=str(data)), Path(folder))
    found = {}
    for site, asked in candidates.items():
        by_attack = scores(Server(plan, network, asked.images, asked.labels), seen, site)
        found[site] = {
            name: {"members": values[asked.member].tolist(), "others": values[~asked.member].tolist()}
            for name, values in by_attack.items()
        }
    return found


def figures(cells: list[dict[str, Any]], *, draws: int) -> dict[str, Any]:
    """By attack: mean AUC over sites and seeds with its interval, and those of each."""
    targets = [found for cell in cells for found in cell.values()]
    table: dict[str, Any] = {}
    for attack in targets[0]:
        pairs = [tuple(np.array(found[attack][side]) for side in ("members", "others")) for found in targets]
        random, drawn = np.random.default_rng(0), []
        for _ in range(draws):
            some = [pairs[place] for place in random.integers(len(pairs), size=len(pairs))]
            drawn.append(np.mean([auroc_of(*(random.choice(side, len(side)) for side in pair)) for pair in some]))
        each = [auroc_of(*pair) for pair in pairs]
        low, high = np.percentile(drawn, [2.5, 97.5])
        table[attack] = {
            "auc": round(float(np.mean(each)), 3), "interval_95": [round(float(low), 3), round(float(high), 3)],
            "each": [round(value, 3) for value in each],
        }  # fmt: skip
    return table


def main() -> None:
    """Run from the command line and write the result; what was stopped goes on at its run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=lambda text: text.split(","), default=list(RUNS), help="between commas")
    parser.add_argument("--method", default="dual_lora", help="(default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=2, help="last ones, with adapters (default: %(default)s)")
    parser.add_argument("--cases", type=int, default=96, help="lesions of a site (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--local-epochs", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="(default: %(default)s)")
    parser.add_argument(
        "--class-weights", type=lambda text: [float(part) for part in text.split(",")], default=[1.0, 3.0],
        help="of benign and other lesions, the same at every centre (default: 1,3)",
    )  # fmt: skip
    parser.add_argument("--epsilon", type=float, default=8.0, help="(default: %(default)s)")
    parser.add_argument("--delta", type=float, default=1e-5, help="(default: %(default)s)")
    parser.add_argument("--clip", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--draws", type=int, default=1000, help="(default: %(default)s)")
    add_source(parser)
    parser.add_argument("--work", type=Path, help="folder for what is computed on the way (default: in the cache)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "membership.json")
    settings = vars(parser.parse_args())
    output, work, source = (settings.pop(name) for name in ("output", "work", "source"))
    source = fed_isic(source)
    torch.set_num_threads(1)
    work = work or cache_folder() / "membership"
    make_folder(work)
    whole = prepared(source, work)
    told = {name: value for name, value in settings.items() if name not in ("runs", "seeds", "draws")}
    place = work / hashlib.sha256(json.dumps([told, str(source)], sort_keys=True).encode()).hexdigest()[:16]
    found: dict[str, list[dict[str, Any]]] = {run: [] for run in settings["runs"]}
    for seed in range(1, settings["seeds"] + 1):
        data, candidates = place / f"data-{seed}", None
        for run in settings["runs"]:
            path = place / f"{run}-{seed}.json"
            if not path.is_file():
                candidates = candidates or deal(whole, data, cases=settings["cases"], seed=seed, size=SIZE)
                write_json(path, attacked(run, settings, data, candidates, seed))
            found[run].append(dict(read_json(path)))
            print(run, seed, {k: v["auc"] for k, v in figures(found[run][-1:], draws=1).items()}, flush=True)
    table = {run: figures(cells, draws=settings["draws"]) for run, cells in found.items()}
    write_json(
        output,
        {"settings": settings, "machine": machine(), "sites": sorted(next(iter(found.values()))[0]), "runs": table},
    )
    for run, rows in table.items():
        for attack, row in rows.items():
            print(f"{run:14}{attack:24}{row['auc']:.3f} {row['interval_95']}")


if __name__ == "__main__":
    main()
