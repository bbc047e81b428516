"""Read the masks of a cine study on the grid of their images, or say why they cannot be used.

A mask must lie on the grid of its image: the same numbers of voxels, and an affine that differs nowhere by more than
half a voxel. It is reordered exactly as its image is, by the image's affine, so that the two stay aligned even where
the affine of the mask has lost its orientation's last digits.

Rule for slices without outlines: at either end of a stack they lie beyond the base or the apex and are background. One
between outlined slices was left out by whoever drew the mask; what is in it is not known, so the mask is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.errors import DataError
from monai_fedlora.formats.nifti import open_volume
from monai_fedlora.formats.nifti_forms import times
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.transforms.frames import Frame, shared_slices
from monai_fedlora.transforms.orientation import reading_order, reordered_array

MASK = "mask"
"""Key of masks, uint8 tensors (F, \\*spatial): 0 background, 1 to K the structures."""
LABELLED = "labelled"
"""Key of a boolean tensor (K + 1,): whether a case's mask outlines each structure, the background first."""

_HALF = 0.5
"""Largest distance between the corners of a mask and of its image, in voxels."""


def read_both_masks(item: Mapping[str, Any], ed: Frame, es: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Read the masks of both frames of one patient, each on all slices of its own stack.

    Arguments and errors are those of :func:`read_masks`.

    Returns:
        Of each frame (X, Y, Z) uint8 in the canonical order of axes: 0 background, 1 to K the structures.
    """
    both = []
    for frame, phase in ((ed, "ed"), (es, "es")):
        if "mask" in item:
            path, number = Path(item["mask"]), int(item[f"{phase}_frame"])
        elif f"{phase}_mask" in item:
            path, number = Path(item[f"{phase}_mask"]), None
        else:
            raise DataError(f"{frame.path} ({phase.upper()}) has no mask; both frames need one")
        both.append(_read_mask(path, frame, number, item["mask_values"]))
    return both[0], both[1]


def read_masks(item: Mapping[str, Any], ed: Frame, es: Frame) -> np.ndarray:
    """Read the masks of both frames of one patient, and join their slices as `frames.join_frames` joins the images.

    Args:
        item: with ``ed_mask`` and ``es_mask``, or with ``mask`` (4D), ``ed_frame`` and ``es_frame``, and with
            ``mask_values``, the value in the files of each structure, 0 for one that is not outlined.
        ed, es: the images.

    Returns:
        (2, X, Y, Z) uint8 in the canonical order of axes: 0 background, 1 to K the structures.

    Raises:
        DataError: a file is missing, damaged or not on the grid of its image, holds an unknown value or no structure,
            or lacks slices between others.
    """
    slices = shared_slices(ed, es)
    return np.stack([mask[..., part] for mask, part in zip(read_both_masks(item, ed, es), slices, strict=True)])


def mask_labels(stored: np.ndarray, values: Sequence[int], path: Path) -> np.ndarray:
    """The values of a mask file as uint8 labels, 0 background and 1 to K in the order of ``values``.

    Raises:
        DataError: there are other values, or none of these.
    """
    found = np.unique(stored)
    known = {0, *values}
    if unknown := [value for value in found.tolist() if value not in known]:
        named = ", ".join(f"{value:g}" for value in unknown[:4])
        why = "it was interpolated, or is no mask" if any(v != round(v) for v in unknown) else "its labels are others"
        raise DataError(
            f"{path} holds the value {named}, and its structures are {', '.join(str(v) for v in values if v)} on 0: "
            f"{why}; correct mask_values, or export the mask with nearest-neighbour interpolation"
        )
    if not set(found.tolist()) & {value for value in values if value}:
        raise DataError(
            f"{path} is empty: nothing in it belongs to a structure; choose another mask, or leave its image out"
        )
    labels = np.zeros(stored.shape, np.uint8)
    for label, value in enumerate(values, 1):
        if value:
            labels[stored == value] = label
    return labels


def outlined(values: Sequence[int]) -> Tensor:
    """Which classes a mask outlines, (K + 1,) bool: the background, always, and each structure."""
    return torch.tensor([True, *(bool(value) for value in values)])


def _order(path: Path, shape: tuple[int, ...], affine: np.ndarray, frame: Frame) -> tuple[list[int], list[bool]]:
    """How the image of a mask was reordered; refuse a mask on another grid."""
    advice = "draw the mask on this image, or resample it onto the image with nearest-neighbour interpolation"
    try:
        axes, backwards, _ = reading_order(torch.from_numpy(frame.stored), list(shape))
    except ValueError:
        axes, backwards = [0, 1, 2], [False] * 3
    if (found := tuple(shape[axis] for axis in axes)) != frame.voxels.shape:
        raise DataError(
            f"{path} has {times(found)} voxels, and its image {frame.path} has {times(frame.voxels.shape)} (slices "
            f"last); {advice}"
        )
    last = [size - 1 for size in shape]
    corners = np.array([[i, j, k, 1] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
    away = float(np.linalg.norm((corners @ (affine - frame.stored).T)[:, :3], axis=1).max())
    if away > _HALF * float(np.linalg.norm(frame.stored[:3, :3], axis=0).min()):
        raise DataError(
            f"{path} lies up to {away:.1f} mm from its image {frame.path}, by their affines: another position, order "
            f"of axes or voxel size; {advice}"
        )
    return axes, backwards


def _read_mask(path: Path, frame: Frame, number: int | None, values: Sequence[int]) -> np.ndarray:
    volume = open_volume(path, axes=3 if number is None else 4)
    shape = volume.header.shape
    axes, backwards = _order(path, shape[:3], volume.affine, frame)
    if number is not None and number >= shape[3]:
        raise DataError(f"{path} has {shape[3]} frames, and frame {number} counted from 0 is needed")
    try:
        voxels = np.asanyarray(volume.proxy if number is None else volume.proxy[..., number])
    except Exception as error:  # nibabel, gzip and zlib report damage by many kinds of errors
        tell_out_of_memory(error, f"reading {path}")
        raise DataError(f"{path} cannot be read to its end ({error}); copy it again from the source") from error
    labels, _ = reordered_array(mask_labels(voxels, values, path), frame.stored, axes, backwards)
    filled = np.flatnonzero(labels.any(axis=(0, 1)))
    if missing := sorted(set(range(filled[0], filled[-1])) - set(filled.tolist())):
        raise DataError(
            f"{path} has nothing in slice {', '.join(map(str, missing))} (from the base, counted from 0) between "
            "slices with outlines, so what is there is not known; draw the missing slices, or leave the patient out"
        )
    return np.ascontiguousarray(labels)
