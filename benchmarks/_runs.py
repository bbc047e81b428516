"""Federations in one process for benchmarks of accuracy, over seeds."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process

JOBS = Path(__file__).parent.parent / "nvflare_jobs"
PARTS = ("personal", "shared")


def plan_of(job: str) -> Plan:
    """The plan of one of the shipped jobs."""
    return Plan.load(JOBS / job / "app" / "config" / "plan.json")


def training(plan: Plan, **changes: Any) -> Plan:
    """The same plan with other training settings."""
    return dataclasses.replace(plan, training={**plan.training, **changes})


def accuracies(plan: Plan) -> dict[str, float]:
    """Balanced accuracy on the test split after a run, mean of the sites, with the private part and without."""
    with tempfile.TemporaryDirectory() as folder:
        results = run_in_process(plan, folder=Path(folder))
    if results["refused"]:
        raise SystemExit(f"updates were refused, so that the run says nothing: {results['refused']}")
    tests = [report["test"] for report in results["final"].values()]
    return {part: statistics.fmean(test[part]["balanced_accuracy"] for test in tests) for part in PARTS}


def over_seeds(plans: Mapping[str, Plan], *, seeds: int) -> dict[str, dict[str, Any]]:
    """Run every plan once per seed, all of a seed before the next; :func:`summary` by the plans' names, and seconds.

    A seed draws the adapters, the head and the order of the cases; sites, splits and backbone stay.
    """
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in plans}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for seed in range(seeds):
        for name, plan in plans.items():
            started = time.perf_counter()
            scores[name].append(accuracies(dataclasses.replace(plan, seed=seed)))
            seconds[name].append(time.perf_counter() - started)
            print(f"seed {seed}, {name}: {scores[name][-1]}, {seconds[name][-1]:.0f} s", flush=True)
    return {name: {**summary(scores[name]), "seconds": statistics.median(seconds[name])} for name in plans}


def told(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Of what :func:`summary` gave: mean and standard deviation with the private part, mean without."""
    on, off = (row["balanced_accuracy"][part] for part in PARTS)
    return on["mean"], on["standard_deviation"] or 0.0, off["mean"]


def summary(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation over seeds, and the single values."""
    parts: dict[str, Any] = {}
    for part in PARTS:
        values = [score[part] for score in scores]
        spread = statistics.stdev(values) if len(values) > 1 else None
        parts[part] = {"mean": statistics.fmean(values), "standard_deviation": spread, "by_seed": values}
    return {"balanced_accuracy": parts}
