"""The figures of a run's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean

from monai_fedlora.exporting.intervals import with_intervals
from monai_fedlora.exporting.model_card import VIEW_NAMES
from monai_fedlora.rendering.charts import Estimate, Line, forest_plot, line_chart
from monai_fedlora.rendering.drawing import Figure
from monai_fedlora.rendering.site_curves import site_curves
from monai_fedlora.reporting.found_run import BINS, Bin
from monai_fedlora.reporting.record import Metrics, Record
from monai_fedlora.reporting.run_tables import stages, tested_views, view_values
from monai_fedlora.tasks.task import CONFUSION, AgreementNames


def learning_curve(record: Record, view: str) -> Figure | None:
    """The task's key metric on validation cases, by number of rounds."""
    task = record.task
    low, high = task.ends or (None, None)
    return site_curves(
        {stage: view_values(answers, view, task.key) for stage, answers in stages(record).items()},
        sites=record.sites,
        title=f"Validation {task.word} by round, {VIEW_NAMES[view]}",
        rest="The table below has every number.",
        x_label=f"rounds behind the model ({VIEW_NAMES[view]})",
        y_label=task.word,
        low=low,
        high=high,
    )


def losses(record: Record) -> Figure | None:
    """Training loss by round."""
    return site_curves(
        {
            entry.number + 1: {site: a.train_loss for site, a in entry.answers.items() if a.train_loss is not None}
            for entry in record.rounds
        },
        sites=record.sites,
        title="Training loss by round",
        rest="The table below has every number.",
        x_label="round",
        y_label="mean training loss",
    )


def agreement(record: Record) -> Figure | None:
    """Mean cosine of each site's change to those of the others, by round."""
    found: dict[int, dict[str, float]] = {}
    for entry in record.rounds:
        if entry.agreement is not None:
            cosines = entry.agreement.cosines
            by_site = {
                site: [value for pair, value in cosines.items() if site in pair and value is not None]
                for site in entry.agreement.sites
            }
            found[entry.number + 1] = {site: fmean(values) for site, values in by_site.items() if values}
    return site_curves(
        found,
        sites=record.sites,
        title="Mean cosine of each site's change to those of the others, by round",
        rest="The tables below have the cosine of every pair.",
        x_label="round",
        y_label="mean cosine",
        low=min([-0.1, *(value for values in found.values() for value in values.values())]),
        high=1.0,
    )


def test_scores(record: Record) -> Figure | None:
    """The task's key metric on every site's test cases with its interval, of the personal and of the shared model."""
    task = record.task
    by_chance = CONFUSION in task.sections
    views = tested_views(record)
    return forest_plot(
        _by_site(record, lambda metrics: _estimate(metrics, task.key)),
        series=[VIEW_NAMES[view] for view in views],
        title=f"Test {task.word} with 95 % intervals{'; dotted: chance' if by_chance else ''}",
        description="A row per site. Where two intervals overlap widely, the test cases do not tell the two apart. The "
        "tables above have the values.",
        x_label=task.word,
        ends=task.ends,
        chance=1 / len(record.classes) if record.classes and by_chance else None,
    )


def biases(record: Record) -> list[Figure]:
    """Bias and limits of agreement of each number on every site's test cases, a figure per number."""
    figures = [
        forest_plot(
            _by_site(record, partial(_bias, names=names)),
            series=[VIEW_NAMES[view] for view in tested_views(record)],
            title=f"Bias of {number} with limits of agreement; dotted: none",
            description="A row per site: the mean of found minus reference over its test cases, and the limits between "
            "which 95 % of such differences lie if they are about normal. The tables below have the values.",
            x_label=f"{number}: found minus reference{f' ({names.unit})' if names.unit else ''}",
            chance=0.0,
        )
        for number, names in record.task.agreements(record.classes).items()
    ]
    return [figure for figure in figures if figure is not None]


def _bias(metrics: Metrics, *, names: AgreementNames) -> Estimate | None:
    found = [metrics.values.get(name) for name in (names.bias, names.low, names.high)]
    bias, low, high = found
    return None if bias is None or low is None or high is None else Estimate(value=bias, low=low, high=high)


def _by_site(record: Record, estimate: Callable[[Metrics], Estimate | None]) -> dict[str, list[Estimate | None]]:
    """What is read from the test metrics of each view, by site."""
    views = tested_views(record)
    return {
        site: [estimate(record.final[site].test.get(view, Metrics())) for view in views]
        for site in record.sites
        if site in record.final
    }


def _estimate(metrics: Metrics, key: str) -> Estimate | None:
    """A metric and its interval, where that is known."""
    if key not in metrics.values:
        return None
    found = with_intervals({**metrics.values, "confusion_matrix": metrics.confusion})[key]
    if found["interval_95"] is None:
        return None
    low, high = found["interval_95"]
    return Estimate(value=found["value"], low=low, high=high)


def reliability(curves: Mapping[str, Mapping[int, Bin]]) -> Figure | None:
    """Share of correct predictions by confidence, a line per site."""
    return line_chart(
        {site: Line(points={place: b.accuracy for place, b in bins.items()}) for site, bins in curves.items()},
        title="Reliability of the personal models on the test split",
        description="Share of right answers by confidence of the answer; a line on the dotted one is calibrated. "
        "The table below has every number.",
        ticks={place: f"{(place + 0.5) / BINS:.2g}" for place in range(BINS)},
        x_label="confidence (middle of the bin)",
        y_label="share right",
        low=0.0,
        high=1.0,
        reference={place: (place + 0.5) / BINS for place in range(BINS)},
    )
