"""The photograph bundle on the published centres of Fed-ISIC2019."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from monai_fedlora.cli import main
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import save_tensors
from monai_fedlora.networks.catalogue import build_backbone
from tests.bundles.shipped import PHOTOGRAPHS, copy_studies

pytestmark = pytest.mark.realdata


@pytest.fixture
def centres(real_data: Path, tmp_path: Path) -> Path:
    """A prepared folder with 40 photographs of each centre."""
    source, output = str(real_data / "fed_isic2019"), str(tmp_path / "prepared")
    assert main(["data", "fed_isic2019", "--source", source, "--output", output, "--limit", "40"]) == 0
    return tmp_path / "prepared"


def test_a_centre_trains_is_scored_and_predicts(centres: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONAI_FEDLORA_DATA", str(centres))
    datalist = centres / "centre-2" / "datalist.json"
    listed = load_datalist(datalist)
    PHOTOGRAPHS.run("train", site="centre-2", epochs=1)
    PHOTOGRAPHS.run("evaluate", site="centre-2")
    studies = copy_studies(datalist, tmp_path / "photographs")
    PHOTOGRAPHS.run("inference", site="centre-2", classes=list(listed.classes), output_dir="predictions")
    written = tmp_path / "runs" / PHOTOGRAPHS.name / "centre-2"
    assert (written / "metrics.json").is_file()
    with open("predictions/predictions.csv") as predictions, (written / "evaluation.csv").open() as evaluation:
        predicted, evaluated = (
            {row["study"]: row["prediction"] for row in csv.DictReader(stream)} for stream in (predictions, evaluation)
        )
    assert predicted.keys() == set(studies)
    assert predicted == evaluated


def test_the_centres_train_together(centres: Path, tmp_path: Path) -> None:
    network = build_backbone("vit_demo", out_chans=2)
    backbone = tmp_path / "backbone.safetensors"
    state = network.state_dict()
    save_tensors(backbone, {key: state[key] for key in state if not key.startswith(network.head_prefixes)})
    sites = sorted(path.name for path in centres.iterdir() if path.is_dir())
    classes = load_datalist(centres / sites[0] / "datalist.json").classes
    arguments = ["--bundle", PHOTOGRAPHS.name, "--sites", ",".join(sites), "--classes", ",".join(classes)]
    job = tmp_path / "job"
    assert main(["job", "fedopal", "--output", str(job), "--backbone", str(backbone), "--rounds", "1", *arguments]) == 0
    plan = Plan.load(job / "app" / "config" / "plan.json")
    results = run_in_process(plan, folder=tmp_path / "run", data_root=str(centres), backbone=str(backbone))
    assert results["refused"] == []
    assert {site: report["test"]["personal"]["n"] for site, report in results["final"].items()} == {
        site: len(load_datalist(centres / site / "datalist.json").test) for site in sites
    }
