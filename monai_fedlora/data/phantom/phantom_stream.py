"""An endless stream of labelled phantoms on a network's grid, drawn while it is read and kept nowhere.

Item ``i`` of the stream with seed ``s`` follows from ``(s, i)`` alone, to the bit: a training that was interrupted
continues at its next item, whatever the number of processes that draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_fedlora.data.endless import OneThread
from monai_fedlora.data.phantom.free_patient import FreePatient, make_free_patient
from monai_fedlora.data.phantom.heart_truth import TRUTHS
from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.localise import crop_start, heart_centre, normalise_cine
from monai_fedlora.transforms.orientation import reading_order, reordered_array
from monai_fedlora.transforms.resampling import resample

_ORDERS = tuple(itertools.permutations(range(3)))


class PhantomStream(Dataset[dict[str, Any]]):
    """Phantoms by number, for any number from 0.

    An item is a dictionary:

    * ``image``: (2, X, Y, Z) float32 in [0, 1], ED and ES, by the preprocessing that files get.
    * ``mask``: (2, 3, X, Y, Z) uint8, 255 times the share of each voxel that LV, muscle and RV fill, in this order,
      resampled and cropped with the image. Shares, not labels: in the coarse voxels of a network a wall is two or three
      voxels thick, and a label would round away what a volume is made of.
    * ``targets``: (9,) float32, the values of ``heart_truth.TRUTHS``: of the whole heart, also where the stack lacks
      its base or apex.
    * ``label``: int64, ACDC's group, a number in ``vendors.GROUPS``, or -1 for a heart between the groups.
    * ``placeholder``: bool, whether the file would not hold the orientation.

    Args:
        image_size: voxels (x, y, z) of the network's input.
        spacing: voxel size (x, y, z) in mm; x and y equal.
        seed: of the stream.
    """

    def __init__(self, *, image_size: Sequence[int], spacing: Sequence[float], seed: int) -> None:
        x, y, z = (int(size) for size in image_size)
        self.size = (x, y, z)
        self.spacing = [float(step) for step in spacing]
        self.seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            raise ConfigError(f"item {index} of a stream of phantoms: numbers begin at 0")
        with OneThread():
            patient = make_free_patient((self.seed, index))
            rng = np.random.default_rng((self.seed, index, 1))
            return {
                **_on_grid(patient, self.size, self.spacing, rng),
                "targets": torch.tensor([patient.truth[name] for name in TRUTHS], dtype=torch.float32),
                "label": torch.tensor(patient.label),
                "placeholder": torch.tensor(patient.directions is None),
            }


def _on_grid(
    patient: FreePatient, size: tuple[int, int, int], spacing: list[float], rng: np.random.Generator
) -> dict[str, Tensor]:
    """Store image and shares in an order of axes drawn at random, and bring them to the network's grid as files are."""
    affine = np.eye(4)
    directions = np.eye(3) if patient.directions is None else patient.directions
    affine[:3, :3] = directions * np.asarray(patient.spacing)
    axes = [int(axis) for axis in _ORDERS[rng.integers(len(_ORDERS))]]
    backwards = [bool(back) for back in rng.integers(0, 2, 3)]

    def read(volume: np.ndarray, corner: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
        """(C, Z, Y, X) as a file would hold it, in the canonical order of axes: (C, X, Y, Z) and its affine."""
        placed = affine.copy()
        placed[:3, 3] = affine[:3, :3] @ (*corner, 0)
        stored, where = reordered_array(volume.transpose(3, 2, 1, 0), placed, axes, backwards)
        told = where if patient.directions is not None else np.diag([*np.linalg.norm(where[:3, :3], axis=0), 1.0])
        order, reverse, _ = reading_order(torch.from_numpy(told), list(stored.shape[:3]))
        oriented, where = reordered_array(stored, where, order, reverse)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(oriented, -1, 0))), torch.from_numpy(where)

    levels, where = read(patient.image)
    image, _ = resample(levels, where, spacing)
    centre = heart_centre(image, spacing[0])
    window = [crop_start(float(centre[axis]), image.shape[axis + 1], size[axis]) for axis in range(2)]
    window.append(max(image.shape[3] - size[2], 0) // 2)
    frames, structures = patient.occupancy.shape[:2]
    shares, part = read(patient.occupancy.reshape(-1, *patient.occupancy.shape[2:]), patient.corner)
    offset = torch.linalg.solve(where[:3, :3], part[:3, 3] - where[:3, 3]).round()
    for axis in (1, 0, 2):
        count = min(size[axis], image.shape[axis + 1])
        step = spacing[axis] / float(where[:3, axis].norm())
        place = ((torch.arange(count) + window[axis]) * step).clamp(max=levels.shape[axis + 1] - 1)
        shares = _interpolated(shares, axis + 1, place - offset[axis])
    mask = torch.zeros((frames * structures, *size), dtype=torch.uint8)
    x, y = ((size[axis] - shares.shape[axis + 1]) // 2 for axis in range(2))
    target = mask[:, x : x + shares.shape[1], y : y + shares.shape[2], : shares.shape[3]]
    target.copy_(shares.mul_(255).round_())
    return {
        "image": normalise_cine(image, size, spacing[0]),
        "mask": mask.reshape(frames, structures, *size),
    }


def _interpolated(volume: Tensor, axis: int, place: Tensor) -> Tensor:
    """Values between the voxels along an axis at ``place``, as ``resampling.resample`` computes them; 0 beyond them."""
    last = volume.shape[axis] - 1
    inside = (place > -1) & (place < last + 1)
    place = place.clamp(min=0, max=last)
    low = place.floor().clamp(max=max(last - 1, 0)).long()
    shape = [-1 if other == axis else 1 for other in range(volume.ndim)]
    first = volume.index_select(axis, low)
    second = volume.index_select(axis, (low + 1).clamp(max=last))
    return first.lerp_(second, (place - low).float().reshape(shape)).mul_(inside.reshape(shape))
