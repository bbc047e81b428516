"""The results of a comparison, and its machine-readable files."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.comparison_settings import Comparison, Run
from monai_fedlora.comparison.result_rows import NEW, Row, over_folds, rows
from monai_fedlora.comparison.runner import Failure
from monai_fedlora.comparison.score_differences import FEWEST_RUNS, MethodDifference, ScoreTable
from monai_fedlora.comparison.single_runs import single_run_tests
from monai_fedlora.comparison.statistics import Average, Summary, ranked, summarise
from monai_fedlora.comparison.tuning import Tuning
from monai_fedlora.data.cases import SPLITS, Datalist
from monai_fedlora.data.origin import MIXED, SYNTHETIC, together
from monai_fedlora.files import csv_text, write_json, write_text

TABLE_NAME, ROWS_NAME, JSON_NAME = "table.csv", "results.csv", "comparison.json"
SINGLE_NAME = "single_runs.csv"
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
        found = self.next
        return [found.method] if found and found.here.excludes_none else []

    @cached_property
    def _score_table(self) -> ScoreTable:
        return ScoreTable(self.scores, self.measures)

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
            reason = "one run does" if found.runs < FEWEST_RUNS else "so few patients do"
            return f"{first}, before {order[1]}; {reason} not tell how much of that is chance."
        interval = f"{found.difference:+.3f}, 95 % interval {found.here.low:+.3f} to {found.here.high:+.3f}"
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

    def tested(self, site: str) -> tuple[int, ...]:
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
            if run.method == method and not run.held_out
        ]
        return statistics.fmean(found) if found else None

    def traffic(self, method: str) -> tuple[int, int] | None:
        """Bytes that a site sends and receives in a round; None for a method that pools the images instead."""
        facts = self.comparison.facts[method]
        return None if self.comparison.is_pooled(method) else (facts.bytes_up, facts.bytes_down)

    def refused(self) -> list[tuple[Run, Mapping[str, Any]]]:
        """Updates that the server refused."""
        return [(run, refusal) for run, result in self.results.items() for refusal in result["refused"]]


def write_files(outcome: Outcome, folder: Path) -> None:
    """Write ``table.csv`` (a row per method), ``results.csv`` (a row per run, site and view), ``comparison.json``.

    In a task with classes also ``single_runs.csv``, see :func:`single_run_tests`.
    """
    write_text(folder / TABLE_NAME, _csv(table(outcome)))
    write_text(folder / ROWS_NAME, _csv(map(_row, outcome.rows_of_runs)))
    lines = []
    if outcome.measures.by_class:
        lines = list(single_run_tests(outcome.scores, list(outcome.comparison.methods), outcome.comparison.classes))
    if lines:
        write_text(folder / SINGLE_NAME, _csv(lines))
    else:
        (folder / SINGLE_NAME).unlink(missing_ok=True)
    write_json(folder / JSON_NAME, as_json(outcome))


def table(outcome: Outcome) -> list[dict[str, Any]]:
    """One row of numbers per method; None where there is none."""
    differences = {each.method: each for each in outcome.differences}
    key = outcome.measures.key
    result = []
    for summary in outcome.summaries:
        row: dict[str, Any] = {"method": summary.method}
        for name, value in (
            (key, summary.score),
            (f"worst_site_{key}", summary.worst),
            *summary.further.items(),
            (f"shared_only_{key}", summary.shared),
        ):
            row |= _flat(name, value)
        row["worst_site"] = summary.worst_site
        row["best_and_interval_excludes_next"] = summary.method in outcome.best
        for site in outcome.comparison.sites:
            row |= _flat(f"{key}_at_{site}", summary.sites.get(site))
        if outcome.comparison.unseen:
            for n in (0, *outcome.comparison.new_site_cases):
                row |= _flat(f"unseen_site_{key}_after_{n}_cases", summary.unseen.get(n))
        up, down = outcome.traffic(summary.method) or (None, None)
        row |= {"bytes_up_per_site_and_round": up, "bytes_down_per_site_and_round": down}
        row["seconds_per_run"] = outcome.seconds(summary.method)
        found = differences.get(summary.method)
        for name in ("reference", "difference", "sites", "patients", "runs", "left_out"):
            row[name] = getattr(found, name) if found else None
        for prefix, claim in (("", found and found.here), ("elsewhere_", found and found.elsewhere)):
            for name in ("low", "high", "p", "p_holm", "detectable"):
                row[f"{prefix}{name}"] = getattr(claim, name) if claim else None
        row["images"] = outcome.images
        result.append(row)
    return result


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The content of ``comparison.json``."""
    comparison = outcome.comparison
    return {
        "format": 1,
        "version": __version__,
        "settings": {
            **comparison.common(),
            "backbone": outcome.backbone,
            "seeds": list(comparison.seeds),
            "repeats": comparison.repeats,
            "unseen": list(comparison.unseen),
            "new_site_cases": list(comparison.new_site_cases),
            "methods": {
                method: {"method": comparison.method_args(method), "training": comparison.training(method)}
                for method in comparison.methods
            },
        },
        **({"tuning": _tuning(outcome.tuning)} if outcome.tuning else {}),
        "images": outcome.images,
        "cases": {
            site: {"dataset": datalist.dataset, "source": datalist.origin.to_json()}
            | {split: list(datalist.counts(split)) for split in SPLITS}
            for site, datalist in outcome.datalists.items()
        },
        "summaries": [_summary(summary) for summary in outcome.summaries],
        "differences": [dataclasses.asdict(each) for each in outcome.differences],
        "best_and_next": dataclasses.asdict(outcome.next) if outcome.next else None,
        "seconds_per_run": {method: outcome.seconds(method) for method in comparison.methods},
        "facts": {method: dataclasses.asdict(comparison.facts[method]) for method in comparison.methods},
        "missing_runs": outcome.missing,
        "failures": [{"run": failure.run.name, "reason": failure.reason} for failure in outcome.failures],
        "refused": [{"run": run.name, **refusal} for run, refusal in outcome.refused()],
    }


def _tuning(tuning: Tuning) -> dict[str, Any]:
    tried = [{**dataclasses.asdict(each), "validation": each.mean} for each in tuning.tried]
    return {"runs_per_method": tuning.budget, "tried": tried, "chosen": dict(tuning.chosen)}


def _summary(summary: Summary) -> dict[str, Any]:
    found = dataclasses.asdict(summary)
    return {**found.pop("further"), **found}


def _flat(name: str, value: Average | None) -> dict[str, float | None]:
    return {name: value.mean if value else None, f"{name}_sd": value.spread if value else None}


def _row(row: Row) -> dict[str, Any]:
    split = {} if row.fold is None else {"repeat": row.repeat, "fold": row.fold}
    model = {"site": row.site, "view": row.view, "training_cases": row.cases}
    return {"method": row.method, "seed": row.seed, **split, **model, "n": row.n, **row.values}


def _csv(entries: Iterable[Mapping[str, Any]]) -> str:
    lines = list(entries)
    cells = ([round(v, 6) if isinstance(v, float) else v for v in line.values()] for line in lines)
    return csv_text([lines[0] if lines else [], *cells])
