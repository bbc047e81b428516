"""Compare a site's personal model with the shared model on the site's own test cases.

Both classify the same cases, so that the difference is tested by the cases that only one of them gets right: the exact
two-sided McNemar test (McNemar, Psychometrika 12:153-157, 1947), from the binomial distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from monai_fedlora.exporting.finished import FinishedModel
from monai_fedlora.exporting.intervals import with_intervals
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.site_report import PERSONAL, SHARED, VIEWS

KEY = "personal_or_shared"
"""Entry of a bundle's metadata."""
TIE, UNKNOWN = "tie", "unknown"
_SAME = 5e-5  # metrics have four decimals
_LEVEL = 0.05


def personal_or_shared(model: FinishedModel) -> dict[str, Any] | None:
    """The entry of a model's metadata, see :func:`judged`; None for a shared model."""
    if model.site is None:
        return None
    personal, shared = (model.test.get(view, {}) for view in VIEWS)
    task = model.plan.task_of
    return judged(
        personal,
        shared,
        pairs=discordant(model.evidence),
        metric=task.key,
        word=task.word,
        lower_is_better=task.lower_is_better,
    )


def discordant(evidence: Evidence) -> tuple[int, int] | None:
    """Numbers of test cases that only the personal, and only the shared model gets right; None if not kept."""
    labels = evidence.labels.get("test")
    logits = evidence.logits.get("test"), evidence.shared_logits.get("test")
    if labels is None or any(found is None or len(found) != len(labels) for found in logits):
        return None
    mine, theirs = (torch.eq(found.argmax(dim=1), labels) for found in logits if found is not None)
    return int((mine & ~theirs).sum()), int((theirs & ~mine).sum())


def judged(
    personal: Mapping[str, Any],
    shared: Mapping[str, Any],
    *,
    pairs: tuple[int, int] | None,
    metric: str,
    word: str,
    lower_is_better: bool,
) -> dict[str, Any]:
    """Compare two models on the same test cases.

    Args:
        personal: test metrics of the personal model; empty where there are none.
        shared: of the shared one.
        pairs: from :func:`discordant`; None where they are not known.
        metric: that is compared.
        word: its name in sentences.
        lower_is_better: whether less of it is better, as of errors.

    Returns:
        ``better``: "personal", "shared", "tie" or "unknown"; ``metric``; ``n``: number of cases; ``personal`` and
        ``shared``: values of the metric; ``pairs``: numbers of cases that only one of them gets right, and ``p`` of the
        exact McNemar test, both None if the run kept no predictions; ``said``: a sentence without a full stop.
    """
    mine, theirs = personal.get(metric), shared.get(metric)
    entry: dict[str, Any] = {
        "metric": metric,
        "n": personal.get("n"),
        "personal": mine,
        "shared": theirs,
        "pairs": None,
        "p": None,
    }
    if mine is None or theirs is None:
        no_shared = "the method has no shared model, or the run has not tested it"
        why = "the run has no test cases of this site, or none of a class" if mine is None else no_shared
        return {"better": UNKNOWN, **entry, "said": f"whether the shared model does better is not known: {why}"}
    better = TIE if abs(mine - theirs) < _SAME else PERSONAL if (mine < theirs) == lower_is_better else SHARED
    if pairs is not None:
        entry |= {"pairs": list(pairs), "p": mcnemar(*pairs)}
    start = {
        SHARED: "the shared model does better than the personal one",
        PERSONAL: "the personal model does better than the shared one",
        TIE: "the personal and the shared model do equally well, a tie",
    }[better]
    first, second = (theirs, mine) if better == SHARED else (mine, theirs)
    digits = 3 if f"{first:.3f}" != f"{second:.3f}" else 6  # so that unequal values are not said to be equal
    values = f"{first:.3f} each" if better == TIE else f"{first:.{digits}f} against {second:.{digits}f}"
    count = personal.get("n")
    cases = "test cases" if count is None else f"{count} test case{'' if count == 1 else 's'}"
    said = f"on the site's own {cases} {start}: {word} {values}"
    return {"better": better, **entry, "said": said + _uncertainty(entry, personal, shared)}


def mcnemar(one: int, other: int) -> float:
    """Two-sided p of the exact McNemar test, from the cases that only one or only the other gets right."""
    total = one + other
    tail = sum(math.comb(total, count) for count in range(min(one, other) + 1))
    return float(min(1.0, 2 * tail / 2**total))


def _uncertainty(entry: Mapping[str, Any], personal: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    if entry["pairs"] is not None:
        mine, theirs = entry["pairs"]
        chance = ", which so few cases can show by chance" if entry["p"] >= _LEVEL else ""
        return (
            f" (right with the personal one alone: {mine}, with the shared one alone: {theirs}; exact McNemar test, "
            f"p = {entry['p']:.2g}){chance}"
        )
    found = [with_intervals(metrics)[entry["metric"]]["interval_95"] for metrics in (personal, shared)]
    if None in found:
        return ""
    (low, high), (other_low, other_high) = found
    overlap = max(low, other_low) <= min(high, other_high)
    chance = ", which overlap, so that so few cases can show it by chance" if overlap else ""
    return (
        f" (95 % intervals {low:.3f} to {high:.3f} for the personal and {other_low:.3f} to {other_high:.3f} for the "
        f"shared one{chance})"
    )
