"""The worst site of every method, with an interval that knows that it was chosen after the fact."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.patient_draws import Array, CasesTested, Draws, Estimate, draws, estimate, weighted_means


@dataclass(frozen=True, kw_only=True)
class WorstSite:
    """The worst site of a method.

    Attributes:
        found: the key metric of the worst site of each run, mean over runs. In pretended comparisons of four and eight
            sites with 16 and 60 patients each, the interval had the true worst site's value in 87 to 96 %; one of
            percentiles has it in 47 to 96 %.
        shares: by site, in how many of the draws and runs it is the worst, 0..1; more than 1 in all where sites tie.
    """

    found: Estimate
    shares: dict[str, float]


def worst_site(tested: CasesTested, measures: Measures) -> WorstSite | None:
    """Find the worst site in every run and every draw of patients; None with less than two sites that have a value."""
    drawn = draws(tested, by_class=measures.by_class)
    by_site = _by_site(tested, drawn, measures)
    if len(by_site) < 2:
        return None
    values = np.stack(list(by_site.values()))  # (sites, 1 + draws, runs)
    lowest = values.max(axis=0) if measures.lower_is_better else values.min(axis=0)
    shares = (np.isclose(values, lowest) * drawn.runs)[:, 1:].mean(axis=(1, 2))
    return WorstSite(
        found=estimate(drawn.mean_over_runs(lowest), bounds=(0.0, 1.0) if measures.by_class else None),
        shares=dict(zip(by_site, map(float, shares), strict=True)),
    )


def _by_site(tested: CasesTested, drawn: Draws, measures: Measures) -> dict[str, Array]:
    """The key metric by site, (1 + draws, runs); none for a site with cases of one class where classes count."""
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, case in enumerate(tested.cases):
        places[case.site][case.label if measures.by_class else ""].append(place)
    return {
        site: np.mean([weighted_means(drawn.cases[:, p], tested.scores[p]) for p in classes.values()], axis=0)
        for site, classes in places.items()
        if len(classes) > measures.by_class
    }
