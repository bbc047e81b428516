"""Federations in one process for benchmarks of accuracy, over seeds."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process

JOBS = Path(__file__).parent.parent / "nvflare_jobs"
PARTS = ("private_on", "private_off")


def plan_of(job: str) -> Plan:
    """The plan of one of the shipped jobs."""
    return Plan.load(JOBS / job / "app" / "config" / "plan.json")


def accuracies(plan: Plan) -> dict[str, float]:
    """Balanced accuracy on the test split after a run, mean of the sites, with the private part and without."""
    with tempfile.TemporaryDirectory() as folder:
        results = run_in_process(plan, folder=Path(folder))
    if results["refused"]:
        raise SystemExit(f"updates were refused, so that the run says nothing: {results['refused']}")
    tests = [report["test"] for report in results["final"].values()]
    return {part: statistics.fmean(test[part]["balanced_accuracy"] for test in tests) for part in PARTS}


def summary(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation over seeds, and the single values."""
    parts: dict[str, Any] = {}
    for part in PARTS:
        values = [score[part] for score in scores]
        spread = statistics.stdev(values) if len(values) > 1 else None
        parts[part] = {"mean": statistics.fmean(values), "standard_deviation": spread, "by_seed": values}
    return {"balanced_accuracy": parts}
