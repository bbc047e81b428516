"""The report of a run: one HTML file without requests to other machines."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from monai_fedlora.comparison.statistics import lowest
from monai_fedlora.data.origin import MIXED, SYNTHETIC, together
from monai_fedlora.exporting.leakage_card import by_reason
from monai_fedlora.exporting.model_card import VIEW_NAMES
from monai_fedlora.exporting.personal_or_shared import TIE, judged
from monai_fedlora.rendering.documents import render
from monai_fedlora.rendering.tables import plural
from monai_fedlora.reporting import model_tables, run_figures, run_tables
from monai_fedlora.reporting.found_run import FoundRun
from monai_fedlora.reporting.record import Metrics, Record
from monai_fedlora.site_report import PERSONAL, SHARED


def page(run: FoundRun) -> str:
    """The report's HTML."""
    record = run.record
    kind = record.images or together(found.images for found in run.personal.values())
    curves = {site: found.reliability for site, found in run.personal.items() if found.reliability}
    told = {site: found.run_leakage for site, found in run.personal.items() if found.run_leakage is not None}
    audits = {site: found.leakage for site, found in run.personal.items() if found.leakage is not None}
    return render(
        "monai_fedlora.reporting",
        "run.html",
        title=_title(record),
        run=run,
        record=record,
        kind=kind,
        kind_warns=kind in (SYNTHETIC, MIXED),
        images=model_tables.images(run),
        scores=_scores(record),
        judgements=_judgements(run),
        tests=run_tables.test_metrics(record),
        test_scores=run_figures.test_scores(record),
        biases=run_figures.biases(record),
        bias_tables=run_tables.biases(record),
        sites=run_tables.sites(record),
        curves=[run_figures.learning_curve(record, view) for view in VIEW_NAMES],
        curve_table=run_tables.learning_curves(record),
        losses=run_figures.losses(record),
        loss_table=run_tables.losses(record),
        calibration=run_tables.calibration(record),
        reliability=run_figures.reliability(curves),
        reliability_table=model_tables.reliability(curves),
        confusion=run_tables.confusion(record),
        audits=audits,
        leakage=model_tables.leakage(audits, caption="Membership inference, by patient"),
        told=told,
        run_leakage=model_tables.leakage(told, caption="What the run told beside the models"),
        by_reason=by_reason,
        traffic=run_tables.traffic(record),
        agreement=run_figures.agreement(record),
        agreement_tables=run_tables.agreements(record),
        overlaps=model_tables.overlaps(run),
        limits=run_tables.limits(record),
        unlimited=run_tables.unlimited(record),
        refused=run_tables.refused(record),
        settings=run_tables.settings(record),
    )


def _title(record: Record) -> str:
    sites = plural(len(record.sites), "site")
    return f"{record.plan.get('experiment', 'run')}: {record.plan.get('method', 'unknown method')} at {sites}"


def _scores(record: Record) -> dict[str, Any]:
    """Mean and worst value of the task's key metric of the personal models; empty where none is known."""
    task = record.task
    found = {site: answer.test.get(PERSONAL, Metrics()).values.get(task.key) for site, answer in record.final.items()}
    known = {site: value for site in record.sites if (value := found.get(site)) is not None}
    if not known:
        return {}
    worst = lowest({site: -value for site, value in known.items()} if task.lower_is_better else known)
    return {
        "word": task.word,
        "mean": fmean(known.values()),
        "of": len(known),
        "worst": worst,
        "least": known[worst[0]],
    }


def _judgements(run: FoundRun) -> dict[str, dict[str, Any]]:
    """The comparison of the two models on the test cases of each site where the shared one is not worse."""
    found, task = {}, run.record.task
    for site in run.record.sites:
        test = run.record.final[site].test if site in run.record.final else {}
        if PERSONAL in test and SHARED in test:
            pairs = run.personal[site].pairs if site in run.personal else None
            entry = judged(
                _plain(test[PERSONAL]),
                _plain(test[SHARED]),
                pairs=pairs,
                metric=task.key,
                word=task.word,
                lower_is_better=task.lower_is_better,
            )
            if entry["better"] in (SHARED, TIE):
                found[site] = {"said": entry["said"], "offer": entry["better"] == SHARED}
    return found


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {**metrics.values, "n": metrics.n, "confusion_matrix": [list(row) for row in metrics.confusion]}
