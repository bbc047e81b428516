"""How a phantom patient lies in the scanner, and in which order of axes a vendor's images end up in files.

A picture of :mod:`monai_fedlora.data.phantom.patient` is a short-axis view close to the reference of
:mod:`monai_fedlora.transforms.orientation`, tilted a little for each patient, as nobody's heart lies like another's.
Its affine says so. Beside that the vendors differ by a turn or mirror of the picture that no affine tells
(``quarter_turns`` and ``mirrored`` in :mod:`monai_fedlora.data.phantom.vendors`), as careless converters leave them.
"""

from __future__ import annotations

import numpy as np
import torch

from monai_fedlora.transforms.orientation import reference_view, reordered_affine

Array = np.ndarray

_TILT_DEGREES = (6.0, 14.0)
"""Spread of the tilt about each axis, and the largest tilt (ours)."""

_STORED: dict[str, tuple[tuple[int, int, int], tuple[bool, bool, bool]]] = {
    "A": ((0, 1, 2), (False, True, False)),
    "B": ((0, 1, 2), (True, True, True)),
    "C": ((1, 0, 2), (False, False, True)),
    "D": ((0, 1, 2), (False, False, True)),
}
"""By vendor, for each axis of the file that of the picture (across, down, from base to apex), and whether it runs
backwards: rows from below as dcm2niix writes them, half turns, exchanged axes, slices from the apex."""


def draw_directions(rng: np.random.Generator) -> Array:
    """(3, 3) unit vectors of the picture's axes (columns) in the patient (right, anterior, superior)."""
    from scipy.spatial.transform import Rotation

    spread, largest = np.radians(_TILT_DEGREES)
    tilt = rng.normal(0, spread, 3)
    tilt *= min(1.0, largest / max(float(np.linalg.norm(tilt)), 1e-9))
    directions: Array = Rotation.from_rotvec(tilt).as_matrix() @ reference_view().numpy()
    return directions


def stored(
    volume: Array, spacing: tuple[float, float, float], directions: Array | None, vendor: str
) -> tuple[Array, Array]:
    """Bring a picture to the order of a file, and say where it lies.

    Args:
        volume: (Z, Y, X) or (T, Z, Y, X).
        spacing: (x, y, z) in mm.
        directions: from :func:`draw_directions`; None for a file that lost them, whose affine is a positive diagonal
            and whose order is the picture's.
        vendor: letter of the maker.

    Returns:
        (X, Y, Z) or (X, Y, Z, T) in the file's order, and its affine (4, 4); the middle lies at the origin.
    """
    voxels = volume.transpose(*range(volume.ndim - 1, -1, -1))
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * np.asarray(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(voxels.shape[:3]) - 1) / 2
    if directions is None or vendor not in _STORED:
        return voxels, affine
    axes, backwards = _STORED[vendor]
    moved = reordered_affine(torch.from_numpy(affine), list(voxels.shape[:3]), list(axes), list(backwards))
    voxels = np.transpose(voxels, (*axes, *range(3, voxels.ndim)))
    return voxels[tuple(slice(None, None, -1) if back else slice(None) for back in backwards)], moved.numpy()
