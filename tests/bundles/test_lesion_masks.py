"""Outlines of skin lesions through the configs of the bundle for photographs, and through a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.files import read_json, write_json
from monai_fedlora.networks.unetr import ViTUNETR
from tests.bundles.runs import same_tensors
from tests.bundles.shipped import PHOTOGRAPHS
from tests.rendering.reading import no_figures

__all__ = ["no_figures"]

SITES = ["site-1", "site-3"]
OPTIONS: dict[str, Any] = {
    "task": "segmentation",
    "classes": ["lesion"],
    "bundle": PHOTOGRAPHS.name,
    "settings": {"batch_size": 8},
}
FEW = PhotoPhantomSettings(training=16, validation=4, test=4, size=48, classes=("NV", "MEL"), task="segmentation")


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datalists of two sites with masks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {site: site_data(site, phantom="dermoscopy", settings=FEW) for site in SITES}


@pytest.mark.slow
def test_a_site_learns_outlines_and_is_evaluated_by_dice(
    lesions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"dataset_dir": str(lesions["site-1"]), "overrides": ["segmentation"], "backbone": "demo"}
    few = {"epochs": 8, "batch_size": 4, "learning_rate": 0.003, "warmup_epochs": 1}

    trained = PHOTOGRAPHS.run("train", output_dir=str(tmp_path / "run"), **settings, **few)
    PHOTOGRAPHS.run("evaluate", run_dir=str(tmp_path / "run"), **settings)

    assert isinstance(trained.network_def, ViTUNETR)
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["n"] == len(read_json(lesions["site-1"])["test"]) and metrics["dice_lesion"] > 0.4


@pytest.fixture(scope="module")
def prepared(lesions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both sites."""
    root = tmp_path_factory.mktemp("prepared")
    for site, path in lesions.items():
        write_json(root / site / "datalist.json", load_datalist(path).to_json())
    return root


@pytest.mark.slow
def test_a_job_of_the_bundle_for_photographs_learns_outlines_in_both_ways_of_simulation(
    prepared: Path, tmp_path: Path
) -> None:
    job = fl.write_job("dual_lora", output=tmp_path / "job", sites=SITES, rounds=1, **OPTIONS)
    runs = {
        way: fl.simulate(job.folder, workspace=tmp_path / way, data=str(prepared), in_process=way == "one")
        for way in ("one", "nvflare")
    }
    for run in runs.values():
        assert (run.lacks, run.refused) == ([], [])
        assert run.table().head[2:4] == ["personal\nmean Dice", "shared\nmean Dice"]
        assert all(run.results["final"][site]["test"]["shared"]["dice_lesion"] > 0.05 for site in SITES)
    assert same_tensors(*(run.workspace / "shared.safetensors" for run in runs.values()))
    text = fl.report(runs["nvflare"].workspace, output=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Dice of lesion" in text and "balanced accuracy" not in text and "onfusion" not in text


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_methods_are_compared_by_the_outlines_of_every_lesion(
    prepared: Path, lesions: dict[str, Path], tmp_path: Path
) -> None:
    found = fl.compare(
        ["dual_lora", "local"],
        output=tmp_path,
        data=str(prepared),
        bundle=PHOTOGRAPHS.name,
        seeds=1,
        rounds=1,
        settings={"batch_size": 8, "warmup_epochs": 0},
    )
    assert found.failures == {}
    tested = {(site, case.subject) for site, path in lesions.items() for case in load_datalist(path).test}
    for method in ("dual_lora", "local"):
        scores = [s for s in found.outcome.scores if s.method == method and s.view == "personal"]
        assert {(score.site, score.case) for score in scores} == tested
        assert all("dice_lesion" in score.more for score in scores)
    assert "Dice of lesion" in (tmp_path / "report.html").read_text(encoding="utf-8")
