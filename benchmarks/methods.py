"""Test metrics of several methods over several seeds: mean, spread and worst site.

Everything but method and seed comes from the plan of a job folder (by default the shipped demonstration). Sites are
trained in this process by the same code as in a federation.

    python benchmarks/methods.py --seeds 0,1,2 --methods dual_lora,fedit,local
    python benchmarks/methods.py --job jobs/two-vendors --data prepared --name two_vendors
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def run_one(job: str, data: str | None, method: str, seed: int) -> dict[str, Any]:
    """Run one method with one seed and return each site's test metrics with the private part on."""
    import torch

    torch.set_num_threads(1)
    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.federated.rounds import run_in_process

    plan = Plan.load(Path(job) / "app" / "config" / "plan.json")
    plan = dataclasses.replace(plan, method=method, method_args={}, seed=seed, experiment=f"{method}-{seed}")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = run_in_process(plan, folder=Path(folder), data_root=data)
    return {
        "method": method,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "sites": {
            site: {view: metrics["balanced_accuracy"] for view, metrics in report["test"].items()}
            | {"auroc": report["test"]["private_on"]["auroc"]}
            for site, report in results["final"].items()
        },
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Per method: mean over sites of each seed, its mean and standard deviation over seeds, and the worst site."""
    rows = {}
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        means = [statistics.fmean(site["private_on"] for site in run["sites"].values()) for run in own]
        worst = [min(site["private_on"] for site in run["sites"].values()) for run in own]
        auroc = [statistics.fmean(site["auroc"] for site in run["sites"].values()) for run in own]
        rows[method] = {
            "balanced_accuracy_by_seed": [round(value, 4) for value in means],
            "balanced_accuracy": round(statistics.fmean(means), 4),
            "standard_deviation": round(statistics.stdev(means), 4) if len(means) > 1 else None,
            "worst_site": round(statistics.fmean(worst), 4),
            "auroc": round(statistics.fmean(auroc), 4),
        }
    return rows


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default=str(ROOT / "nvflare_jobs" / "dual_lora"))
    parser.add_argument("--data", help="folder of prepared sites (default: generated phantoms)")
    parser.add_argument("--methods", default="dual_lora,fedit,local")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--name", default="demo")
    args = parser.parse_args()
    tasks = [(m, int(s)) for m in args.methods.split(",") for s in args.seeds.split(",")]
    with ProcessPoolExecutor(args.workers) as pool:
        futures = [pool.submit(run_one, args.job, args.data, method, seed) for method, seed in tasks]
        runs = []
        for future in futures:
            runs.append(future.result())
            print(json.dumps(runs[-1]), flush=True)
    plan = json.loads((Path(args.job) / "app" / "config" / "plan.json").read_text(encoding="utf-8"))
    result = {"plan": plan, "summary": summary(runs), "runs": runs}
    path = RESULTS / f"methods_{args.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for method, row in result["summary"].items():
        print(
            f"{method:12} balanced accuracy {row['balanced_accuracy']:.3f} +- {row['standard_deviation'] or 0:.3f}"
            f"  worst site {row['worst_site']:.3f}  AUROC {row['auroc']:.3f}"
        )


if __name__ == "__main__":
    main()
