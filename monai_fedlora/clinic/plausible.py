"""Checks whether an image is of the kind that a model was trained on.

Each function returns doubts as sentences, none if nothing was found. They find the wrong kind of image, not an unusual
patient: the bounds (ours) are wide, and an image that passes can still differ from all training images.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from monai_fedlora.clinic.frames_choice import blood_areas
from monai_fedlora.transforms.localise import heart_centre
from monai_fedlora.transforms.orientation import view_angle

_COVERED_MM = (50.0, 200.0)
_BORDER_MM = 30.0
_SAME_FRAME = 0.02
_EXCHANGED = 0.005
_CLIPPED = 0.05
"""Largest share of voxels at the highest level; in 234 frames of 117 patients it is below 0.012."""
_EMPTY_SLICE = 1e-3
"""Largest contrast of an empty slice, as a share of the stack's contrast."""
_ALIKE = 0.05
_FAR_MM = 4.0
"""In the same patients, neighbouring slices at least so far apart differ by 0.12 and more of the contrast, neighbouring
frames of a cine by 0.03."""
_SLANT = 5.0
"""Largest deviation of two axes of an image from a right angle, in degrees (ours)."""
_UNUSUAL_VIEW = 35.0
"""Degrees from the reference short-axis view beyond which the orientation is doubted (ours): a published patient lies 5
from it, and 53 or more if the signs of one or two world axes are wrong."""
_LIT = 0.15  # sum of red, green and blue, below which a pixel belongs to the dark surroundings
_GREY = 0.03
_FLAT = 0.02
_BRIGHTNESS = (0.12, 0.97)
_LONG = 2.5
_TISSUE = {"red": (0.30, 1.0), "green": (0.0, 0.36), "blue": (0.0, 0.42)}
"""Ranges of the share of each colour in photographs of skin and retina: of 1,500 dermatoscopic photographs of HAM10000
all but a few in a thousand have red above 0.32, green below 0.34 and blue below 0.38; retinas are redder."""


def cine_doubts(frames: np.ndarray, *, spacing: tuple[float, float, float]) -> list[str]:
    """Check end-diastole and end-systole of a cine.

    Args:
        frames: (2, X, Y, Z) grey levels, finite and not constant.
        spacing: (x, y, z) in mm.
    """
    doubts = []
    covered = frames.shape[3] * spacing[2]
    if not _COVERED_MM[0] <= covered <= _COVERED_MM[1]:
        doubts.append(
            f"the slices cover {covered:.0f} mm, and a stack through the ventricles {_COVERED_MM[0]:.0f} to "
            f"{_COVERED_MM[1]:.0f} mm"
        )
    doubts += _slice_doubts(frames, distance=spacing[2])
    in_plane = float(np.sqrt(spacing[0] * spacing[1]))
    change = float(np.abs(frames[0] - frames[1]).mean()) / max(float(frames.std()), 1e-12)
    if change < _SAME_FRAME:
        return [*doubts, "the two frames are nearly the same image; the heart does not contract between them"]
    doubts += _mirror_doubts(frames)
    ed, es = blood_areas(np.stack([frames[0], frames[1]], axis=-1), spacing_mm=in_plane)
    if es > ed + _EXCHANGED:
        doubts.append("there is more blood at end-systole than at end-diastole; the two may be exchanged")
    centre = heart_centre(torch.from_numpy(np.ascontiguousarray(frames)), in_plane).numpy()
    border = min(*centre, frames.shape[1] - 1 - centre[0], frames.shape[2] - 1 - centre[1]) * in_plane
    if border < _BORDER_MM:
        doubts.append(
            f"what moves most lies {max(border, 0):.0f} mm from the border of the image; it may not be the heart"
        )
    return doubts


