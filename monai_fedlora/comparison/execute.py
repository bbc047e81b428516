"""One run of a comparison: the federation, and the evaluation at a held-out site."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fedlora.comparison.case_scores import CaseScore, case_scores, read_table
from monai_fedlora.comparison.comparison_settings import Comparison, Run
from monai_fedlora.comparison.fewer_cases import fewer_cases, patient_of
from monai_fedlora.comparison.newsite import NewSite
from monai_fedlora.comparison.result_rows import LIMITED, NEW
from monai_fedlora.comparison.step_counts import step_counts
from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import FILE_NAME
from monai_fedlora.data.pool import POOLED, pool
from monai_fedlora.data.units import unit_numbers
from monai_fedlora.engines.memory import Memory, using
from monai_fedlora.environment import training_threads
from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_sites
from monai_fedlora.federated.run_record import LAST_NAME, RESULTS_NAME
from monai_fedlora.federated.site_policy import NOTHING_LEAVES
from monai_fedlora.federated.site_state import FINAL_NAME, SCORES_NAME
from monai_fedlora.federated.start import Start
from monai_fedlora.federated.workspace import PRIVATE
from monai_fedlora.files import load_tensors, read_json, write_json
from monai_fedlora.site_report import PERSONAL


def execute(
    comparison: Comparison,
    run: Run,
    *,
    datalists: Mapping[str, Datalist],
    backbone: str,
    folder: Path,
    memory: Memory,
    on_progress: Callable[[float], None] = lambda share: None,
) -> tuple[dict[str, Any], list[CaseScore]]:
    """Run a method with a seed and return its results.

    Args:
        comparison: the settings.
        run: one of its runs.
        datalists: the datalist of every site of the comparison.
        backbone: path of the backbone's file.
        folder: for the run's files, which include private state. What an interrupted run of the same identity has left
            there is gone on with, to the same bits.
        memory: cache of images and features for several runs of this process.
        on_progress: called with the share of the run that is done, 0..1.

    Returns:
        ``identity``, ``validation`` (the key metric of the personal models on their site's validation cases, by site;
        of a model that was trained on the pool, on the pool's), ``metrics`` (a list of entries with ``site``, ``view``,
        the number of training ``cases`` of a new site, and the metrics on the site's test cases), ``scores`` (mean
        validation metric of the model with which each round started), ``refused``, ``steps`` (by site, see
        :func:`step_counts`), ``bytes_up`` and ``bytes_down`` per site and round, ``seconds``, and the part of them,
        ``seconds_shared``, that went into images and features which further runs of this process reuse. And what every
        model says of every test case.
    """
    datalists = {site: comparison.split(datalist, run) for site, datalist in datalists.items()}
    earlier = _seconds(folder)
    started, before = time.perf_counter(), memory.seconds
    members = [datalists[site] for site in comparison.members(run)]
    plan = _declared(comparison.plan(run), members)
    pooled = plan.sites == (POOLED,)
    data = folder / "data"
    for datalist in [pool(members)] if pooled else members:
        _write(datalist, data)
    results: Mapping[str, Any] = {"rounds": [], "refused": [], "final": {}}
    steps = len(plan.sites) * (plan.rounds + 1)
    with using(memory):
        if comparison.facts[run.method].shared or not run.held_out:
            results = run_sites(
                Start.of_plan(plan, backbone=backbone),
                Installed(data_root=str(data), backbone=backbone),
                folder=folder,
                threads=training_threads(),
                resume=True,
                materials=_digest(comparison.identity(run)),
                policy=lambda: NOTHING_LEAVES,
                on_progress=lambda now: on_progress(_answers(now) / steps),
            )
            if plan.privacy is not None:
                results = {**results, "final": _kept_records(results["final"], folder / PRIVATE / plan.experiment)}
        shared = folder / LAST_NAME if results["final"] else None
        if comparison.tuning:
            found = []
        elif run.held_out:
            found = list(_at_new_site(comparison, run, datalists[run.held_out], shared, folder, backbone))
        else:
            evaluated = [datalist for datalist in members if run.limited in (None, datalist.site)]
            if pooled:
                found = [_pooled_model(comparison, run, datalist, shared, folder, backbone) for datalist in evaluated]
            else:
                final = {site: report for site, report in results["final"].items() if site in _trained(results)}
                found = list(_at_members(run, final, evaluated, folder / PRIVATE / plan.experiment))
            if run.limited:
                found = [_limited(run, *each) for each in found]
    facts = comparison.facts[run.method]
    result = {
        "identity": comparison.identity(run),
        "common": comparison.common(),
        "validation": _validation(results["final"], comparison.measures.key),
        "metrics": [entry for entries, _ in found for entry in entries],
        "scores": [entry["score"] for entry in results["rounds"]],
        "refused": results["refused"],
        "steps": {site: step_counts(plan, facts, cases) for site, cases in _trained_on(plan, members).items()},
        "bytes_up": None if pooled else facts.bytes_up,
        "bytes_down": None if pooled else facts.bytes_down,
        "seconds": round(time.perf_counter() - started + earlier, 3),
        "seconds_shared": round(memory.seconds - before, 3),
    }
    return result, [score for _, scores in found for score in scores]


def _declared(plan: Plan, members: Sequence[Datalist]) -> Plan:
    """The plan; under a budget with the numbers of patients who train, which a federation's own sites would declare."""
    if plan.privacy is None:
        return plan
    patients = {each.site: len(set(unit_numbers(each.training))) for each in members}
    return dataclasses.replace(
        plan, declared_cases={POOLED: sum(patients.values())} if plan.sites == (POOLED,) else patients
    )


