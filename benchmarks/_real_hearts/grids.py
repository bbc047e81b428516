"""Masks on a network's grid and back: what a grid alone costs, whatever a network does on it.

The steps are those of the package's preprocessing, with the crop where the images put it. Each structure's share of a
voxel is interpolated, the largest share wins, and beyond the grid everything is background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from _real_hearts.patients import Patient
from monai_fedlora.measures.structures import HEART
from monai_fedlora.transforms.frames import join_frames, read_frames
from monai_fedlora.transforms.localise import crop_start, heart_centre
from monai_fedlora.transforms.orientation import is_known, orient_array
from monai_fedlora.transforms.resampling import resample


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A network's grid.

    Attributes:
        image_size: voxels x, y, z.
        spacing: mm along x, y, z; x and y equal.
    """

    image_size: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def read(cls, text: str) -> Grid:
        """``48x48x8@3.3x3.3x10``.

        Raises:
            ValueError: it is not of that form.
        """
        size, _, step = text.partition("@")
        x, y, z = (int(number) for number in size.split("x"))
        a, b, c = (float(number) for number in step.split("x"))
        return cls(image_size=(x, y, z), spacing=(a, b, c))

    def __str__(self) -> str:
        return "x".join(map(str, self.image_size)) + "@" + "x".join(f"{step:g}" for step in self.spacing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A patient's frames and masks on the grid of the files, in the canonical order of axes.

    Attributes:
        image: (2, X, Y, Z) float32 grey levels, ED and ES.
        mask: (2, X, Y, Z) uint8.
        affine: (4, 4).
        labelled: see :class:`Patient`.
        oriented: whether the files tell how the patient lies.
    """

    image: torch.Tensor
    mask: np.ndarray
    affine: torch.Tensor
    labelled: tuple[bool, bool, bool, bool]
    oriented: bool

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z in mm."""
        x, y, z = self.affine[:3, :3].double().norm(dim=0).tolist()
        return x, y, z


def read(patient: Patient) -> Truth:
    """Read frames and masks; of two stacks of different length the slices that both have."""
    ed, es = read_frames(patient.item())
    voxels, affine = join_frames(ed, es)
    stored, header = patient.masks()
    masks = [orient_array(mask, header)[0] for mask in stored]
    for mask, frame in zip(masks, (ed, es), strict=True):
        if mask.shape != frame.voxels.shape:
            raise SystemExit(f"the mask of {frame.path.name} has the shape {mask.shape}, it {frame.voxels.shape}")
    starts = [_start(frame.voxels, joint) for frame, joint in zip((ed, es), voxels, strict=True)]
    joined = np.stack([mask[..., start : start + voxels.shape[3]] for mask, start in zip(masks, starts, strict=True)])
    return Truth(
        image=torch.from_numpy(np.ascontiguousarray(voxels)),
        mask=joined,
        affine=torch.from_numpy(affine),
        labelled=patient.labelled,
        oriented=is_known(torch.from_numpy(ed.affine), list(ed.voxels.shape)),
    )


def _start(whole: np.ndarray, part: np.ndarray) -> int:
    """The slice of a stack at which a part of it begins."""
    depth = part.shape[2]
    places = range(whole.shape[2] - depth + 1)
    return next(place for place in places if np.array_equal(whole[..., place : place + depth], part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a network's grid lies in a resampled stack.

    Attributes:
        stack: voxels x, y, z of the resampled stack.
        start: first voxel of the part that the network sees.
        length: voxels of that part.
        before: voxels of padding in front of it on the grid.
    """

    stack: tuple[int, ...]
    start: tuple[int, ...]
    length: tuple[int, ...]
    before: tuple[int, ...]


def resampled(truth: Truth, grid: Grid) -> tuple[torch.Tensor, Place]:
    """The frames (2, X', Y', Z') at a grid's spacing, and where the grid lies in them."""
    image, _ = resample(truth.image, truth.affine, list(grid.spacing))
    centre = heart_centre(image, grid.spacing[0])
    sizes = tuple(image.shape[1:])
    start = (
        crop_start(float(centre[0]), sizes[0], grid.image_size[0]),
        crop_start(float(centre[1]), sizes[1], grid.image_size[1]),
        max(sizes[2] - grid.image_size[2], 0) // 2,
    )
    length = tuple(min(a, b) for a, b in zip(sizes, grid.image_size, strict=True))
    spare = [a - b for a, b in zip(grid.image_size, length, strict=True)]
    return image, Place(stack=sizes, start=start, length=length, before=(spare[0] // 2, spare[1] // 2, 0))


def to_files(shares: torch.Tensor, truth: Truth, grid: Grid, place: Place) -> np.ndarray:
    """Labels (2, X, Y, Z) on the grid of the files from shares (2, K + 1, \\*image_size) on a network's grid."""
    kept = shares[(..., *(slice(a, a + n) for a, n in zip(place.before, place.length, strict=True)))]
    whole = torch.zeros(*shares.shape[:2], *place.stack)
    whole[:, 0] = 1
    whole[(..., *(slice(a, a + n) for a, n in zip(place.start, place.length, strict=True)))] = kept
    for axis, (count, step, wanted) in enumerate(
        zip(truth.mask.shape[1:], truth.spacing, grid.spacing, strict=True), 2
    ):
        whole = _at(whole, axis, torch.arange(count, dtype=torch.float64) * (step / wanted))
    return whole.argmax(dim=1).to(torch.uint8).numpy()


def round_trip(truth: Truth, grid: Grid) -> np.ndarray:
    """The patient's masks (2, X, Y, Z) after the way to a grid and back to that of the files."""
    _, place = resampled(truth, grid)
    shares = _one_hot(torch.from_numpy(truth.mask))
    there = torch.stack([resample(frame, truth.affine, list(grid.spacing))[0] for frame in shares])
    seen = there[(..., *(slice(a, a + n) for a, n in zip(place.start, place.length, strict=True)))]
    decided = torch.zeros(*seen.shape[:2], *grid.image_size)
    decided[:, 0] = 1
    inside = tuple(slice(a, a + n) for a, n in zip(place.before, place.length, strict=True))
    decided[(..., *inside)] = _one_hot(seen.argmax(dim=1))
    return to_files(decided, truth, grid, place)


def _one_hot(labels: torch.Tensor) -> torch.Tensor:
    """(2, X, Y, Z) -> (2, K + 1, X, Y, Z)."""
    return F.one_hot(labels.long(), len(HEART) + 1).permute(0, 4, 1, 2, 3).float()


def _at(values: torch.Tensor, axis: int, places: torch.Tensor) -> torch.Tensor:
    """Linear interpolation along an axis."""
    last = values.shape[axis] - 1
    places = places.clamp(0, last)
    low = places.floor().clamp(max=max(last - 1, 0)).long()
    weight = (places - low).float().reshape([-1 if other == axis else 1 for other in range(values.ndim)])
    first, second = values.index_select(axis, low), values.index_select(axis, (low + 1).clamp(max=last))
    return first + (second - first) * weight
