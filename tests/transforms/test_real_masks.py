"""Masks of real patients on the grid of each network, and back on that of their files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.measures.heart_function import heart_function
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.transforms.cine import LoadCined, cine_preprocessing
from monai_fedlora.transforms.mask_grid import restore_labels

pytestmark = pytest.mark.realdata
LEAST = {"small": (0.93, 0.88, 0.92), "fine": (0.97, 0.94, 0.96)}
"""Smallest mean Dice of LV, MYO and RV, over both frames and all slices."""


@pytest.mark.parametrize("size", LEAST)
def test_outlines_of_all_patients_survive_the_way_to_the_network_and_back(size: str, tmp_path: Path) -> None:
    source = Path(os.environ["MONAI_FEDLORA_REAL_DATA"]) / "acdc" / "database"
    fl.prepare("acdc", source=source, output=tmp_path, site="dijon", task="segmentation")
    site = load_datalist(tmp_path / "dijon" / "datalist.json")
    items = [item for split in ("training", "validation", "test") for item in site.items(split)]
    assert len(items) >= 80
    chosen = architecture(size)
    assert chosen.spacing is not None
    steps = Compose(cine_preprocessing(image_size=chosen.image_size, spacing=chosen.spacing))
    dice, errors = [], []
    for item in items:
        loaded, prepared = LoadCined()(item), steps(item)
        scores = torch.nn.functional.one_hot(prepared["mask"].long(), 4).permute(0, 4, 1, 2, 3).float()
        image = loaded["image"]
        back = restore_labels(scores, image.as_tensor(), image.affine, chosen.spacing)
        truth = loaded["mask"]
        assert back.shape == truth.shape
        dice.append(
            [
                [
                    2 * float(((b == k) & (t == k)).sum()) / max(float((b == k).sum() + (t == k).sum()), 1.0)
                    if bool((t == k).any())
                    else math.nan
                    for k in (1, 2, 3)
                ]
                for b, t in zip(back, truth, strict=True)
            ]
        )
        spacing = image.affine[:3, :3].norm(dim=0).tolist()
        ours, theirs = (heart_function(mask, spacing=spacing) for mask in (back, truth))
        errors.append((ours.lv_ef or 0.0) - (theirs.lv_ef or 0.0))
    means = np.nanmean(dice, axis=(0, 1))
    print(f"{size}: Dice LV, MYO, RV {means.round(3)}, ejection fraction off by {np.abs(errors).mean():.2f} points")
    assert (means >= LEAST[size]).all()
    assert np.abs(errors).mean() < 2
