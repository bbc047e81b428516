"""The report of a comparison: one HTML file without requests to other machines."""

from __future__ import annotations

from pathlib import Path

from monai_fedlora.comparison import method_figures, method_tables, patient_tables
from monai_fedlora.comparison.outcome import Outcome
from monai_fedlora.comparison.outcome_files import JSON_NAME, ROWS_NAME, TABLE_NAME
from monai_fedlora.comparison.result_rows import chosen
from monai_fedlora.comparison.score_differences import FEWEST_SITES
from monai_fedlora.files import write_text
from monai_fedlora.rendering.documents import render
from monai_fedlora.rendering.tables import plural
from monai_fedlora.site_report import PERSONAL

REPORT_NAME = "report.html"
FEW_CASES = 5
"""Number of test cases of a class below which a site's balanced accuracy depends on single cases (ours)."""


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write ``report.html`` and return its path."""
    path = folder / REPORT_NAME
    write_text(path, page(outcome))
    return path


def page(outcome: Outcome) -> str:
    """The report's HTML."""
    comparison = outcome.comparison
    return render(
        "monai_fedlora.comparison",
        "comparison.html",
        title=f"{plural(len(comparison.methods), 'method')} at {plural(len(comparison.sites), 'site')}",
        outcome=outcome,
        comparison=comparison,
        failures=method_tables.failures(outcome),
        methods=method_tables.methods(outcome),
        seeds_figure=method_figures.seeds_figure(outcome),
        sites_figure=method_figures.sites_figure(outcome),
        cases=method_tables.cases(outcome),
        differences=method_tables.differences(outcome),
        elsewhere=method_tables.elsewhere(outcome),
        patient_measures=patient_tables.patient_measures(outcome),
        worst_sites=patient_tables.worst_sites(outcome),
        subgroups=patient_tables.subgroups(outcome),
        calibrations=patient_tables.calibrations(outcome),
        fewest_sites=FEWEST_SITES,
        unseen=method_tables.unseen(outcome),
        learning_curve=method_tables.learning_curve(outcome) if comparison.curve_sites else None,
        curve_figures=method_figures.curve_figures(outcome) if comparison.curve_sites else [],
        joined=method_tables.joined(outcome),
        unseen_figure=method_figures.unseen_figure(outcome),
        traffic_figure=method_figures.traffic_figure(outcome),
        settings=[method_tables.common_settings(outcome), method_tables.method_settings(outcome)],
        steps=method_tables.steps(outcome),
        tuning=method_tables.tuning(outcome),
        uncached=[method for method in comparison.methods if not comparison.training(method)["cache_features"]],
        tested=sum(sum(outcome.tested_at(site)) for site in comparison.sites),
        undefined=[
            word
            for name, word in outcome.measures.further.items()
            if any(row.values[name] is None for row in chosen(outcome.rows, view=PERSONAL))
        ],
        rare="; ".join(f"{site}: {', '.join(names)}" for site, names in _rare_classes(outcome).items()),
        few_cases=FEW_CASES,
        files=(TABLE_NAME, ROWS_NAME, JSON_NAME),
    )


def _rare_classes(outcome: Outcome) -> dict[str, list[str]]:
    """By site, the classes that have test cases, but fewer than :data:`FEW_CASES`; none in a task without classes."""
    if not outcome.measures.by_class:
        return {}
    classes = outcome.comparison.classes
    found = {
        site: [name for name, count in zip(classes, outcome.tested_at(site), strict=True) if 0 < count < FEW_CASES]
        for site in outcome.comparison.sites
    }
    return {site: names for site, names in found.items() if names}
