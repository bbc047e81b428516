"""The tables of a run's report that are made from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.exporting.model_card import VIEW_NAMES
from monai_fedlora.rendering.tables import MISSING, Table, count, mean_cell, shown
from monai_fedlora.reporting.record import Agreement, Answer, Limits, Metrics, Record
from monai_fedlora.site_report import REPORTED
from monai_fedlora.tasks.task import CONFUSION, AgreementNames

_NOTHING = Answer()


def stages(record: Record) -> dict[int, Mapping[str, Answer]]:
    """Reports by the number of rounds for which the evaluated model was trained."""
    found: dict[int, Mapping[str, Answer]] = {entry.number: entry.answers for entry in record.rounds}
    if record.final:
        end = record.last if record.last is not None else max(found, default=-1) + 1
        found[max(end, max(found, default=-1) + 1)] = record.final
    return found


def view_values(answers: Mapping[str, Answer], view: str, metric: str) -> dict[str, float]:
    """A validation metric by site, where it is known."""
    found = {site: each.validation.get(view, Metrics()).values.get(metric) for site, each in answers.items()}
    return {site: value for site, value in found.items() if value is not None}


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def test_metrics(record: Record) -> list[Table]:
    """Metrics of the test cases by site and their mean, a table per model."""
    tables = []
    names = {**record.task.measures, **record.task.more(record.classes)}
    for view, called in VIEW_NAMES.items():
        tested = {site: record.final.get(site, _NOTHING).test for site in record.sites}
        found = {site: views[view] for site, views in tested.items() if view in views}
        rows: list[list[Any]] = [
            [site, count(metrics.n), *(shown(metrics.values.get(name)) for name in names)]
            for site, metrics in found.items()
        ]
        rows.append(
            ["mean", "", *(mean_cell([metrics.values.get(name) for metrics in found.values()]) for name in names)]
        )
        caption = f"Test split, {called}; in the mean each site has the same weight, and none where it says {MISSING}"
        tables += [Table(caption=caption, head=["site", "cases", *names.values()], rows=rows)] if found else []
    return tables


def tested_views(record: Record) -> list[str]:
    """The views of which any site has tested a model."""
    return [view for view in VIEW_NAMES if any(view in answer.test for answer in record.final.values())]


def biases(record: Record) -> list[Table]:
    """Bias and limits of agreement of each number by site, a table per model; none where no site has any."""
    numbers = record.task.agreements(record.classes)
    head = ["site", *(f"{name}, {names.unit}" if names.unit else name for name, names in numbers.items())]
    tables = []
    for view in tested_views(record):
        found = {site: record.final[site].test.get(view, Metrics()).values for site in record.final}
        rows = [
            [site, *(_bias(found[site], names) for names in numbers.values())] for site in record.sites if site in found
        ]
        if any(cell != MISSING for row in rows for cell in row[1:]):
            caption = (
                f"Test split, {VIEW_NAMES[view]}: bias, found minus reference, with limits of agreement in brackets"
            )
            tables.append(Table(caption=caption, head=head, rows=rows))
    return tables


def _bias(values: Mapping[str, float], names: AgreementNames) -> str:
    if names.bias not in values:
        return MISSING
    low, high = (shown(values.get(name), "+.2f") for name in (names.low, names.high))
    return f"{values[names.bias]:+.2f} ({low} to {high})"


def sites(record: Record) -> Table:
    """Number of cases of each site, and of the rounds in which it took part."""
    rows = []
    for site in record.sites:
        answers = [entry.answers[site] for entry in record.rounds if site in entry.answers]
        final = record.final.get(site, _NOTHING)
        cases = (each.cases for each in (final, *reversed(answers)) if each.cases is not None)
        splits = (next(filter(None, (_cases(each, split) for each in (final, *answers))), None) for split in REPORTED)
        trained = sum(each.train_loss is not None for each in answers)
        refused = sum(each.site == site for each in record.refused)
        seconds = sum(each.seconds or 0.0 for each in (*answers, final))
        rows.append([site, count(next(cases, None)), *map(count, splits), trained, refused, f"{seconds:,.0f}"])
    return Table(
        caption="What each site has, and how often it took part",
        head=["site", "training cases", "validation cases", "test cases", "rounds answered", "refused", "seconds"],
        rows=rows,
    )


def _cases(answer: Answer, split: str) -> int | None:
    return next((metrics.n for metrics in getattr(answer, split).values() if metrics.n is not None), None)


def learning_curves(record: Record) -> Table:
    """The task's key metric on validation cases, of both models by number of rounds."""
    rows = []
    for stage, answers in stages(record).items():
        both = [view_values(answers, view, record.task.key) for view in VIEW_NAMES]
        cells = [" / ".join(shown(values.get(site)) for values in both) for site in record.sites]
        means = " / ".join(shown(mean_of(list(values.values()))) for values in both)
        rows.append([str(stage) if stage else "0 (start)", *cells, means])
    return Table(
        caption=f"Validation {record.task.word}, {' / '.join(VIEW_NAMES.values())}",
        head=["rounds so far", *record.sites, "mean"],
        rows=rows,
    )


