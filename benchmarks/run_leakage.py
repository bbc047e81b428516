"""What a run tells beside its models: who took part, and the images of a small batch, with and without a budget.

Sites of 96 lesions each are made from the dermatoscopy centres of Fed-ISIC2019 in the folder that
MONAI_FEDLORA_REAL_DATA names, as `membership.py` makes them, but with 16 lesions in the validation and test splits.
They
run one federation per budget, whose answers are kept, and `monai-fedlora audit --leave-out --invert 8` attacks it:
the shared model once, what the server saw at every site, and small batches at the first sites. One seed. What was
stopped goes on at its site.

    python benchmarks/run_leakage.py
    python benchmarks/run_leakage.py --runs none --inverted 1
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from _membership.centres import deal, prepared
from _real_data import add_source, fed_isic
from membership import EPSILON, plan_of

from monai_fedlora.auditing.membership_audit import audit_model
from monai_fedlora.data.site import cache_folder
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.run_record import RESULTS_NAME
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.files import make_folder, read_json, write_json

ROOT = Path(__file__).parent
FEDERATION = {
    "method": "dual_lora", "blocks": 2, "cases": 96, "rounds": 6, "local_epochs": 4, "batch_size": 16,
    "learning_rate": 4e-3, "class_weights": [1.0, 3.0], "epsilon": 8.0, "delta": 1e-5, "clip": 1.0,
}  # fmt: skip
"""As by default in `membership.py`."""
SPARE, SEED, SIZE = 16, 1, "vit_demo"


def audited(run: str, whole: Path, work: Path, *, inverted: int, invert: int) -> dict[str, Any]:
    """By site, what an audit has found of one run."""
    data = work / f"data-{run}"
    sites = sorted(deal(whole, data, cases=FEDERATION["cases"], seed=SEED, size=SIZE, spare=SPARE))
    plan, found = plan_of(run, FEDERATION, data, sites, SEED), {}
    if not (work / run / RESULTS_NAME).is_file():
        run_in_process(plan, folder=work / run, data_root=str(data), keep_answers=True, policy=lambda: NOTHING_LEAVES)
    for number, site in enumerate(sites):
        path = work / f"{run}-{site}.json"
        if not path.is_file():
            told = audit_model(
                work / run,
                site=site,
                data=str(data),
                shadows=0,
                leave_out=number == 0,
                invert=invert if number < inverted else 0,
                say=lambda text: print(text, flush=True),
            )
            write_json(path, told.to_json())
        found[site] = read_json(path)["run"]
    return found


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=f"none,{EPSILON}", help="between commas (default: %(default)s)")
    parser.add_argument("--inverted", type=int, default=2, help="sites whose images are tried (default: %(default)s)")
    parser.add_argument("--invert", type=int, default=8, help="images of each (default: %(default)s)")
    add_source(parser)
    parser.add_argument("--work", type=Path, help="folder for what is computed on the way (default: in the cache)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "run_leakage.json")
    settings = vars(parser.parse_args())
    output, work, source = (settings.pop(name) for name in ("output", "work", "source"))
    source = fed_isic(source)
    torch.set_num_threads(1)
    work = work or cache_folder() / "run_leakage"
    make_folder(work)
    whole = prepared(source, work)
    options = {"inverted": settings["inverted"], "invert": settings["invert"]}
    runs = {run: audited(run, whole, work, **options) for run in settings["runs"].split(",")}
    told = {**settings, **FEDERATION, "spare": SPARE, "seed": SEED, "size": SIZE}
    write_json(output, {"settings": told, "machine": machine(), "runs": runs})
    for run, sites in runs.items():
        for site, found in sites.items():
            for attack in found["attacks"]:
                print(
                    f"{run:10}{site:12}{attack['target']:28}{attack['name']:24}{attack['auc']} {attack['interval_95']}"
                )


if __name__ == "__main__":
    main()
