"""Hospitals that outline all structures, and one that outlines the left ventricle alone, learn together from files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.engines.dataset import collate_cases
from monai_fedlora.tasks.segmentation import SEGMENTATION, case_scores
from monai_fedlora.transforms.cine import cine_preprocessing

NAMES = ("LV", "MYO", "RV")
GRID: dict[str, Any] = {"image_size": (48, 48, 8), "spacing": (3.3, 3.3, 10.0)}


def cavities(hearts: Path, folder: Path) -> Path:
    """A csv like Sunnybrook's, of the same images with masks of the left ventricle alone."""
    lines = ["subject,pathology,ed_image,es_image,ed_label,es_label"]
    for patient in sorted(hearts.rglob("patient*/")):
        masks = []
        for path in sorted(patient.glob("*_gt.nii.gz")):
            image = nibabel.load(path)
            masks.append(folder / f"lv_{path.name}")
            cavity = (np.asarray(image.dataobj) == 3).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(cavity, image.affine, image.header), masks[-1])
        images = [str(path) for path in sorted(patient.glob("*_frame*.nii.gz")) if "_gt" not in path.name]
        lines.append(",".join([patient.name, "HF", *images, *map(str, masks)]))
    (folder / "patients.csv").write_text("\n".join(lines))
    return folder / "patients.csv"


def both(first: Path, second: Path, folder: Path, *, label: str = "pathology") -> dict[str, Path]:
    options: dict[str, Any] = {"output": folder, "task": "segmentation"}
    columns = {"ed_mask": "ed_label", "es_mask": "es_label", "label": label}
    fl.prepare("acdc", source=first, site="dijon", **options)
    fl.prepare("csv", source=second, site="toronto", mask_values={"LV": 1}, columns=columns, **options)
    return {site: folder / site for site in ("dijon", "toronto")}


def batch_of(folders: dict[str, Path], cases: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and targets of the first cases of both sites, the fully outlined ones first."""
    steps = Compose(cine_preprocessing(**GRID))
    lists = [load_datalist(folder / "datalist.json") for folder in folders.values()]
    items = [steps(item) for listed in lists for item in listed.items("training")[:cases]]
    batch = collate_cases(items)
    target = SEGMENTATION.prepare.target(batch)
    assert target is not None
    return batch["image"], target


def check_that_unlabelled_structures_count_nowhere(target: torch.Tensor, cases: int) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"names": 3, "cases": (), "class_weights": None, "label_smoothing": 0.0, "device": "cpu"}
    loss = SEGMENTATION.loss(**options)
    logits = torch.randn(2 * cases, 2, 4, *target.shape[2:], requires_grad=True)
    losses = loss(logits, target)
    shuffled = logits.detach().clone()
    shuffled[:, :, [0, 2, 3]] = shuffled[:, :, [3, 0, 2]]  # what is no cavity may be called anything
    again = loss(shuffled, target)
    torch.testing.assert_close(losses[cases:], again[cases:])
    assert bool((losses[:cases] - again[:cases]).abs().min() > 1e-4)
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    total = logits.softmax(dim=2).detach()
    of_others = slope[cases:, :, [0, 2, 3]] / total[cases:, :, [0, 2, 3]]
    torch.testing.assert_close(of_others, of_others[:, :, :1].expand_as(of_others), rtol=1e-2, atol=1e-8)
    scores = torch.cat([case_scores([{"pred": p, "label": t}]) for p, t in zip(logits.detach(), target, strict=True)])
    assert bool(scores[:cases].isfinite().all()) and bool(scores[cases:, :, 0].isfinite().all())
    assert bool(scores[cases:, :, 1:].isnan().all())


@pytest.mark.slow
def test_muscle_and_right_ventricle_of_a_site_with_cavities_alone_count_nowhere(tmp_path: Path) -> None:
    dijon, toronto = (fl.phantom("acdc", output=tmp_path / n, patients=6, seed=s) for n, s in (("d", 0), ("t", 1)))
    folders = both(dijon, cavities(toronto, tmp_path), tmp_path / "sites")
    images, target = batch_of(folders, 2)
    assert images.shape[0] == 4
    check_that_unlabelled_structures_count_nowhere(target, 2)
    settings: dict[str, Any] = {"rounds": 1, "batch_size": 2, "warmup_epochs": 0}
    run = fl.federate("small", fl.method("fedit"), folders, **settings)
    rows = {row["site"]: row for row in run.records if row["split"] == "test" and row["model"] == "personal"}
    assert rows["dijon"]["dice_RV"] is not None and rows["toronto"]["dice_LV"] is not None
    assert rows["toronto"].get("dice_MYO") is None and rows["toronto"].get("dice_RV") is None


@pytest.mark.realdata
def test_acdc_and_sunnybrook_are_one_federation(tmp_path: Path) -> None:
    root = Path(os.environ["MONAI_FEDLORA_REAL_DATA"])
    folders = both(root / "acdc" / "database", root / "sunnybrook" / "patients.csv", tmp_path, label="acdc_class")
    _, target = batch_of(folders, 5)
    check_that_unlabelled_structures_count_nowhere(target, 5)
