"""How well the heart is found in real patients. Needs the folder named by MONAI_FEDLORA_REAL_DATA."""

import csv
import math
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_fedlora.transforms.cine import LoadCined, ResampleCined
from monai_fedlora.transforms.localise import crop_start, heart_centre

ROOT = os.environ.get("MONAI_FEDLORA_REAL_DATA")
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not ROOT, reason="MONAI_FEDLORA_REAL_DATA names no folder"),
]


def acdc():
    """(ed, es, mask, LV label, RV label) of every patient."""
    for folder in sorted((Path(ROOT) / "acdc" / "database" / "training").iterdir()):
        info = dict(re.findall(r"(\w+): (\w+)", (folder / "Info.cfg").read_text()))
        ed, es = (folder / f"{folder.name}_frame{int(info[key]):02d}" for key in ("ED", "ES"))
        yield f"{ed}.nii.gz", f"{es}.nii.gz", f"{ed}_gt.nii.gz", 3, 1


def sunnybrook():
    root = Path(ROOT) / "sunnybrook"
    with (root / "patients.csv").open() as stream:
        for row in csv.DictReader(stream):
            yield *(str(root / row[key]) for key in ("ed_image", "es_image", "ed_label")), 1, None


def box_mm(mask, spacing):
    """First and last voxel of the mask along x and y, in mm from the centre of voxel 0."""
    where = np.argwhere(mask)[:, :2] * spacing[:2]
    return where.min(axis=0), where.max(axis=0)


def measure(patients, step, width_mm=160.0):
    """Per patient: mm to the LV's centroid, and whether the LV and the RV lie inside the crop."""
    results = []
    resample = ResampleCined(spacing=(step, step, 10.0))
    for ed, es, mask_path, left, right in patients:
        image = resample(LoadCined()({"ed": ed, "es": es}))["image"].as_tensor()
        centre = heart_centre(image, step)
        size = int(width_mm / step)
        start = [crop_start(float(centre[a]), image.shape[1 + a], size) * step for a in (0, 1)]
        file = nibabel.load(mask_path)
        mask, spacing = np.asarray(file.dataobj), np.array(file.header.get_zooms())
        centroid = np.argwhere(mask == left).mean(axis=0)[:2] * spacing[:2]
        inside = []
        for label in (left, right):
            if label is None or not (mask == label).any():
                continue
            low, high = box_mm(mask == label, spacing)
            inside.append(all(start[a] <= low[a] and high[a] <= start[a] + (size - 1) * step for a in (0, 1)))
        results.append((math.dist(centre.numpy() * step, centroid), *inside))
    return results


@pytest.mark.parametrize("step", [2.5, 1.0])
@pytest.mark.parametrize("patients", [acdc, sunnybrook])
def test_every_left_ventricle_lies_inside_a_160_mm_crop(patients, step):
    results = measure(patients(), step)
    misses = sorted(row[0] for row in results)
    print(f"{patients.__name__} at {step} mm: median {np.median(misses):.1f} mm, largest {misses[-1]:.1f} mm")
    assert all(row[1] for row in results)
    assert misses[-1] < 35
    if patients is acdc:
        assert np.mean([row[2] for row in results]) > 0.8
        assert all(row[2] for row in measure(patients(), step, width_mm=192.0))
