"""What malicious sites do to the others, by rule of averaging, on eight sites made from four real dermatoscopy centres.

Reads Fed-ISIC2019 from the folder that MONAI_FEDLORA_REAL_DATA names. The lesions of each centre are dealt into two
sites; two of the eight are malicious, others in each seed. Every attack meets every rule, on factors or on products,
and is compared with the same rule's run in which the two are honest: by the accuracy of the honest sites' shared and
personal models, and by the share of their photographs that a trigger turns into the class it is for. Sites train on
kept outputs of the frozen blocks. Finished runs lie in a folder outside the project; a start that was stopped goes on
after them. The result holds accuracies alone.

    python benchmarks/poisoning.py
    python benchmarks/poisoning.py --seeds 1 --federations fedit:factors --rules mean,median --output build/run.json
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _machine import machine
from _poisoning.attacks import ABSENT, ATTACKS, NONE
from _poisoning.federation import VIEWS, Kept, Training, network, plan_of, run
from _poisoning.skin import Sites, eight_sites
from _real_data import add_source, fed_isic

from monai_fedlora.data.site import cache_folder
from monai_fedlora.files import make_folder, read_json, write_json

ROOT = Path(__file__).parent
USUAL_BOUND = 5.0
RULES: Mapping[str, tuple[str, str, float]] = {
    "mean": ("factors", "product", USUAL_BOUND),
    "clipped_mean": ("factors", "product", 1.0),
    "median": ("median", "product_median", USUAL_BOUND),
    "trimmed_mean": ("trimmed_mean", "product_trimmed_mean", USUAL_BOUND),
    "geometric_median": ("geometric_median", "product_geometric_median", USUAL_BOUND),
    "multi_krum": ("multi_krum", "product_multi_krum", USUAL_BOUND),
}
"""By name: its ``averaging`` of factors and of products, and ``update_bound``."""
FORMS = ("factors", "products")
FEDERATIONS = "dual_lora:factors,fedopal:products"
MALICIOUS = (("centre-1a", "centre-3a"), ("centre-2a", "centre-5a"), ("centre-2b", "centre-3b"))
"""By seed, in turns."""


class Place(NamedTuple):
    """One run."""

    seed: int
    method: str
    form: str
    rule: str
    attack: str


def places(settings: Mapping[str, Any]) -> Iterator[Place]:
    """All runs, a seed after the other; that sites are absent is tried with the mean alone."""
    rules, federations = settings["rules"].split(","), settings["federations"].split(",")
    for seed, federation, rule, attack in itertools.product(range(settings["seeds"]), federations, rules, ATTACKS):
        if attack != ABSENT or rule == "mean":
            yield Place(seed, *federation.split(":"), rule, attack)


def run_all(settings: Mapping[str, Any], sites: Sites, work: Path) -> dict[Place, Any]:
    """What is missing of the runs; each is written down when it has ended."""
    training = Training(**{name: settings[name] for name in ("epochs", "learning_rate", "batch_size")})
    fixed = {key: value for key, value in settings.items() if key not in ("seeds", "federations", "rules", "kept_bits")}
    mark = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]
    found: dict[Place, Any] = {}
    for seed, group in itertools.groupby(places(settings), key=lambda place: place.seed):
        opened = network(settings["size"], seed)
        kept = Kept(opened)
        for place in group:
            path = work / "runs" / mark / f"{'-'.join(map(str, place))}.json"
            if not path.is_file():
                *averaging, bound = RULES[place.rule]
                started = time.process_time()
                plan = plan_of(
                    sites, opened, method=place.method, rule=averaging[FORMS.index(place.form)], bound=bound, seed=seed,
                    rounds=settings["rounds"],
                )  # fmt: skip
                malicious = MALICIOUS[seed % len(MALICIOUS)]
                told = run(plan, sites, kept, attack=ATTACKS[place.attack], malicious=malicious, training=training)
                write_json(path, {**told, "seconds": round(time.process_time() - started, 2)})
                print(*place, told, flush=True)
            found[place] = read_json(path)
    return found


def rounded(settings: Mapping[str, Any], runs: Mapping[Place, Mapping[str, Any]], sites: Sites) -> dict[str, Any]:
    """What rounding at the sites' gates costs without an attack: by kept bits and view, accuracy less that without.

    It is measured with the mean in the first of the federations, by seed.
    """
    training = Training(**{name: settings[name] for name in ("epochs", "learning_rate", "batch_size")})
    method, form = settings["federations"].split(",")[0].split(":")
    found: dict[str, Any] = {}
    for seed in range(settings["seeds"]):
        opened = network(settings["size"], seed)
        averaging = RULES["mean"][FORMS.index(form)]
        plan = plan_of(
            sites, opened, method=method, rule=averaging, bound=USUAL_BOUND, seed=seed, rounds=settings["rounds"]
        )
        usual = runs[Place(seed, method, form, "mean", NONE)]["accuracy"]
        kept, malicious = Kept(opened), MALICIOUS[seed % len(MALICIOUS)]
        for bits in map(int, settings["kept_bits"].split(",")):
            told = run(plan, sites, kept, attack=ATTACKS[NONE], malicious=malicious, training=training, kept_bits=bits)
            for view in VIEWS:
                change = round(told["accuracy"][view] - usual[view], 4)
                found.setdefault(str(bits), {}).setdefault(view, []).append(change)
    return found


def compared(runs: Mapping[Place, Mapping[str, Any]]) -> dict[str, Any]:
    """By method, form, rule and attack, means over seeds.

    Each has by view ``accuracy``, ``change`` to the same rule's run without an attack, ``success`` of the trigger and
    ``gain``, success above that of the run without; and ``clipped`` and ``refused`` answers. By seed are the changes.
    """
    table: dict[str, Any] = {}
    for place in runs:
        if place.seed:
            continue
        pairs = [
            (runs[other], runs[other._replace(attack=NONE)])
            for other in (place._replace(seed=seed) for seed in sorted({one.seed for one in runs}))
        ]
        row: dict[str, Any] = {}
        for view in VIEWS:
            changes = [round(own["accuracy"][view] - none["accuracy"][view], 4) for own, none in pairs]
            row[view] = {
                "accuracy": _mean(own["accuracy"][view] for own, _ in pairs),
                "change": _mean(changes),
                "change_by_seed": changes,
                "success": _mean(own["success"][view] for own, _ in pairs),
                "gain": _mean(own["success"][view] - none["success"][view] for own, none in pairs),
            }
        row |= {what: sum(own[what] for own, _ in pairs) for what in ("clipped", "refused")}
        table.setdefault(place.method, {}).setdefault(place.form, {}).setdefault(place.rule, {})[place.attack] = row
    return table


def judged(table: Mapping[str, Any]) -> dict[str, Any]:
    """By form and rule, over methods: what it costs without an attack, and the worst that any attack does.

    ``honest`` is its accuracy less the mean's without an attack; ``drop`` the largest loss of accuracy, ``gain`` the
    largest success of a trigger above clean, each of the methods' mean, by view.
    """
    found: dict[str, Any] = {}
    for form in FORMS:
        of_form = [forms[form] for forms in table.values() if form in forms]
        for rule in of_form[0] if of_form else ():
            row: dict[str, Any] = {}
            for view in VIEWS:
                attacks = [name for name in of_form[0][rule] if name not in (NONE, ABSENT)]
                drops = {name: -_mean(one[rule][name][view]["change"] for one in of_form) for name in attacks}
                gains = {
                    name: _mean(one[rule][name][view]["gain"] for one in of_form)
                    for name in attacks
                    if ATTACKS[name].backdoor
                }
                honest = [one[rule][NONE][view]["accuracy"] - one["mean"][NONE][view]["accuracy"] for one in of_form]
                worst, leads = max(drops, key=lambda name: drops[name]), max(gains, key=lambda name: gains[name])
                row[view] = {
                    "honest": _mean(honest),
                    "drop": drops[worst],
                    "by": worst,
                    "gain": gains[leads],
                    "gained_by": leads,
                }
            found.setdefault(form, {})[rule] = row
    return found


def _mean(values: Any) -> float:
    return round(statistics.fmean(values), 4)


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--size", default="vit_demo", help="a backbone for photographs (default: %(default)s)")
    parser.add_argument("--federations", default=FEDERATIONS, help="METHOD:FORM,... (default: %(default)s)")
    parser.add_argument("--rules", default=",".join(RULES), help="with the mean among them (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--kept-bits", default="5,3", help="to which gates round without attack (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="of a round (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.004, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument(
        "--training", type=int, default=40, help="photographs of a class at a site (default: %(default)s)"
    )
    parser.add_argument("--test", type=int, default=30, help="the same to test with (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for what is computed on the way (default: in the cache)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "poisoning.json")
    settings = vars(parser.parse_args())
    output, source, work = (settings.pop(name) for name in ("output", "source", "work"))
    source = fed_isic(source)
    torch.set_num_threads(1)
    work = work or cache_folder() / "poisoning"
    make_folder(work)
    print(f"what is computed on the way lies in {work}", flush=True)
    sites = eight_sites(
        source, work, size=settings["size"], most={name: settings[name] for name in ("training", "test")}
    )
    runs = run_all(settings, sites, work)
    table = compared(runs)
    verdict = judged(table)
    photographs = {site: {part: len(own.labels) for part, own in parts.items()} for site, parts in sites.items()}
    seconds = round(statistics.median(one["seconds"] for one in runs.values()), 1)
    write_json(
        output,
        {
            "settings": settings,
            "machine": machine(),
            "photographs": photographs,
            "malicious": [MALICIOUS[seed % len(MALICIOUS)] for seed in range(settings["seeds"])],
            "seconds_per_run": seconds,
            "runs": table,
            "verdict": verdict,
            "rounded": rounded(settings, runs, sites),
        },
    )
    for form, rules in verdict.items():
        for rule, views in rules.items():
            print(form, rule, views)


if __name__ == "__main__":
    main()