def losses(record: Record) -> Table:
    """Mean training loss by round and site."""
    rows = [
        [entry.number + 1, *(shown(entry.answers.get(site, _NOTHING).train_loss) for site in record.sites)]
        for entry in record.rounds
    ]
    return Table(caption="Mean training loss of each round", head=["round", *record.sites], rows=rows)


def calibration(record: Record) -> Table:
    """Calibration error of the test cases by site and model."""
    rows = [
        [site, *(shown(record.final[site].test.get(view, Metrics()).values.get("ece")) for view in VIEW_NAMES)]
        for site in record.sites
        if site in record.final and CONFUSION in record.task.sections
    ]
    return Table(
        caption="Expected calibration error on the test split: 0 is perfect",
        head=["site", *VIEW_NAMES.values()],
        rows=rows,
    )


def confusion(record: Record) -> list[Table]:
    """A confusion matrix per site and model."""
    tables = []
    for site in record.sites:
        for view, metrics in record.final.get(site, _NOTHING).test.items():
            size = len(metrics.confusion)
            names = record.classes if len(record.classes) == size else [f"class {n + 1}" for n in range(size)]
            rows = [[name, *row, sum(row)] for name, row in zip(names, metrics.confusion, strict=True)]
            caption = f"{site}, test split, {VIEW_NAMES[view]}: a row per true, a column per predicted class"
            tables += [Table(caption=caption, head=["true class", *names, "all"], rows=rows)] if rows else []
    return tables


def traffic(record: Record) -> Table:
    """Bytes of all messages by round and site; no rows where they were not counted."""
    counted = [
        entry
        for entry in record.rounds
        if any(a.sent is not None or a.received is not None for a in entry.answers.values())
    ]
    answers = [[entry.answers.get(site, _NOTHING) for site in record.sites] for entry in counted]
    rows: list[list[Any]] = [
        [entry.number + 1, *(f"{count(a.sent)} / {count(a.received)}" for a in found)]
        for entry, found in zip(counted, answers, strict=True)
    ]
    if rows:
        of_site = zip(*answers, strict=True)
        rows.append(
            ["all", *(f"{sum(a.sent or 0 for a in t):,} / {sum(a.received or 0 for a in t):,}" for t in of_site)]
        )
    return Table(caption="Bytes of all messages, sent / received by the site", head=["round", *record.sites], rows=rows)


def agreements(record: Record) -> list[Table]:
    """Norms of the sites' changes and their cosines, a table per round."""
    return [_agreement(entry.number + 1, entry.agreement) for entry in record.rounds if entry.agreement is not None]


def _agreement(number: int, found: Agreement) -> Table:
    def cell(one: str, other: str) -> str:
        return "" if one == other else shown(found.cosines.get((one, other), found.cosines.get((other, one))), "+.3f")

    rows = [
        [one, shown(found.norms.get(one), ".4g"), *(cell(one, other) for other in found.sites)] for one in found.sites
    ]
    return Table(
        caption=f"Round {number}: length of each site's change, and its cosine to each other",
        head=["site", "length", *found.sites],
        rows=rows,
    )


def limits(record: Record) -> list[Table]:
    """Changes that were clipped, and sites whose weight was reduced."""
    known = _limits(record)
    cut = [
        [number, site, shown(length, ".4g"), shown(each.usual, ".4g"), shown(each.longest, ".4g"), f"{kept:.2%}"]
        for number, each in known
        for site, (length, kept) in each.clipped.items()
    ]
    weighed = [
        [number, site, count(claimed), count(counted)]
        for number, each in known
        for site, (claimed, counted) in each.weights.items()
    ]
    tables = [
        Table(
            caption="Changes above the bound, which were clipped to it",
            head=["round", "site", "length", "median", "bound", "counted"],
            rows=cut,
        ),
        Table(
            caption="Undeclared training cases that weighed less than claimed; job --cases declares them",
            head=["round", "site", "claimed", "counted"],
            rows=weighed,
        ),
    ]
    return [table for table in tables if table.rows]


def unlimited(record: Record) -> list[int] | None:
    """Rounds with too few changes for a bound; None where the record has no limits at all."""
    known = _limits(record)
    return [number for number, each in known if each.longest is None] if known else None


def _limits(record: Record) -> list[tuple[int, Limits]]:
    return [(entry.number + 1, entry.limits) for entry in record.rounds if entry.limits is not None]


def refused(record: Record) -> Table:
    """Updates that the server refused."""
    rows = [
        [MISSING if each.round is None else each.round + 1, each.site, each.code or MISSING, each.reason]
        for each in record.refused
    ]
    head = ["round", "site", "code", "why"]
    return Table(caption="Answers that were left out of their round", head=head, rows=rows, text=True)


def settings(record: Record) -> Table:
    """The run's plan."""
    rows = [[name, _setting(value)] for name, value in record.plan.items()]
    rows += [["written by version", record.version or MISSING], ["page made by version", __version__]]
    return Table(caption="The plan of the run", head=["setting", "value"], rows=rows, text=True)


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_setting(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
