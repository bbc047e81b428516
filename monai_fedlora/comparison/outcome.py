"""The results of a comparison, with what is computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.comparison_settings import Comparison, Run
from monai_fedlora.comparison.lacking_cases import lacking_cases
from monai_fedlora.comparison.method_calibration import Calibration, calibration
from monai_fedlora.comparison.patient_draws import CasesTested, cases_tested
from monai_fedlora.comparison.patient_measures import PatientMeasure, best_of, patient_measures
from monai_fedlora.comparison.result_rows import LIMITED, NEW, Row, chosen, over_folds, rows
from monai_fedlora.comparison.runner import Failure
from monai_fedlora.comparison.score_differences import MethodDifference, MethodMean, ScoreTable
from monai_fedlora.comparison.statistics import Average, Summary, over_sites, ranked, summarise
from monai_fedlora.comparison.step_counts import steps_beside
from monai_fedlora.comparison.subgroup_figures import SubgroupFigures, subgroup_columns, subgroup_figures
from monai_fedlora.comparison.tuning import Tuning
from monai_fedlora.comparison.worst_site import WorstSite, worst_site
from monai_fedlora.data.cases import SPLITS, Datalist
from monai_fedlora.data.origin import MIXED, SYNTHETIC, together
from monai_fedlora.site_report import PERSONAL

ALONE = "local"
"""The method in which every site trains for itself."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of a comparison, with tables and tests computed from them.

    Attributes:
        comparison: the settings.
        datalists: datalist of every site.
        backbone: name of the backbone's file.
        is_demo: whether that is the packaged file of demonstration weights.
        results: results of the finished runs.
        scores: what the models of the finished runs say of every test case.
        failures: runs that ended with an error.
        tuning: how settings were chosen; None where they were given.
    """

    comparison: Comparison
    datalists: Mapping[str, Datalist]
    backbone: str
    is_demo: bool
    results: Mapping[Run, Any]
    scores: Sequence[CaseScore] = ()
    failures: Sequence[Failure] = ()
    tuning: Tuning | None = None

    @cached_property
    def measures(self) -> Measures:
        """What the methods are compared by."""
        return self.comparison.measures

    @cached_property
    def rows(self) -> list[Row]:
        """Every metric of every model, of all folds of a cross-validation together."""
        single = self.rows_of_runs
        return over_folds(single, self.scores, self.measures) if self.comparison.folds else single

    @cached_property
    def rows_of_runs(self) -> list[Row]:
        """Every metric of every run."""
        return rows(self.results, self.measures)

    @cached_property
    def summaries(self) -> list[Summary]:
        """One per method, in the order in which they were named."""
        return [summarise(self.rows, method, self.measures) for method in self.comparison.methods]

    @cached_property
    def differences(self) -> list[MethodDifference]:
        """Each method against the first one."""
        reference, *others = self.comparison.methods
        return self._score_table.against(reference, others)

    @cached_property
    def next(self) -> MethodDifference | None:
        """The best method against the one that comes next; None where patients' scores do not compare them."""
        best = ranked(self.summaries, self.measures)
        return self._score_table.between(*best[:2]) if len(best) > 1 else None

    @property
    def best(self) -> list[str]:
        """The best method, if the interval of its difference to the next one excludes none."""
        found = best_of(self._score_table, ranked(self.summaries, self.measures), self.measures)
        return [found] if found else []

    @cached_property
    def means(self) -> dict[str, MethodMean]:
        """By method the key metric with its interval; nothing of a method without scores of patients."""
        found = {method: self._score_table.alone(method) for method in self.comparison.methods}
        return {method: mean for method, mean in found.items() if mean}

    @cached_property
    def patient_measures(self) -> list[PatientMeasure]:
        """Every further measure of patients that the task has and these runs have found."""
        return patient_measures(self.scores, list(self.comparison.methods), self.measures)

    @cached_property
    def lacking(self) -> list[str]:
        """What runs did not test, in words."""
        return lacking_cases(self.scores)

    @cached_property
    def _score_table(self) -> ScoreTable:
        return ScoreTable(self.scores, self.measures)

    @cached_property
    def tested(self) -> dict[str, CasesTested]:
        """What all runs of each method say of the sites' test cases; nothing of a method without scores."""
        return cases_tested(self.scores)

    @cached_property
    def worst_sites(self) -> dict[str, WorstSite]:
        """By method the worst site; none with less than two sites."""
        found = {method: worst_site(self.tested[method], self.measures) for method in self._methods_tested}
        return {method: worst for method, worst in found.items() if worst}

    @cached_property
    def calibrations(self) -> dict[str, Calibration]:
        """By method how far its probabilities are from what happens; none in a task without classes."""
        if not self.measures.by_class:
            return {}
        classes, by_cases = self.comparison.classes, self.measures.by_cases
        found = {
            method: calibration(self.tested[method], classes, by_cases=by_cases) for method in self._methods_tested
        }
        return {method: each for method, each in found.items() if each}

    @cached_property
    def subgroups(self) -> list[SubgroupFigures]:
        """Every method in the subgroups of every column that the sites' datalists name."""
        return [
            subgroup_figures(method, self.tested[method], column, self.datalists, self.measures)
            for column in subgroup_columns(self.datalists)
            for method in self._methods_tested
        ]

    @property
    def _methods_tested(self) -> list[str]:
        return [method for method in self.comparison.methods if method in self.tested]

    @property
    def detectable(self) -> float | None:
        """The largest of the differences that are found in 80 % of repetitions, over :attr:`differences`."""
        found = [each.here.detectable for each in self.differences if each.here.detectable is not None]
        return max(found, default=None)

    def detectable_unseen(self, cases: int) -> float | None:
        """Like :attr:`detectable`, at held-out sites after so many training cases.

        The methods are compared with the first one that has a value there.
        """
        tested = [summary.method for summary in self.summaries if cases in summary.unseen]
        found = self._unseen_scores(cases).against(tested[0], tested[1:]) if tested else []
        return max((each.here.detectable for each in found if each.here.detectable is not None), default=None)

    def joined(self, method: str, cases: int) -> MethodDifference | None:
        """A method at held-out sites against training alone on the same cases, so many of them.

        None where there are no scores of either.
        """
        return self._unseen_scores(cases).between(method, ALONE) if method != ALONE else None

    def curve(self, method: str, cases: int | None, *, site: str | None = None) -> Average | None:
        """A method at the sites with a learning curve, with so many of the site's training patients; None for all."""
        places = self.comparison.curve_sites if site is None else (site,)
        view = PERSONAL if cases is None else LIMITED
        rows = [row for row in chosen(self.rows, method=method, view=view, cases=cases) if row.site in places]
        return over_sites(rows, self.measures.key, by_cases=self.measures.by_cases)

    def curve_gain(self, method: str, cases: int | None, *, site: str | None = None) -> MethodDifference | None:
        """What joining with so many training patients gives beyond training alone with them; None for all patients."""
        places = self.comparison.curve_sites if site is None else (site,)
        scores = [score for score in self.scores if score.site in places]
        view = PERSONAL if cases is None else LIMITED
        return ScoreTable(scores, self.measures, view=view, cases=cases).between(method, ALONE)

    def _unseen_scores(self, cases: int) -> ScoreTable:
        return ScoreTable(self.scores, self.measures, view=NEW, cases=cases)

    @property
    def verdict(self) -> str:
        """Which method has the best mean, and whether its interval excludes the next; empty without a result."""
        order = ranked(self.summaries, self.measures)
        if not order:
            return ""
        first = f"{order[0]} is {'lowest' if self.measures.lower_is_better else 'highest'}"
        if len(order) == 1:
            return f"{first}, as the only method with a result."
        found = self.next
        if found is None:
            return (
                f"{first}, before {order[1]}; without scores of the same patients, nobody can say how much is chance."
            )
        if found.here.low is None:
            return f"{first}, before {order[1]}; so few patients do not tell how much of that is chance."
        interval = f"{found.difference:+.3f}, 95 % interval {found.here.low:+.3f} to {found.here.high:+.3f}"
        if found.here.of_models:
            return (
                f"{first}, before {order[1]}; one run does not tell how much of that is luck of training (these models "
                f"with other patients: {interval})."
            )
        if self.best:
            return f"{first}, and its interval excludes the next, {order[1]} ({interval})."
        return f"{first}, but these patients and runs do not tell it from {order[1]} ({interval})."

    @property
    def images(self) -> str:
        """Kind of the sites' images (synthetic, real, mixed), see :mod:`monai_fedlora.data.origin`."""
        return together(self.datalists[site].origin.kind for site in self.comparison.sites)

    @property
    def of_images(self) -> str:
        """End of a caption that mentions synthetic images; empty where there are none."""
        return {SYNTHETIC: ", synthetic images", MIXED: ", partly synthetic images"}.get(self.images, "")

    def tested_at(self, site: str) -> tuple[int, ...]:
        """Numbers of a site's cases of each class that are tested, all of them in a cross-validation."""
        datalist = self.datalists[site]
        counts = [datalist.counts(split) for split in (SPLITS if self.comparison.folds else ("test",))]
        return tuple(map(sum, zip(*counts, strict=True)))

    @property
    def missing(self) -> int:
        """Number of runs without a result."""
        return len(self.comparison.runs()) - len(self.results)

    def seconds(self, method: str) -> float | None:
        """Mean duration of a method's runs with all sites, without the time for images and features that runs share."""
        found = [
            result["seconds"] - result["seconds_shared"]
            for run, result in self.results.items()
            if run.method == method and not run.held_out and not run.limited
        ]
        return statistics.fmean(found) if found else None

    def steps(self, method: str) -> dict[str, float] | None:
        """Mean over sites and runs of :func:`monai_fedlora.comparison.step_counts.step_counts`; None without a run."""
        found = [
            counts
            for run, result in self.results.items()
            if run.method == method and not run.held_out and not run.limited
            for counts in result.get("steps", {}).values()
        ]
        return {name: statistics.fmean(each[name] for each in found) for name in found[0]} if found else None

    @cached_property
    def other_steps(self) -> dict[str, str]:
        """By method, how its steps differ from those of the first method that has some, in words."""
        known = {method: found for method in self.comparison.methods if (found := self.steps(method))}
        first = next(iter(known), "")
        return {
            method: said for method, found in known.items() if (said := steps_beside(found, known[first])) is not None
        }

    def traffic(self, method: str) -> tuple[int, int] | None:
        """Bytes that a site sends and receives in a round; None for a method that pools the images instead."""
        facts = self.comparison.facts[method]
        return None if self.comparison.is_pooled(method) else (facts.bytes_up, facts.bytes_down)

    def refused(self) -> list[tuple[Run, Mapping[str, Any]]]:
        """Updates that the server refused."""
        return [(run, refusal) for run, result in self.results.items() for refusal in result["refused"]]
