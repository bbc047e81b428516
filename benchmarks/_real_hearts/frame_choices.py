"""End-diastole and end-systole by the volume of the left ventricle, beside the choice by grey levels of today.

Two frames of a patient in either order are the smallest cine, of which the truth is known: experts named both. Of a
whole cine, the frames by grey levels are compared with those of the volume curve of a network's outlines.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _real_hearts.grids import Grid, Truth
from _real_hearts.outlines import outlined
from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_pixels import read_voxels
from monai_fedlora.clinic.dicom_stack import find_stack
from monai_fedlora.clinic.frames_choice import choose_frames
from monai_fedlora.clinic.outlining import frame_pairs
from monai_fedlora.errors import DataError
from monai_fedlora.measures.beat_volumes import beat_frames
from monai_fedlora.measures.heart_function import ejection_fraction, volumes_ml
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.studies.zipped import study_files
from monai_fedlora.transforms.orientation import orient_array


def of_pairs(truths: list[Truth], network: ConvUNetR | None, grid: Grid) -> dict[str, Any]:
    """How often each way tells end-diastole of two frames, shown in both orders.

    Returns:
        ``questions``, two for each patient; answers that were right: ``grey_levels``, ``true_volumes``, and
        ``outlined_volumes`` where there is a network.
    """
    right = {"grey_levels": 0, "true_volumes": 0} | ({"outlined_volumes": 0} if network else {})
    for truth in truths:
        for order in ([0, 1], [1, 0]):
            shown = dataclasses.replace(truth, image=truth.image[order], mask=truth.mask[order])
            cine = np.moveaxis(shown.image.numpy(), 0, -1)
            right["grey_levels"] += _by_grey_levels(cine, truth.spacing) == order.index(0)
            right["true_volumes"] += _by_volume(shown.mask, truth.spacing) == order.index(0)
            if network:
                right["outlined_volumes"] += _by_volume(outlined(network, shown, grid), truth.spacing) == order.index(0)
    return {"questions": 2 * len(truths), **right}


def _by_grey_levels(cine: np.ndarray, spacing: tuple[float, float, float]) -> int | None:
    try:
        return choose_frames(cine, spacing_mm=float(np.sqrt(spacing[0] * spacing[1]))).ed
    except DataError:
        return None


def _by_volume(masks: np.ndarray, spacing: tuple[float, float, float]) -> int | None:
    try:
        return beat_frames(volumes_ml(masks, spacing=spacing)[:, 0]).ed
    except DataError:
        return None


def of_cine(folder: Path, network: ConvUNetR | None, grid: Grid) -> dict[str, Any]:
    """The frames of one DICOM study, by grey levels and, where there is a network, by the volume curve."""
    with study_files(folder) as files:
        stack = find_stack(read_image_headers(files, folder), folder)
        voxels = read_voxels(stack)
    cine, affine = orient_array(voxels, stack.affine)
    cine = np.ascontiguousarray(cine, dtype=np.float32)
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    today = choose_frames(cine, spacing_mm=float(np.sqrt(x * y)))
    found: dict[str, Any] = {"frames": cine.shape[3], "grey_levels": [today.ed, today.es]}
    if network is None:
        return found
    volumes = []
    for frame, pair in enumerate(frame_pairs(today.areas, ed=today.ed, es=today.es)):
        image = torch.from_numpy(np.stack([cine[..., one] for one in pair]))
        shown = Truth(
            image=image,
            mask=np.zeros(image.shape, np.uint8),
            affine=torch.from_numpy(affine),
            labelled=(True, True, True, True),
            oriented=True,
        )
        mask = outlined(network, shown, grid)[pair.index(frame)]
        volumes.append(float(volumes_ml(mask[None], spacing=(x, y, z))[0, 0]))
    beat = beat_frames(volumes)
    ejections = {
        way: ejection_fraction(edv=volumes[ed], esv=volumes[es])
        for way, (ed, es) in (("grey_levels", (today.ed, today.es)), ("volume_curve", (beat.ed, beat.es)))
    }
    return {
        **found,
        "volume_curve": [beat.ed, beat.es],
        "volumes_ml": [round(volume, 1) for volume in volumes],
        "ejection_percent": {way: None if value is None else round(value, 1) for way, value in ejections.items()},
    }