def _kept_records(final: Mapping[str, Any], private: Path) -> dict[str, Any]:
    """What sites under a budget have found of their last models, and kept for themselves."""
    return {site: json.loads(load_tensors(private / site / FINAL_NAME)[1]["record"]) for site in final}


def _trained_on(plan: Plan, members: Sequence[Datalist]) -> dict[str, int]:
    """Numbers of training cases by the plan's sites."""
    cases = {datalist.site: len(datalist.training) for datalist in members}
    return {POOLED: sum(cases.values())} if plan.sites == (POOLED,) else cases


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _seconds(folder: Path) -> float:
    """How long an interrupted run has gone on."""
    try:
        return float(read_json(folder / RESULTS_NAME)["seconds"])
    except (FedLoraError, KeyError, TypeError, ValueError):
        return 0.0


def _answers(results: Mapping[str, Any]) -> int:
    refused = len(results["refused"])
    return sum(len(entry["sites"]) for entry in results["rounds"]) + len(results["final"]) + refused


def _write(datalist: Datalist, data: Path) -> None:
    write_json(data / datalist.site / FILE_NAME, datalist.to_json())


def _trained(results: Mapping[str, Any]) -> set[str]:
    """The sites of which an update has counted; a model that never saw others has no score in a comparison."""
    return {site for entry in results["rounds"] for site, said in entry["sites"].items() if "round" in said}


def _validation(final: Mapping[str, Any], key: str) -> dict[str, float | None]:
    return {site: report.get("validation", {}).get(PERSONAL, {}).get(key) for site, report in final.items()}


Found = tuple[list[dict[str, Any]], list[CaseScore]]
"""Entries of ``metrics``, and what they were computed from."""


def _at_members(run: Run, final: Mapping[str, Any], members: Iterable[Datalist], private: Path) -> Iterator[Found]:
    for datalist in members:
        if datalist.site in final:
            views = final[datalist.site]["test"].items()
            scores = case_scores(run, datalist, read_table(private / datalist.site / SCORES_NAME))
            yield [{"site": datalist.site, "view": view, "cases": None, **metrics} for view, metrics in views], scores


def _limited(run: Run, entries: list[dict[str, Any]], scores: list[CaseScore]) -> Found:
    """What the personal model of a site with fewer training cases reached."""
    named: dict[str, Any] = {"view": LIMITED, "cases": run.cases}
    return [{**entry, **named} for entry in entries if entry["view"] == PERSONAL], [
        dataclasses.replace(score, **named) for score in scores if score.view == PERSONAL
    ]


def _new_site(comparison: Comparison, run: Run, datalist: Datalist, folder: Path, backbone: str) -> NewSite:
    _write(datalist, folder / "data")
    plan = dataclasses.replace(comparison.plan(run), sites=(datalist.site,), privacy=None)
    return NewSite(
        name=datalist.site,
        plan=plan,
        private_root=folder,
        source=Installed(data_root=str(folder / "data"), backbone=backbone),
    )


def _pooled_model(
    comparison: Comparison, run: Run, datalist: Datalist, shared: Path | None, folder: Path, backbone: str
) -> Found:
    """Evaluate the model that was trained on the pool at one of the sites."""
    site = _new_site(comparison, run, datalist, folder / "members", backbone)
    metrics = site.at_once(site.receive(shared) if shared else {}) or {}
    entry = {"site": datalist.site, "view": PERSONAL, "cases": None, **metrics}
    return [entry], case_scores(run, datalist, site.scores, view=PERSONAL)


def _at_new_site(
    comparison: Comparison, run: Run, datalist: Datalist, shared: Path | None, folder: Path, backbone: str
) -> Iterator[Found]:
    """Evaluate the shared model without training, then with a private part trained on more and more cases."""
    entry = {"site": datalist.site, "view": NEW}
    site = _new_site(comparison, run, datalist, folder / "new", backbone)
    tensors = site.receive(shared) if shared else {}
    if (found := site.at_once(tensors)) is not None:
        yield [{**entry, "cases": 0, **found}], case_scores(run, datalist, site.scores, view=NEW, cases=0)
    for n in comparison.new_site_cases:
        if site.can_be_personalised and n <= len({patient_of(case) for case in datalist.training}):
            part = fewer_cases(datalist, n, seed=run.seed)
            site = _new_site(comparison, run, part, folder / f"new-{n}", backbone)
            if site.can_train:
                metrics = site.personalised(tensors)
                yield [{**entry, "cases": n, **metrics}], case_scores(run, datalist, site.scores, view=NEW, cases=n)
