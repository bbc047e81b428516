"""Orientation of a phantom patient, and the order of axes in which a vendor's images are stored.

A picture of :mod:`monai_fedlora.data.phantom.patient` is a short-axis view close to the reference view of
:mod:`monai_fedlora.transforms.orientation`, with a small tilt of its own for each patient, which the affine holds.
Besides, the vendors differ by a rotation or reflection of the picture that the affine does not hold (``quarter_turns``
and ``mirrored`` in :mod:`monai_fedlora.data.phantom.vendors`), as some converters leave them.
"""

from __future__ import annotations

import numpy as np

from monai_fedlora.transforms.orientation import reference_view, reordered_array

Array = np.ndarray

_TILT_DEGREES = (6.0, 14.0)
"""Standard deviation of the tilt about each axis, and largest tilt (ours)."""

_STORED: dict[str, tuple[tuple[int, int, int], tuple[bool, bool, bool]]] = {
    "A": ((0, 1, 2), (False, True, False)),
    "B": ((0, 1, 2), (True, True, True)),
    "C": ((1, 0, 2), (False, False, True)),
    "D": ((0, 1, 2), (False, False, True)),
}
"""By vendor: for each axis of the file the one of the picture (across, down, from base to apex), and whether it is
reversed. A has rows from bottom to top, as dcm2niix writes them; C has exchanged axes; B, C and D start at the apex."""


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
    """Bring a picture to the order of axes of a file, and compute its affine.

    Args:
        volume: (Z, Y, X) or (T, Z, Y, X).
        spacing: (x, y, z) in mm.
        directions: from :func:`draw_directions`; None for a file without orientation, whose affine is diagonal and
        whose
            order of axes is that of the picture.
        vendor: letter of the vendor.

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
    return reordered_array(voxels, affine, list(axes), list(backwards))
