"""The machine-readable files of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.comparison.comparison_settings import Comparison
from monai_fedlora.comparison.outcome import ALONE, Outcome
from monai_fedlora.comparison.patient_draws import Estimate
from monai_fedlora.comparison.result_rows import Row
from monai_fedlora.comparison.score_differences import Claim
from monai_fedlora.comparison.single_runs import single_run_tests
from monai_fedlora.comparison.statistics import Average, Summary
from monai_fedlora.comparison.subgroup_figures import FEWER
from monai_fedlora.comparison.tuning import Tuning
from monai_fedlora.data.cases import SPLITS
from monai_fedlora.files import csv_text, write_json, write_text

TABLE_NAME, ROWS_NAME, JSON_NAME = "table.csv", "results.csv", "comparison.json"
SINGLE_NAME, SUBGROUPS_NAME, PATIENTS_NAME = "single_runs.csv", "subgroups.csv", "patient_measures.csv"
_STEPS = {
    "steps": "steps_per_site_and_round",
    "shared": "steps_of_shared_part",
    "private": "steps_of_private_part",
    "cases": "cases_per_step",
    "after": "steps_after_last_round",
}
"""Columns of the table, by the names of what :func:`step_counts` gives."""
_COMPARED = ("reference", "difference", "sites", "patients", "runs", "left_out")
_CLAIM = ("low", "high", "p", "p_holm", "detectable")


def write_files(outcome: Outcome, folder: Path) -> None:
    """Write ``table.csv`` (a row per method), ``results.csv`` (a row per run, site and view), ``comparison.json``.

    In a task with classes also ``single_runs.csv``, see :func:`single_run_tests`, with subgroups ``subgroups.csv`` (a
    row per method, column and subgroup), and with further measures of patients ``patient_measures.csv`` (a row per
    measure and method).
    """
    write_text(folder / TABLE_NAME, _csv(table(outcome)))
    write_text(folder / ROWS_NAME, _csv(map(_row, outcome.rows_of_runs)))
    lines = []
    if outcome.measures.by_class:
        lines = list(single_run_tests(outcome.scores, list(outcome.comparison.methods), outcome.comparison.classes))
    _write_if_any(folder / SINGLE_NAME, lines)
    _write_if_any(folder / SUBGROUPS_NAME, _subgroup_lines(outcome))
    _write_if_any(folder / PATIENTS_NAME, _patient_lines(outcome))
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
        mean = outcome.means.get(summary.method)
        row |= {f"{key}_low": mean.here.low if mean else None, f"{key}_high": mean.here.high if mean else None}
        row["worst_site"] = summary.worst_site
        worst, calibrated = outcome.worst_sites.get(summary.method), outcome.calibrations.get(summary.method)
        row |= _ends(f"worst_site_{key}", worst.found if worst else None)
        if outcome.measures.by_class:
            row |= _interval("brier", calibrated.brier if calibrated else None)
            row |= _interval("calibration_error", calibrated.error if calibrated else None)
            row["calibration_error_by_chance"] = calibrated.by_chance if calibrated else None
        row["best_and_interval_excludes_next"] = summary.method in outcome.best
        for site in outcome.comparison.sites:
            row |= _flat(f"{key}_at_{site}", summary.sites.get(site))
        if outcome.comparison.unseen:
            for n in (0, *outcome.comparison.new_site_cases):
                row |= _flat(f"unseen_site_{key}_after_{n}_cases", summary.unseen.get(n))
        up, down = outcome.traffic(summary.method) or (None, None)
        row |= {"bytes_up_per_site_and_round": up, "bytes_down_per_site_and_round": down}
        row["seconds_per_run"] = outcome.seconds(summary.method)
        counts = outcome.steps(summary.method) or {}
        row |= {column: counts.get(name) for name, column in _STEPS.items()}
        found = differences.get(summary.method)
        for name in _COMPARED:
            row[name] = getattr(found, name) if found else None
        row |= _claim(found.here if found else None) | _claim(found.elsewhere if found else None, "elsewhere_")
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
            "mean_over_sites": "by cases" if comparison.mean_by_cases else "equal",
            "unseen": list(comparison.unseen),
            "new_site_cases": list(comparison.new_site_cases),
            **({"curve": _curve_settings(comparison)} if comparison.curve_sites else {}),
            "methods": {
                method: {
                    "method": comparison.method_args(method),
                    "training": comparison.training(method),
                    **({"of": comparison.method_of(method)} if method in comparison.registered else {}),
                    **({"federation": federation} if (federation := comparison.federation(method)) else {}),
                }
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
        "means": {method: dataclasses.asdict(each.here) for method, each in outcome.means.items()},
        "patient_measures": [dataclasses.asdict(each) for each in outcome.patient_measures],
        "lacking": outcome.lacking,
        "worst_sites": {method: dataclasses.asdict(each) for method, each in outcome.worst_sites.items()},
        "calibration": {method: dataclasses.asdict(each) for method, each in outcome.calibrations.items()},
        "subgroups": [dataclasses.asdict(each) for each in outcome.subgroups],
        **({"learning_curve": _curve(outcome)} if comparison.curve_sites else {}),
        "best_and_next": dataclasses.asdict(outcome.next) if outcome.next else None,
        "seconds_per_run": {method: outcome.seconds(method) for method in comparison.methods},
        "steps": {method: outcome.steps(method) for method in comparison.methods},
        "facts": {method: dataclasses.asdict(comparison.facts[method]) for method in comparison.methods},
        "missing_runs": outcome.missing,
        "failures": [{"run": failure.run.name, "reason": failure.reason} for failure in outcome.failures],
        "refused": [{"run": run.name, **refusal} for run, refusal in outcome.refused()],
    }


def _curve_settings(comparison: Comparison) -> dict[str, Any]:
    return {"sites": list(comparison.curve_sites), "cases": list(comparison.curve_cases)}


def _tuning(tuning: Tuning) -> dict[str, Any]:
    tried = [{**dataclasses.asdict(each), "validation": each.mean} for each in tuning.tried]
    return {"runs_per_method": tuning.budget, "tried": tried, "chosen": dict(tuning.chosen)}


def _curve(outcome: Outcome) -> list[dict[str, Any]]:
    """Every point of every learning curve, with what joining gives beyond training alone."""
    comparison, points = outcome.comparison, []
    for method in comparison.methods:
        for site in comparison.curve_sites:
            for n in (*comparison.curve_cases, None):
                value = outcome.curve(method, n, site=site)
                gain = outcome.curve_gain(method, n, site=site) if method != ALONE else None
                points.append(
                    {
                        "method": method,
                        "site": site,
                        "cases": n,
                        "value": dataclasses.asdict(value) if value else None,
                        "gain": dataclasses.asdict(gain) if gain else None,
                    }
                )
    return points


def _summary(summary: Summary) -> dict[str, Any]:
    found = dataclasses.asdict(summary)
    return {**found.pop("further"), **found}


def _flat(name: str, value: Average | None) -> dict[str, float | None]:
    return {name: value.mean if value else None, f"{name}_sd": value.spread if value else None}


def _ends(name: str, value: Estimate | None) -> dict[str, float | None]:
    return {f"{name}_low": value.low if value else None, f"{name}_high": value.high if value else None}


def _interval(name: str, value: Estimate | None) -> dict[str, float | None]:
    return {name: value.value if value else None, **_ends(name, value)}


def _write_if_any(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    if lines:
        write_text(path, _csv(lines))
    else:
        path.unlink(missing_ok=True)


def _claim(claim: Claim | None, prefix: str = "") -> dict[str, float | None]:
    return {f"{prefix}{name}": getattr(claim, name) if claim else None for name in _CLAIM}


def _patient_lines(outcome: Outcome) -> list[dict[str, Any]]:
    lines = []
    for found in outcome.patient_measures:
        differences = {each.method: each for each in found.differences}
        for mean in found.means:
            than = differences.get(mean.method)
            interval = {"mean_low": mean.here.low, "mean_high": mean.here.high}
            line = {"measure": found.word, "method": mean.method, "mean": mean.value, **interval}
            line |= {name: getattr(than, name) if than else None for name in _COMPARED}
            lines.append(line | _claim(than.here if than else None) | {"best": mean.method == found.best})
    return lines


def _subgroup_lines(outcome: Outcome) -> list[dict[str, Any]]:
    key = outcome.measures.key
    return [
        {
            "method": found.method,
            "column": found.column,
            "subgroup": each.name,
            "patients": FEWER if each.patients is None else each.patients,
            key: each.value,
            "low": each.low,
            "high": each.high,
            "largest_gap": found.gap,
            "largest_gap_by_chance": found.by_chance,
        }
        for found in outcome.subgroups
        for each in found.figures
    ]


def _row(row: Row) -> dict[str, Any]:
    split = {} if row.fold is None else {"repeat": row.repeat, "fold": row.fold}
    model = {"site": row.site, "view": row.view, "training_cases": row.cases}
    return {"method": row.method, "seed": row.seed, **split, **model, "n": row.n, **row.values}


def _csv(entries: Iterable[Mapping[str, Any]]) -> str:
    lines = list(entries)
    cells = ([round(v, 6) if isinstance(v, float) else v for v in line.values()] for line in lines)
    return csv_text([lines[0] if lines else [], *cells])
