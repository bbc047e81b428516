"""Methods are compared on masks as they are on labels: the same runs and splits, and scores of every patient."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

import monai_fedlora as fl
from monai_fedlora.api import methods_compared
from monai_fedlora.comparison.case_scores import read_scores
from monai_fedlora.comparison.comparison_settings import Comparison
from monai_fedlora.comparison.runner import Task
from monai_fedlora.data.cases import NO_LABEL, SPLITS
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import write_json
from monai_fedlora.measures.structures import HEART
from tests.comparison.conftest import SIZE, no_figures
from tests.federated.conftest import Prepared

__all__ = ["no_figures"]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with the masks of two sites, of a few phantoms each."""
    root = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(root / "cache"))
        few = PhantomSettings(training=2, validation=1, test=1, task="segmentation")
        for site in ("site-1", "site-2"):
            found = site_data(site, settings=few)
            shutil.copytree(found if found.is_dir() else found.parent, root / "data" / site)
    return root / "data"


def measured(prepared: Prepared, folder: Path, scales: dict[str, tuple[float, float]]) -> Path:
    """The sites with an ejection fraction per case, each on a scale."""
    for site, scale in scales.items():
        listed = load_datalist(prepared.data / site / "datalist.json")
        cases = {
            split: tuple(replace(case, label=NO_LABEL, values=(60.0,)) for case in listed.cases(split))
            for split in SPLITS
        }
        changed = replace(listed, task="regression", classes=("lv_ef",), scale=(scale,), **cases)
        write_json(folder / site / "datalist.json", changed.to_json(image_root=str(listed.image_root)))
    return folder


class Started(Exception):
    pass


def test_numbers_are_compared_on_the_scale_that_the_sites_share(
    prepared: Prepared, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(*scales: tuple[float, float]) -> Comparison:
        seen: list[Comparison] = []

        def start(task: Task, **_: object) -> None:
            seen.append(task.comparison)
            raise Started

        monkeypatch.setattr(methods_compared, "run_missing", start)
        data = measured(prepared, tmp_path / "data", dict(zip(("site-1", "site-2"), scales, strict=True)))
        with pytest.raises(Started):
            fl.compare(["fedit"], output=tmp_path / "out", data=str(data), seeds=1, size=SIZE, backbone=str(backbone))
        return seen[0]

    comparison, other = compared((55.0, 15.0), (55.0, 15.0)), compared((50.0, 10.0), (50.0, 10.0))
    (run,) = comparison.runs()
    plan = comparison.plan(run)
    assert (plan.task, plan.classes, plan.scale) == ("regression", ("lv_ef",), ((55.0, 15.0),))
    assert Plan.from_json(plan.to_json()) == plan
    assert comparison.identity(run)["plan"] != other.identity(run)["plan"]
    assert comparison.common()["scale"] == [[55.0, 15.0]]
    with pytest.raises(ConfigError, match=r"site-1 have the scale \[\[55.*site-2 \[\[50"):
        compared((55.0, 15.0), (50.0, 15.0))


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_masks_are_compared_by_dice_of_every_patient(masked: Path, backbone: Path, tmp_path: Path) -> None:
    found = fl.compare(
        ["fedit", "centralised"],
        output=tmp_path,
        data=str(masked),
        seeds=1,
        splits=2,
        rounds=1,
        size=SIZE,
        backbone=str(backbone),
        settings={"batch_size": 2, "warmup_epochs": 0, "learning_rate": 0.01},
    )
    assert found.failures == {}
    assert found.outcome.comparison.task == "segmentation"
    head = found.table().head
    assert head[1:6] == ["mean Dice", "worst site", *(f"Dice of {name}" for name in HEART)]
    sites = {site: load_datalist(masked / site / "datalist.json") for site in ("site-1", "site-2")}
    for summary in found.outcome.summaries:
        scores = [s for s in found.outcome.scores if s.method == summary.method and s.view == "personal"]
        patients = {(site, case.subject) for site, each in sites.items() for _, case in each.all_cases()}
        assert sorted((s.site, s.patient) for s in scores) == sorted(patients)
        assert {"dice_LV", "dice_MYO_ED", "dice_RV_ES"} <= scores[0].more.keys()
        assert summary.score is not None
        means = [fmean(s.score or 0.0 for s in scores if s.site == site) for site in sites]
        assert summary.score.mean == pytest.approx(fmean(means))
    assert read_scores(tmp_path / "scores" / "fedit-seed0-split0.1.csv")[0].label == ""
    assert "mean Dice" in (tmp_path / "report.html").read_text(encoding="utf-8")
