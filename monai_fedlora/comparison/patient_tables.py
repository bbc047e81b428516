"""The tables of a comparison's report that are computed from patients: measures, worst site, calibration, subgroups."""

from __future__ import annotations

from monai_fedlora.comparison.method_tables import CLAIM, claimed
from monai_fedlora.comparison.outcome import Outcome
from monai_fedlora.comparison.patient_draws import Estimate
from monai_fedlora.comparison.patient_measures import PatientMeasure
from monai_fedlora.comparison.subgroup_figures import FEWER, SubgroupFigure, SubgroupFigures
from monai_fedlora.rendering.tables import MISSING, Table, count, shown


def worst_sites(outcome: Outcome) -> Table:
    """The worst site of every method with its interval, how often each site is the worst, and of how many it is."""
    sites = len(outcome.comparison.sites)
    rows = [
        [
            method + ("" if len(worst.shares) == sites else f" ({len(worst.shares)} of {sites} sites)"),
            *_estimate(worst.found),
            ", ".join(f"{site} {share:.0%}" for site, share in _likely(worst.shares)),
        ]
        for method, worst in outcome.worst_sites.items()
    ]
    return Table(
        caption=f"{outcome.measures.title} at the worst site",
        head=["method", outcome.measures.word, "95 % interval", "which site, in how many draws"],
        rows=rows,
    )


def patient_measures(outcome: Outcome) -> list[Table]:
    """For every further measure of patients the methods' means and differences; the best is bold by its interval."""
    return [_of_measure(found) for found in outcome.patient_measures]


def _of_measure(found: PatientMeasure) -> Table:
    differences = {each.method: each for each in found.differences}
    rows = []
    for mean in found.means:
        low, high = mean.here.low, mean.here.high
        interval = MISSING if low is None or high is None else f"{low:.3f} to {high:.3f}"
        than = differences.get(mean.method)
        cells = [f"{than.difference:+.3f}", *claimed(than.here)] if than else [""] * (1 + len(CLAIM))
        rows.append([mean.method, shown(mean.value), interval, *cells])
    least = "" if found.detectable is None else f"; detectable difference {found.detectable:.3f}"
    return Table(
        caption=f"{found.word[0].upper()}{found.word[1:]}, mean over sites{least}",
        head=["method", "mean", "95 % interval", f"minus {found.means[0].method}", *CLAIM],
        rows=rows,
        bold=[found.best] if found.best else [],
    )


def calibrations(outcome: Outcome) -> Table:
    """Brier score and calibration error of every method, with their intervals."""
    return Table(
        caption="Calibration, mean over sites",
        head=["method", "Brier score", "95 % interval", "calibration error", "95 % interval", "by chance up to"],
        rows=[
            [method, *_estimate(each.brier), *_estimate(each.error), shown(each.by_chance)]
            for method, each in outcome.calibrations.items()
        ],
    )


def subgroups(outcome: Outcome) -> list[Table]:
    """For every column the methods in its subgroups, and the largest gap between two."""
    return [
        _of_column(outcome, column, [each for each in outcome.subgroups if each.column == column])
        for column in dict.fromkeys(each.column for each in outcome.subgroups)
    ]


def _of_column(outcome: Outcome, column: str, found: list[SubgroupFigures]) -> Table:
    names = list(dict.fromkeys(figure.name for each in found for figure in each.figures))
    rows = [["patients", *_patients(found, names), "", "", ""]]
    for each in found:
        figures = {figure.name: figure for figure in each.figures}
        between = f"{each.best} over {each.worst}" if each.gap is not None else MISSING
        cells = [_figure(figures.get(name)) for name in names]
        rows.append([each.method, *cells, shown(each.gap), between, shown(each.by_chance)])
    classes = found[0].classes
    over = f", over {', '.join(classes)}" if len(classes) < len(outcome.comparison.classes) and classes else ""
    return Table(
        caption=f"{outcome.measures.title} by {column}{over}",
        head=["method", *names, "largest gap", "between", "by chance up to"],
        rows=rows,
    )


def _patients(found: list[SubgroupFigures], names: list[str]) -> list[str]:
    counts = {figure.name: figure.patients for each in found for figure in each.figures}
    return [FEWER if counts[name] is None else count(counts[name]) for name in names]


def _figure(figure: SubgroupFigure | None) -> str:
    if figure is None or figure.value is None:
        return MISSING
    interval = "" if figure.low is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    return f"{figure.value:.3f}{interval}"


def _likely(shares: dict[str, float]) -> list[tuple[str, float]]:
    """The sites that are the worst in one of twenty draws or more, the most frequent first."""
    found = [(site, share) for site, share in shares.items() if share >= 0.05]
    return sorted(found, key=lambda pair: -pair[1])


def _estimate(found: Estimate) -> list[str]:
    interval = MISSING if found.low is None or found.high is None else f"{found.low:.3f} to {found.high:.3f}"
    return [shown(found.value), interval]
