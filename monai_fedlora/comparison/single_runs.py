"""Tests of two models on the same test cases: of one run alone, whose patients are tested once and are independent.

They are about two trained models and not about methods. Runs of the same patients must not be put together into one
test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.exporting.personal_or_shared import mcnemar
from monai_fedlora.site_report import PERSONAL


def delong(one: npt.ArrayLike, other: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[float, float | None]:
    """Compare the areas under two ROC curves of the same cases.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837-845, 1988, equations 3 to 5.

    Args:
        one, other: (cases,), each model's number, higher for positive cases.
        positive: (cases,), whether a case is positive; there are at least two of either kind.

    Returns:
        The first area minus the second, and the two-sided p-value; None if no case tells the areas' variance.
    """
    from scipy.stats import norm

    truth = np.asarray(positive, dtype=bool)
    among = [_placements(np.asarray(found, dtype=float), truth) for found in (one, other)]
    above, below = (first - second for first, second in zip(*among, strict=True))
    difference = float(above.mean())
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    if variance <= 0:
        return difference, 1.0 if difference == 0 else None
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def _placements(found: npt.NDArray[Any], positive: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """By positive case the share of negative ones below it, by negative case that of positive ones above it."""
    above = found[positive][:, None] - found[~positive]
    order = (above > 0) + 0.5 * (above == 0)
    return order.mean(axis=1), order.mean(axis=0)


def single_run_tests(
    scores: Iterable[CaseScore], methods: Sequence[str], classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Compare each method with the first one, in every run and at every site.

    Left out are sites where a patient has several cases, because these are not independent.

    Args:
        scores: 1 for right and 0 for wrong predictions, with the probability of each class.
        methods: the first is the reference.
        classes: with two, areas under ROC curves are compared as well.

    Yields:
        Lines of a table: the run, the site, the method and the reference, how many cases only one of them gets right
        with p of the exact McNemar test, and the difference between the areas with p of :func:`delong`; None where
        there is none.
    """
    runs: dict[tuple[int, int, int, str], dict[str, dict[str, CaseScore]]] = defaultdict(lambda: defaultdict(dict))
    for each in scores:
        if each.view == PERSONAL and each.score is not None:
            runs[each.seed, each.repeat, each.fold, each.site][each.method][each.case] = each
    reference, *others = methods
    for (seed, repeat, fold, site), found in runs.items():
        base = found.get(reference, {})
        if not base or len({case.patient for case in base.values()}) < len(base):
            continue
        for method in others:
            if found.get(method, {}).keys() == base.keys():
                run = {"seed": seed, "repeat": repeat, "fold": fold, "site": site, "cases": len(base)}
                yield {**run, "method": method, "reference": reference, **_compared(found[method], base, classes)}


def _compared(one: Mapping[str, CaseScore], other: Mapping[str, CaseScore], classes: Sequence[str]) -> dict[str, Any]:
    mine = sum(one[case].score == 1 and other[case].score == 0 for case in one)
    theirs = sum(one[case].score == 0 and other[case].score == 1 for case in one)
    found: dict[str, Any] = {"right_alone": mine, "reference_right_alone": theirs, "p_mcnemar": mcnemar(mine, theirs)}
    area: tuple[float | None, float | None] = (None, None)
    if len(classes) == 2:
        column = f"probability_{classes[1]}"
        truth = [one[case].label == classes[1] for case in one]
        numbers = [[each[case].more.get(column) for case in one] for each in (one, other)]
        if min(sum(truth), len(truth) - sum(truth)) > 1 and None not in (value for row in numbers for value in row):
            area = delong(np.array(numbers[0], float), np.array(numbers[1], float), truth)
    return {**found, "auroc_difference": area[0], "p_delong": area[1]}
