"""Test metrics of the shared model, pooled over all sites of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.site_report import SHARED, current_views
from monai_fedlora.tasks.task import CONFUSION


def pooled_test(results: Any, plan: Plan) -> dict[str, Any] | None:
    """Add up the sites' confusion matrices of the shared model; of a task without such, average what they measured.

    Args:
        results: content of a run's ``results.json``.
        plan: the experiment of the shared tensors.

    Returns:
        ``sites`` (how many have test cases), ``n``, ``confusion_matrix``, ``accuracy``, ``balanced_accuracy``, for two
        classes ``sensitivity`` and ``specificity``, and ``worst_site_balanced_accuracy``. For another task than
        classification ``sites``, ``n``, and the task's metrics as means of those sites that have them, weighted by the
        cases that have them. A balanced accuracy of one class alone is None. None in place of all if the results are of
        another or an unfinished run, or a site's are missing.
    """
    if not isinstance(results, Mapping) or results.get("status") != "finished":
        return None
    try:
        if Plan.from_json(results.get("plan")).fingerprint != plan.fingerprint:
            return None
        found = [current_views(results["final"][site]["test"])[SHARED] for site in plan.sites]
        views = [view for view in found if view.get("n")]
        if CONFUSION not in plan.task_of.sections:
            names = [plan.task_of.key, *plan.task_of.more(plan.classes)]
            return _means(views, names, plan.task_of.counted(plan.classes))
        matrices = [view["confusion_matrix"] for view in views]
        scores = [view["balanced_accuracy"] for view in views if view["balanced_accuracy"] is not None]
    except (ConfigError, KeyError, TypeError):
        return None
    classes = range(len(plan.classes))
    confusion = [[sum(matrix[true][found] for matrix in matrices) for found in classes] for true in classes]
    recalls = [confusion[c][c] / sum(confusion[c]) if sum(confusion[c]) else None for c in classes]
    known = [recall for recall in recalls if recall is not None]
    total = sum(map(sum, confusion))
    if not total:
        return None
    metrics: dict[str, Any] = {
        "sites": len(views),
        "n": total,
        "confusion_matrix": confusion,
        "accuracy": sum(confusion[c][c] for c in classes) / total,
        "balanced_accuracy": sum(known) / len(known) if len(known) > 1 else None,
        "worst_site_balanced_accuracy": min(scores, default=None),
    }
    if len(classes) == 2:
        metrics |= {"sensitivity": recalls[1], "specificity": recalls[0]}
    return metrics


def _means(
    views: Sequence[Mapping[str, Any]], names: Sequence[str], counted: Mapping[str, str]
) -> dict[str, Any] | None:
    """Means of the sites' metrics, weighted by the cases behind them; runs of before these were counted, by all."""
    found: dict[str, Any] = {"sites": len(views), "n": sum(view["n"] for view in views)}
    for name in names:
        count = counted.get(name, "n")
        known = [(view.get(count, view["n"]), view[name]) for view in views if view.get(name) is not None]
        total = sum(count for count, _ in known)
        found[name] = sum(count * value for count, value in known) / total if total else None
    return found if found["n"] else None
