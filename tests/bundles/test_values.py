"""Regression through the cine bundle: training, evaluation and a federation on numbers of phantom hearts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.files import read_json
from monai_fedlora.tasks.regression import REGRESSION
from tests.bundles.shipped import CINE

pytestmark = pytest.mark.slow
FEW = PhantomSettings(training=10, validation=4, test=5, task="regression")


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


def test_two_sites_learn_together_and_report_in_units() -> None:
    sites = {name: site_data(name, settings=FEW).parent for name in ("site-1", "site-2")}
    run = fl.federate("small", fl.method("dual_lora"), sites, rounds=2, batch_size=5)
    assert run.plan.task == "regression" and run.plan.scale == ((55.0, 15.0), (150.0, 50.0))
    rows = [row for row in run.records if row["split"] == "test"]
    assert len(rows) == 4
    for row in rows:
        assert 1 < row["mean_absolute_error_lv_ef"] < 50 and 5 < row["mean_absolute_error_lv_edv"] < 200
