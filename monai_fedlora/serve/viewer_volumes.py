"""Write a cine and its coloured occlusion map as NIfTI volumes, which the viewer overlays.

Both have affines in patient coordinates. The map lies on the grid of the network's input, which is a crop of the
resampled image. The exported model does not tell where it cropped, so that the crop is computed again here; its
position is known only if this reproduces the network's input.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor

from monai_fedlora.files import open_new
from monai_fedlora.transforms.localise import crop_start, heart_centre, normalise_cine

_LEVELS = 32767
_NEAR = 1e-3
_RGBA = np.dtype([(channel, "u1") for channel in "RGBA"])


def write_cine(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write all frames of a cine.

    Args:
        path: ends in ``.nii.gz``.
        voxels: (X, Y, Z, T) grey levels.
        affine: (4, 4) voxel to world in mm.
    """
    _write(path, _exact(voxels), affine)


def write_overlay(path: Path, colours: np.ndarray, affine: np.ndarray) -> None:
    """Write a coloured occlusion map.

    A border of one transparent voxel is added on all sides, as viewers extend the outermost voxels beyond the grid.

    Args:
        path: ends in ``.nii.gz``.
        colours: (X, Y, Z, 4) uint8 of :func:`monai_fedlora.clinic.overlay.colours`.
        affine: (4, 4) voxel to world in mm.
    """
    padded = np.ascontiguousarray(np.pad(colours, [(1, 1), (1, 1), (1, 1), (0, 0)]))
    moved = np.array(affine, dtype=float)
    moved[:3, 3] -= moved[:3, :3].sum(axis=1)
    _write(path, padded.view(_RGBA)[..., 0], moved)


def network_affine(image: Tensor, prepared: Tensor, affine: np.ndarray) -> np.ndarray | None:
    """The affine of the network's input.

    Args:
        image: (2, X, Y, Z), resampled input of the exported model.
        prepared: (2, x, y, z), input of its network.
        affine: (4, 4) voxel of ``image`` to world in mm; with equal spacing along x and y.

    Returns:
        (4, 4) voxel of ``prepared`` to the same world; None if the model crops in another way.
    """
    x, y, z = (int(length) for length in prepared.shape[1:])
    spacing = float(np.linalg.norm(affine[:3, 0]))
    if not torch.allclose(normalise_cine(image, (x, y, z), spacing), prepared, atol=_NEAR):
        return None
    centre = heart_centre(image, spacing)
    first = [crop_start(float(centre[axis]), image.shape[axis + 1], size) for axis, size in enumerate((x, y))]
    padding = [max(size - image.shape[axis + 1], 0) // 2 for axis, size in enumerate((x, y))]
    start = np.array([first[0] - padding[0], first[1] - padding[1], max(image.shape[3] - z, 0) // 2], dtype=float)
    moved = np.array(affine, dtype=float)
    moved[:3, 3] += moved[:3, :3] @ start
    return moved


def _exact(voxels: np.ndarray) -> np.ndarray:
    """The levels without loss, in 16 bits if they fit, so that reading them back gives the same answer."""
    if float(voxels.min()) >= -_LEVELS and float(voxels.max()) <= _LEVELS and (voxels == np.rint(voxels)).all():
        return voxels.astype(np.int16)
    return voxels.astype(np.float32)


def _write(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    with open_new(path) as stream:
        stream.write(gzip.compress(image.to_bytes(), compresslevel=1))  # fast, for a file that stays on this machine
