"""The figures of a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from monai_fedlora.export.intervals import with_intervals
from monai_fedlora.reporting.forest import Estimate, forest_plot
from monai_fedlora.reporting.record import OFF, ON, Answer, Metrics, Record
from monai_fedlora.reporting.run import BINS, Bin
from monai_fedlora.reporting.svg import Line, line_chart

KEY = "balanced_accuracy"
VIEWS = {ON: "private part on", OFF: "private part off"}
MEAN = "mean over sites"


def stages(record: Record) -> dict[int, Mapping[str, Answer]]:
    """Answers by the number of rounds behind the model that they evaluate."""
    found: dict[int, Mapping[str, Answer]] = {entry.number: entry.answers for entry in record.rounds}
    if record.final:
        end = record.last if record.last is not None else max(found, default=-1) + 1
        found[max(end, max(found, default=-1) + 1)] = record.final
    return found


def label(stage: int) -> str:
    """A stage in words."""
    return str(stage) if stage else "0 (start)"


def view_values(answers: Mapping[str, Answer], view: str, metric: str) -> dict[str, float]:
    """A validation metric by site, where it is known."""
    found = {site: each.validation.get(view, Metrics()).values.get(metric) for site, each in answers.items()}
    return {site: value for site, value in found.items() if value is not None}


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of what is known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def curve(record: Record, view: str) -> str:
    """Validation balanced accuracy by stage, a line per site and their mean."""
    found = {stage: view_values(answers, view, KEY) for stage, answers in stages(record).items()}
    return _sites_and_mean(
        f"curve-{view.replace('_', '-')}",
        record,
        found,
        title=f"Validation balanced accuracy by round, {VIEWS[view]}",
        x_label=f"rounds behind the model ({VIEWS[view]})",
        y_label="balanced accuracy",
        low=0.0,
        high=1.0,
    )


def test_scores(record: Record) -> str:
    """Balanced accuracy of every site's test cases with its interval, with the private part on and off."""
    views = [view for view in VIEWS if any(view in answer.test for answer in record.final.values())]
    rows = {
        site: [_estimate(record.final[site].test.get(view)) for view in views]
        for site in record.sites
        if site in record.final
    }
    return forest_plot(
        "test-scores",
        rows,
        series=[VIEWS[view] for view in views],
        title="Test balanced accuracy with 95 % intervals; dotted: chance",
        description="A row per site. Where two intervals overlap widely, the test cases do not tell the two apart. The "
        "tables above have the values.",
        x_label="balanced accuracy",
        chance=1 / len(record.classes) if record.classes else None,
    )


def _estimate(metrics: Metrics | None) -> Estimate | None:
    """Balanced accuracy and its interval, where the confusion matrix is known."""
    if metrics is None or KEY not in metrics.values:
        return None
    found = with_intervals({KEY: metrics.values[KEY], "confusion_matrix": metrics.confusion})[KEY]
    if found["interval_95"] is None:
        return None
    low, high = found["interval_95"]
    return Estimate(value=found["value"], low=low, high=high)


def losses(record: Record) -> str:
    """Training loss by round, a line per site and their mean."""
    found = {
        entry.number + 1: {site: a.train_loss for site, a in entry.answers.items() if a.train_loss is not None}
        for entry in record.rounds
    }
    return _sites_and_mean(
        "losses",
        record,
        found,
        title="Training loss by round",
        x_label="round",
        y_label="mean training loss",
    )


def reliability(curves: Mapping[str, Mapping[int, Bin]]) -> str:
    """Share of right answers by confidence, a line per site."""
    lines = {site: Line(points={place: b.accuracy for place, b in bins.items()}) for site, bins in curves.items()}
    return line_chart(
        "reliability",
        lines,
        title="Reliability of the personal models on the test split",
        description="Share of right answers by confidence of the answer; a line on the diagonal is calibrated. "
        "The table below has every number.",
        ticks={place: f"{(place + 0.5) / BINS:.2g}" for place in range(BINS)},
        x_label="confidence (middle of the bin)",
        y_label="share right",
        low=0.0,
        high=1.0,
        diagonal=True,
    )


def agreement(record: Record) -> str:
    """Mean cosine of each site's change to those of the others, by round."""
    found: dict[int, dict[str, float]] = {}
    for entry in record.rounds:
        if entry.agreement is None:
            continue
        by_site: dict[str, list[float]] = {}
        for pair, value in entry.agreement.cosines.items():
            for site in pair if value is not None else ():
                by_site.setdefault(site, []).append(value or 0.0)
        found[entry.number + 1] = {site: fmean(values) for site, values in by_site.items()}
    return _sites_and_mean(
        "agreement",
        record,
        found,
        title="Mean cosine of each site's change to those of the others, by round",
        rest="The tables below have the cosine of every pair.",
        x_label="round",
        y_label="mean cosine",
        low=min([-0.1, *(value for values in found.values() for value in values.values())]),
        high=1.0,
    )


def _sites_and_mean(
    name: str,
    record: Record,
    found: Mapping[int, Mapping[str, float]],
    *,
    rest: str = "The table below has every number.",
    **options: Any,
) -> str:
    """A line per site and their mean over the stages of ``found``; ``rest`` ends what is read aloud."""
    lines = {
        site: Line(points={stage: values[site] for stage, values in found.items() if site in values})
        for site in record.sites
    }
    means = {stage: fmean(values.values()) for stage, values in found.items() if values}
    return line_chart(
        name,
        {**lines, MEAN: Line(points=means, strong=True)},
        description=f"{_course(means)} {rest}",
        ticks={stage: str(stage) for stage in found},
        **options,
    )


def _course(means: Mapping[int, float]) -> str:
    """The mean's way in a sentence."""
    if not means:
        return "No mean is known."
    first, last = min(means), max(means)
    return f"The mean over sites is {means[first]:.3f} at {first} and {means[last]:.3f} at {last}."
