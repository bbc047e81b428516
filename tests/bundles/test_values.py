"""Regression through the cine bundle: training, evaluation and a federation on numbers of phantom hearts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.files import read_json, write_json
from monai_fedlora.tasks.regression import REGRESSION
from tests.bundles.runs import Stopped, same_tensors, stop_in_the_second_round
from tests.bundles.shipped import CINE
from tests.rendering.reading import no_figures

__all__ = ["no_figures"]

pytestmark = pytest.mark.slow
FEW = PhantomSettings(training=10, validation=4, test=5, task="regression")
OPTIONS: dict[str, Any] = {
    "sites": ["site-1", "site-2"],
    "task": "regression",
    "values": {"lv_ef": None},
    "settings": {"batch_size": 5},
}


def test_the_bundle_trains_ejection_fractions_and_evaluates_them_in_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = site_data("site-1", settings=FEW)
    settings = {"dataset_dir": str(path.parent), "backbone": "demo", "augment": False, **REGRESSION.settings}
    CINE.run("train", epochs=6, learning_rate=0.01, warmup_epochs=0, batch_size=5, **settings)
    CINE.run("evaluate", **settings)
    run = tmp_path / "runs" / CINE.name / "site-1"
    metrics = read_json(run / "metrics.json")
    cases = {case.subject: case.values for case in load_datalist(path).test}
    with (run / "evaluation.csv").open() as file:
        rows = {row["study"]: row for row in csv.DictReader(file)}
    assert rows.keys() == cases.keys()
    errors = []
    for subject, (ejection, volume) in ((name, values or ()) for name, values in cases.items()):
        row = rows[subject]
        assert float(row["lv_ef_truth"]) == pytest.approx(ejection, rel=1e-4)
        assert float(row["lv_edv_truth"]) == pytest.approx(volume, rel=1e-4)
        assert 0 < float(row["lv_ef"]) < 100 and 20 < float(row["lv_edv"]) < 500
        errors.append(abs(float(row["lv_ef"]) - ejection))
    found = metrics.get("test", metrics)
    assert found["mean_absolute_error_lv_ef"] == pytest.approx(sum(errors) / len(errors), rel=1e-3)
    assert found["agreement_low_lv_ef"] < found["bias_lv_ef"] < found["agreement_high_lv_ef"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> fl.WrittenJob:
    """Of the ejection fraction alone, as `monai-fedlora job` writes it."""
    folder = tmp_path_factory.mktemp("jobs") / "values"
    return fl.write_job("dual_lora", output=folder, rounds=2, **OPTIONS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    for name in ("site-1", "site-2"):
        listed = load_datalist(site_data(name, settings=replace(FEW, values=("lv_ef",))))
        write_json(root / name / "datalist.json", listed.to_json())
    return root


@pytest.fixture(scope="module")
def run(job: fl.WrittenJob, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> fl.Simulated:
    workspace = tmp_path_factory.mktemp("runs") / "whole"
    return fl.simulate(job.folder, workspace=workspace, data=str(prepared), in_process=True)


def test_two_sites_of_a_job_learn_together_and_report_in_units(run: fl.Simulated, job: fl.WrittenJob) -> None:
    assert (run.lacks, run.refused) == ([], [])
    for site in job.plan.sites:
        for view in ("personal", "shared"):
            found = run.results["final"][site]["test"][view]
            assert 1 < found["mean_absolute_error_lv_ef"] < 50
            assert found["agreement_low_lv_ef"] < found["bias_lv_ef"] < found["agreement_high_lv_ef"]
    assert run.table().head[-3] == "error of lv_ef, %"


def test_nvflares_simulator_gives_the_same_bits_and_a_page_with_units(
    run: fl.Simulated, job: fl.WrittenJob, prepared: Path, tmp_path: Path
) -> None:
    found = fl.simulate(job.folder, workspace=tmp_path / "run", data=str(prepared))
    assert (found.lacks, found.refused) == ([], [])
    assert same_tensors(found.workspace / "shared.safetensors", run.workspace / "shared.safetensors")
    for site in job.plan.sites:
        assert found.results["final"][site]["test"] == run.results["final"][site]["test"]
    text = fl.report(found.workspace, output=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "error of lv_ef, %" in text and "balanced accuracy" not in text and "onfusion" not in text


@pytest.mark.usefixtures("no_figures")
def test_methods_are_compared_by_the_errors_of_every_patient(prepared: Path, tmp_path: Path) -> None:
    found = fl.compare(
        ["dual_lora", "local"],
        output=tmp_path,
        data=str(prepared),
        seeds=1,
        rounds=1,
        settings={"batch_size": 5, "warmup_epochs": 0},
    )
    assert found.failures == {}
    truths = {
        (site, case.subject): values_of_case
        for site in ("site-1", "site-2")
        for case in load_datalist(prepared / site / "datalist.json").test
        for values_of_case in case.values or ()
    }
    ((_, spread),) = found.outcome.comparison.scale
    for summary in found.outcome.summaries:
        scores = [s for s in found.outcome.scores if s.method == summary.method and s.view == "personal"]
        assert {(score.site, score.patient) for score in scores} == truths.keys()
        for score in scores:
            assert score.more["lv_ef_truth"] == pytest.approx(truths[score.site, score.patient], rel=1e-4)
            assert score.score == pytest.approx(
                abs((score.more["lv_ef"] or 0) - (score.more["lv_ef_truth"] or 0)) / spread, rel=1e-3
            )
        assert summary.score is not None
        means = [fmean(s.score or 0 for s in scores if s.site == site) for site in ("site-1", "site-2")]
        assert summary.score.mean == pytest.approx(fmean(means), rel=1e-3)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "scaled error" in text and "error of lv_ef, %" in text and "accuracy" not in text


def test_a_job_that_goes_on_gives_what_nobody_disturbed(
    run: fl.Simulated, job: fl.WrittenJob, prepared: Path, tmp_path: Path
) -> None:
    where = {"workspace": tmp_path / "run", "data": str(prepared), "in_process": True}
    with pytest.raises(Stopped):
        fl.simulate(job.folder, on_progress=stop_in_the_second_round, **where)
    rest = fl.write_job(
        "dual_lora",
        output=tmp_path / "rest",
        start_from=tmp_path / "run" / "shared.safetensors",
        resume=True,
        experiment=job.plan.experiment,
        **OPTIONS,
    )
    assert (rest.plan.start_round, rest.plan.rounds) == (1, 1)
    assert fl.simulate(rest.folder, **where).lacks == []
    assert same_tensors(tmp_path / "run" / "shared.safetensors", run.workspace / "shared.safetensors")
