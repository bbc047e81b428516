"""The tables of a comparison's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.comparison.comparison_settings import Comparison
from monai_fedlora.comparison.outcome import ALONE, Outcome
from monai_fedlora.comparison.score_differences import Claim, MethodDifference
from monai_fedlora.comparison.statistics import Summary, written
from monai_fedlora.data.cases import SPLITS
from monai_fedlora.federated.plan import BY_CASES, EQUAL
from monai_fedlora.methods.base import get_method
from monai_fedlora.rendering.tables import MISSING, Table, count, plural, shown


def failures(outcome: Outcome) -> Table:
    """Runs that ended with an error."""
    rows = [[failure.run.name, failure.reason] for failure in outcome.failures]
    return Table(caption="Runs that ended with an error", head=["run", "reason"], rows=rows, text=True)


def methods(outcome: Outcome) -> Table:
    """Metrics and costs of every method; the best one is bold if its interval excludes the next."""
    rows = []
    for summary in outcome.summaries:
        worst = f" ({summary.worst_site})" if summary.worst_site else ""
        few = len(summary.sites) < len(outcome.comparison.sites)
        covered = f" ({len(summary.sites)} of {len(outcome.comparison.sites)} sites)" if few and summary.score else ""
        rows.append(
            [
                summary.method,
                written(summary.score) + _interval(outcome, summary) + covered,
                written(summary.worst) + worst,
                *(written(found) for found in summary.further.values()),
                written(summary.shared),
                *map(count, outcome.traffic(summary.method) or (None, None)),
                shown(outcome.seconds(summary.method), ",.0f"),
            ]
        )
    return Table(
        caption=f"Test cases of the sites{outcome.of_images}{_detectable(outcome)}",
        head=[
            "method",
            outcome.measures.word,
            "worst site",
            *outcome.measures.further.values(),
            "shared model",
            "bytes up",
            "bytes down",
            "seconds per run",
        ],
        rows=rows,
        bold=outcome.best,
    )


def _interval(outcome: Outcome, summary: Summary) -> str:
    """The interval over patients of a method with one run, in place of a spread over runs."""
    mean = outcome.means.get(summary.method)
    if summary.score is None or summary.score.spread is not None or mean is None or mean.here.low is None:
        return ""
    return f" ({mean.here.low:.3f} to {mean.here.high:.3f})"


def _detectable(outcome: Outcome) -> str:
    least = outcome.detectable
    if least is None:
        return ""
    models = " of these trained models" if any(each.here.of_models for each in outcome.differences) else ""
    return f"; detectable difference in {outcome.measures.word}{models} {least:.3f}"


def steps(outcome: Outcome) -> Table:
    """Optimiser steps of every method in a round, mean over sites and runs."""
    rows = []
    for method in outcome.comparison.methods:
        found = outcome.steps(method) or {}
        numbers = [shown(found.get(name), ",.4g") for name in ("steps", "shared", "private", "cases", "after")]
        rows.append([method, *numbers, outcome.other_steps.get(method, "")])
    return Table(
        caption="Optimiser steps of a site in a round" + (", made equal" if outcome.comparison.equal_steps else ""),
        head=[
            "method",
            "steps",
            "of the shared part",
            "of the private part",
            "cases in a step",
            "after the last round",
            "differs",
        ],
        rows=rows,
        text=True,
    )


def cases(outcome: Outcome) -> Table:
    """Cases of every site and split, per class where there are classes."""
    found = [(site, outcome.datalists[site]) for site in outcome.comparison.sites]
    per_class = f" per class ({' / '.join(outcome.comparison.classes)})" if outcome.measures.by_class else ""
    if outcome.comparison.folds:
        return Table(
            caption=f"Cases{per_class}",
            head=["site", "data set", "images", "cases"],
            rows=[[site, d.dataset, d.origin.kind, " / ".join(map(str, outcome.tested_at(site)))] for site, d in found],
            text=True,
        )
    return Table(
        caption=f"Cases{per_class}",
        head=["site", "data set", "images", *SPLITS],
        rows=[
            [site, each.dataset, each.origin.kind, *(" / ".join(map(str, each.counts(split))) for split in SPLITS)]
            for site, each in found
        ],
        text=True,
    )


def differences(outcome: Outcome) -> Table:
    """Every method against the first one, at these sites."""
    rows = [(each, each.here, each.patients) for each in outcome.differences]
    return _against_first(outcome, rows, place="these sites", units="patients")


def elsewhere(outcome: Outcome) -> Table:
    """Every method against the first one, at hospitals like these."""
    rows = [(each, each.elsewhere, each.sites) for each in outcome.differences if each.elsewhere]
    return _against_first(outcome, rows, place="hospitals like these", units="sites")


def _against_first(
    outcome: Outcome, rows: Sequence[tuple[MethodDifference, Claim, int]], *, place: str, units: str
) -> Table:
    return Table(
        caption=f"{outcome.measures.title} at {place}, by {units} and runs",
        head=["method", "difference", *CLAIM, units, "runs"],
        rows=[
            [each.method, f"{each.difference:+.3f}", *claimed(claim), count, each.runs] for each, claim, count in rows
        ],
    )


CLAIM = ("95 % interval", "p", "p after Holm", "detectable")
"""Heads of the cells of :func:`claimed`."""


def claimed(claim: Claim) -> list[str]:
    """Interval, p, p after Holm's correction and detectable difference as the cells of :data:`CLAIM`."""
    interval = MISSING if claim.low is None or claim.high is None else f"{claim.low:+.3f} to {claim.high:+.3f}"
    return [interval, shown(claim.p, ".3g"), shown(claim.p_holm, ".3g"), shown(claim.detectable)]