def affine_doubts(affine: np.ndarray) -> list[str]:
    """Check that the axes of an affine (4, 4), voxel to world, are at right angles, as the model assumes."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(directions.T @ directions - np.eye(3))
    slant = float(np.degrees(np.arcsin(min(float(cosines.max()), 1.0))))
    if slant <= _SLANT:
        return []
    return [
        f"two axes of the image are {90 - slant:.0f} instead of 90 degrees apart; the model takes it to be straight"
    ]


def view_doubts(affine: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    """Check that a stack is oriented like a short axis; a stack of unknown orientation has no doubts.

    Not every wrong sign is noticed: if all three are wrong, the axes run along the same lines.

    Args:
        affine: (4, 4) voxel to world in mm (right, anterior, superior).
        shape: voxels along the three axes.
    """
    angle = view_angle(torch.from_numpy(affine), list(shape))
    if angle is None or angle <= _UNUSUAL_VIEW:
        return []
    return [
        f"the images lie {angle:.0f} degrees from the usual short-axis view: if the file's orientation is wrong, so is "
        "the answer"
    ]


def _slice_doubts(frames: np.ndarray, *, distance: float) -> list[str]:
    """Check for clipped levels, empty slices, and neighbouring slices that are nearly equal."""
    doubts = []
    clipped = float((frames == frames.max(axis=(1, 2, 3), keepdims=True)).mean())
    if clipped > _CLIPPED:
        doubts.append(f"{100 * clipped:.0f} % of the voxels have the largest level; the image is saturated or no image")
    contrast = (frames.max(axis=(1, 2)) - frames.min(axis=(1, 2))).min(axis=0)  # (Z,)
    if empty := int((contrast <= _EMPTY_SLICE * float(frames.max() - frames.min())).sum()):
        doubts.append(f"{empty} of {frames.shape[3]} slices are empty")
    cells = _cells(frames)
    alike = float(np.abs(np.diff(cells, axis=3)).mean()) < _ALIKE * float(cells.std())
    if alike and distance >= _FAR_MM:
        doubts.append("neighbouring slices are nearly the same image; is the third axis time?")
    return doubts


def _mirror_doubts(frames: np.ndarray) -> list[str]:
    """Check whether one frame resembles the other more with some of its axes reversed.

    In 80 patients of ACDC the correlation of their frames is 0.86 and more as they are, and 0.59 and less otherwise.
    """
    ed, es = (cells - cells.mean() for cells in _cells(frames))
    as_it_is = float((ed * es).sum())
    reversals = [axes for count in (1, 2, 3) for axes in itertools.combinations(range(3), count)]
    if max(float((ed * np.flip(es, axes)).sum()) for axes in reversals) <= as_it_is:
        return []
    return ["the two frames fit better with the slices, rows or columns of one reversed; one may be stored otherwise"]


def _cells(frames: np.ndarray) -> np.ndarray:
    """(2, X // 4, Y // 4, Z) means of 4 x 4 voxels of each slice."""
    width, height = (size // 4 * 4 for size in frames.shape[1:3])
    return frames[:, :width, :height].reshape(2, width // 4, 4, height // 4, 4, -1).mean(axis=(2, 4))


def photograph_doubts(levels: np.ndarray, *, style: str | None) -> list[str]:
    """Check a photograph.

    Args:
        levels: (3, H, W) red, green and blue in [0, 1].
        style: what the model was trained on; of "plain" photographs no colours are expected.
    """
    doubts = []
    height, width = levels.shape[1:]
    if max(height, width) > _LONG * min(height, width):
        doubts.append(f"of {width} x {height} pixels only the middle square is used")
    lit = levels[:, levels.sum(axis=0) > _LIT]
    if lit.shape[1] < 0.05 * height * width or not _BRIGHTNESS[0] <= float(lit.mean()) <= _BRIGHTNESS[1]:
        return [*doubts, "the photograph is nearly black or white"]
    if float(lit.std(axis=1).max()) < _FLAT:
        doubts.append("the photograph has hardly any contrast")
    if style == "plain":
        return doubts
    highest = lit.max(axis=0)
    if float(((highest - lit.min(axis=0)) / highest).mean()) < _GREY:
        return [*doubts, "the photograph is grey, and the model was trained on colours; is it another kind of image?"]
    shares = (lit / lit.sum(axis=0)).mean(axis=1)
    for (colour, (low, high)), share in zip(_TISSUE.items(), shares, strict=True):
        if not low <= share <= high:
            doubts.append(f"the colours are those of neither skin nor retina: {100 * share:.0f} % {colour}")
            break
    return doubts
