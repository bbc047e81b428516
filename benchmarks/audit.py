"""What the models of a run tell of who was behind them: `monai-fedlora audit` of every site, and the mean over sites.

Runs a job of ``nvflare_jobs`` in one process, on its synthetic cine studies or photographs or, with ``--real``, on
photographs of Fed-ISIC2019 from the folder that MONAI_FEDLORA_REAL_DATA names, and audits each site's model with cases
that no site had.

    python benchmarks/audit.py
    python benchmarks/audit.py --job fedopal --real
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _machine import machine
from _real_data import REAL
from _runs import plan_of

from monai_fedlora import cli
from monai_fedlora.auditing.membership import PHANTOM_OUTSIDE
from monai_fedlora.auditing.membership_audit import audit_model
from monai_fedlora.data.cases import SPLITS, Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME, read_prepared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.run_record import RESULTS_NAME
from monai_fedlora.files import read_json, write_json

ROOT = Path(__file__).parent


def unit(case: Case) -> str:
    """A case's lesion, or the case."""
    return case.unit or case.subject


def parts(full: Datalist, images: int, outside: int) -> tuple[Datalist, Datalist]:
    """About so many images of a site in whole lesions, and others of it that the site shall never have had."""
    units: dict[str, int] = {}
    for _, case in full.all_cases():
        units[unit(case)] = units.get(unit(case), 0) + 1
    own: set[str] = set()
    other: set[str] = set()
    counts = [images, outside]
    for name in sorted(units, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        place = 0 if counts[0] > 0 else 1
        if counts[place] <= 0:
            break
        (own, other)[place].add(name)
        counts[place] -= units[name]
    chosen = [
        {split: tuple(case for case in full.cases(split) if unit(case) in names) for split in SPLITS}
        for names in (own, other)
    ]
    mine: Any = chosen[0]
    others: Any = {"training": sum(chosen[1].values(), ()), "validation": (), "test": ()}
    return dataclasses.replace(full, **mine), dataclasses.replace(full, **others)


def prepare_real(settings: Mapping[str, Any], scratch: Path) -> None:
    """Write ``data`` and, by site, ``outside/<site>``."""
    if REAL not in os.environ:
        raise SystemExit(f"set {REAL} to the folder with fed_isic2019")
    source = Path(os.environ[REAL]) / "fed_isic2019"
    if cli.main(["data", "fed_isic2019", "--source", str(source), "--output", str(scratch / "full")]):
        raise SystemExit(f"{source} could not be prepared")
    for full in read_prepared(scratch / "full"):
        own, others = parts(full, settings["images"], settings["outside"])
        write_json(scratch / "data" / full.site / FILE_NAME, own.to_json())
        write_json(scratch / "outside" / full.site / full.site / FILE_NAME, others.to_json())


def plan_for(settings: Mapping[str, Any], scratch: Path) -> Plan:
    """The job's plan, or the same on real photographs."""
    plan = plan_of(settings["job"])
    if not settings["real"]:
        return plan
    found = read_prepared(scratch / "data")
    sites, classes = tuple(datalist.site for datalist in found), found[0].classes
    return dataclasses.replace(plan, experiment="audit_real", sites=sites, classes=classes)


def run(settings: dict[str, Any], workspace: Path) -> dict[str, Any]:
    """Train once, and audit every site."""
    if settings["real"] and not (workspace / "data").is_dir():
        prepare_real(settings, workspace)
    plan, folder = plan_for(settings, workspace), workspace / "run"
    data = str(workspace / "data") if settings["real"] else None
    if not (folder / RESULTS_NAME).is_file():
        run_in_process(plan, folder=folder, data_root=data)
    results = read_json(folder / RESULTS_NAME)
    sites = {}
    for site in plan.sites:
        outside = str(workspace / "outside" / site) if settings["real"] else PHANTOM_OUTSIDE
        found = audit_model(
            folder,
            site=site,
            data=data,
            outside=outside,
            shadows=settings["shadows"],
            say=lambda text: print(text, flush=True),
        )
        accuracy = results["final"][site]["test"]["personal"]["balanced_accuracy"]
        sites[site] = {**found.to_json(), "test_balanced_accuracy": accuracy}
    return {
        "settings": {**settings, "plan": plan.to_json()},
        "machine": machine(),
        "sites": sites,
        "mean": over_sites(sites),
    }


def over_sites(sites: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean AUC of each attack over the sites that have it, the strongest first.

    The interval is made of the sites' own by the square-and-add rule (Zou and Donner 2008, doi 10.1002/sim.3095).
    """
    by_attack: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for found in sites.values():
        for attack in found["attacks"]:
            low, high, auc, name = *attack["interval_95"], attack["auc"], attack["name"]
            if name.endswith(", reversed"):
                low, high, auc, name = 1 - high, 1 - low, 1 - auc, name.removesuffix(", reversed")
            by_attack.setdefault((name, attack["target"]), []).append((auc, low, high))
    rows = []
    for (name, target), values in by_attack.items():
        mean = statistics.fmean(auc for auc, _, _ in values)
        below = math.sqrt(sum((auc - low) ** 2 for auc, low, _ in values)) / len(values)
        above = math.sqrt(sum((high - auc) ** 2 for auc, _, high in values)) / len(values)
        limits = [round(mean - below, 3), round(mean + above, 3)]
        rows.append(
            {"name": name, "target": target, "sites": len(values), "auc": round(mean, 3), "interval_95": limits}
        )
    return sorted(rows, key=lambda row: -row["auc"])


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="dual_lora", help="one of nvflare_jobs (default: %(default)s)")
    parser.add_argument("--real", action="store_true", help=f"on real photographs, from the folder in {REAL}")
    parser.add_argument("--images", type=int, default=300, help="with --real: of each site (default: %(default)s)")
    parser.add_argument("--outside", type=int, default=400, help="with --real: others of it (default: %(default)s)")
    parser.add_argument("--shadows", type=int, default=2, help="shadow runs per site (default: %(default)s)")
    parser.add_argument("--workspace", type=Path, help="keep the run and the shadow runs here, and go on with them")
    parser.add_argument("--output", type=Path, help="a JSON file (default: audit_JOB.json beside the other results)")
    arguments = vars(parser.parse_args())
    name = f"audit_{arguments['job']}{'_real' if arguments['real'] else ''}.json"
    output, workspace = arguments.pop("output") or ROOT / "results" / name, arguments.pop("workspace")
    with tempfile.TemporaryDirectory() as scratch:
        result = run(arguments, workspace or Path(scratch))
    write_json(output, result)
    print(f"{'attack on':28}{'by':28}{'AUC':>7}{'95 %':>18}")
    for row in result["mean"]:
        low, high = row["interval_95"]
        print(f"{row['target']:28}{row['name']:28}{row['auc']:>7.3f}{f'{low:.3f} to {high:.3f}':>18}")
    print(f"written to {output.name}")


if __name__ == "__main__":
    main()