def unseen(outcome: Outcome) -> Table:
    """Results at held-out sites."""
    comparison = outcome.comparison
    columns = [n for n in (0, *comparison.new_site_cases) if any(n in s.unseen for s in outcome.summaries)]
    rows = [
        [
            s.method,
            *(written(s.unseen.get(n)) for n in columns),
            "trained there" if comparison.facts[s.method].private_head else "the federation's",
        ]
        for s in outcome.summaries
    ]
    least = [outcome.detectable_unseen(n) for n in columns]
    if any(value is not None for value in least):
        rows.append(["detectable difference", *map(shown, least), ""])
    return Table(
        caption=f"{outcome.measures.title}, by number of the new site's own training cases",
        head=["method", *(f"{n} cases" if n else "at once" for n in columns), "head"],
        rows=rows,
    )


def learning_curve(outcome: Outcome) -> Table:
    """Every method by number of training patients, and beside it what joining gives, at all sites and at each."""
    comparison = outcome.comparison
    columns = (*comparison.curve_cases, None)
    places = [None, *(comparison.curve_sites if len(comparison.curve_sites) > 1 else ())]
    rows = []
    for site in places:
        for method in comparison.methods:
            name = comparison.curve_sites[0] if len(places) == 1 else site or "mean over sites"
            rows.append([name, method, *(written(outcome.curve(method, n, site=site)) for n in columns)])
            if method != ALONE:
                gains = [outcome.curve_gain(method, n, site=site) for n in columns]
                cells = [f"{each.difference:+.3f} ({claimed(each.here)[0]})" if each else MISSING for each in gains]
                rows.append([name, f"{method} minus {ALONE}", *cells])
    return Table(
        caption=f"{outcome.measures.title} by number of the site's own training patients",
        head=["site", "method", *(f"{n} patients" if n else "all" for n in columns)],
        rows=rows,
    )


def joined(outcome: Outcome) -> Table:
    """What joining late gives a held-out site beyond training alone on the same cases, by their number."""
    columns = [n for n in outcome.comparison.new_site_cases if any(n in s.unseen for s in outcome.summaries)]
    rows = []
    for method in outcome.comparison.methods:
        found = [outcome.joined(method, n) for n in columns]
        if any(found):
            cells = [f"{each.difference:+.3f} ({claimed(each.here)[0]})" if each else MISSING for each in found]
            rows.append([method, *cells])
    return Table(
        caption=f"{outcome.measures.title} minus that of training alone, by number of the new site's cases",
        head=["method", *(f"{n} cases" for n in columns)],
        rows=rows,
    )


def common_settings(outcome: Outcome) -> Table:
    """Settings that all methods have in common."""
    comparison = outcome.comparison
    rows = [
        ["bundle", comparison.bundle],
        ["backbone", f"{comparison.size}, {'packaged demo weights' if outcome.is_demo else outcome.backbone}"],
        ["backbone SHA-256", comparison.backbone_sha256],
        [outcome.measures.named, ", ".join(comparison.classes)],
        ["means over sites", "by numbers of test cases" if comparison.mean_by_cases else "each with the same weight"],
        ["averages of a round", _averages(comparison)],
        ["rounds, local epochs", f"{comparison.rounds}, {comparison.local_epochs}"],
        ["seeds", ", ".join(map(str, comparison.seeds))],
        *([["splits", _splits(comparison)]] if comparison.folds else []),
        ["version", __version__],
    ]
    return Table(caption="Of all methods", rows=rows, text=True)


def _averages(comparison: Comparison) -> str:
    """How much sites count in the averages of a round."""
    words = {BY_CASES: "by numbers of training cases", EQUAL: "each site with the same weight"}
    found = {row: comparison.federation(row).get("site_weights", BY_CASES) for row in comparison.methods}
    if len(set(found.values())) == 1:
        return words[next(iter(found.values()))]
    return "; ".join(f"{row} {words[weights]}" for row, weights in found.items())


def tuning(outcome: Outcome) -> Table | None:
    """What was tried of every method; the chosen setting is marked. None where settings were given."""
    if outcome.tuning is None:
        return None
    rows = [
        [
            each.method,
            ", ".join(f"{name}={value}" for name, value in each.settings.items()),
            count(len(each.values)),
            shown(each.mean),
            "chosen" if outcome.tuning.chosen[each.method] == each.settings else "",
        ]
        for each in outcome.tuning.tried
    ]
    return Table(
        caption=f"{outcome.measures.title} on validation cases of the first split, mean over sites",
        head=["method", "settings", "runs", outcome.measures.word, "choice"],
        rows=rows,
        text=True,
    )


def _splits(comparison: Comparison) -> str:
    return f"{comparison.folds} folds by patient and class, {plural(comparison.repeats, 'time')}"


def method_settings(outcome: Outcome) -> Table:
    """Summary, number of parameters and settings of each method."""
    comparison = outcome.comparison
    rows: list[list[Any]] = []
    for method in comparison.methods:
        facts = comparison.facts[method]
        own = {**comparison.method_args(method), **comparison.federation(method), **comparison.training(method)}
        given = ", ".join(f"{name}={value}" for name, value in own.items())
        registered = comparison.method_of(method)
        what = f"{registered}: " if registered != method else ""
        rows.append([method, what + get_method(registered).summary, count(facts.shared), count(facts.private), given])
    return Table(
        caption="Of each method",
        head=["method", "what it does", "shared parameters", "private", "settings given"],
        rows=rows,
        text=True,
    )
