"""Choose the affine of a NIfTI file.

A header holds the geometry up to three times: voxel sizes in ``pixdim``, and affines in the *sform* and the *qform*.
Readers take the sform where its code is not 0. In some published collections, such as ACDC, the sform has voxels of
1 mm although pixdim and qform are right; `chosen_affine` takes the one that agrees with pixdim, as MONAI's
``NibabelReader`` does for files of three axes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.errors import DataError

_TURN = 5.0
"""Angle in degrees from which the axes of the two forms count as different (ours)."""
_SAME_STEP = 0.01
"""Relative difference up to which two voxel sizes count as the same (ours)."""


def chosen_affine(image: Any, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the sform or the qform of an image, whichever agrees with pixdim.

    If sform and qform differ only by rounding, and the sform is rounded differently than pixdim, the qform is returned,
    so that the numbers are those of MONAI's reader.

    Args:
        image: a nibabel image.
        path: its file, for messages.

    Returns:
        (4, 4) float64 in the header's unit, and a note on the choice. Without an sform it is the qform, or the affine
        that nibabel makes of pixdim alone.

    Raises:
        DataError: neither form agrees with pixdim.
    """
    affine = np.array(image.affine, dtype=np.float64)
    if int(image.header["sform_code"]) == 0:
        return affine, ()
    declared = np.array(image.header.get_zooms()[:3], dtype=np.float64)
    qform = _qform(image)
    if _agrees(affine, declared):
        exact = np.allclose(declared, _steps(affine))
        if not exact and qform is not None and np.allclose(qform, affine, rtol=0.01, atol=0.01 * declared.min()):
            return qform, ()
        if int(image.header["qform_code"]) != 0 and qform is not None and _is_turned(qform, affine):
            return affine, (
                "the sform and the qform of the file lay the patient differently; the sform was used, and other "
                "programs may use the qform",
            )
        return affine, ()
    if int(image.header["qform_code"]) != 0 and qform is not None and _agrees(qform, declared):
        return qform, ("the sform of the file contradicts pixdim; the qform, which agrees with it, was used",)
    raise DataError(
        f"{path} contradicts itself: its voxels are {times(declared)} mm by pixdim and {times(_steps(affine))} mm "
        "by its affine, and no qform agrees with pixdim; convert it again from the source"
    )


def _qform(image: Any) -> np.ndarray | None:
    """Return the affine of the quaternion in the precision of an sform; None if the quaternion is invalid."""
    try:
        qform = np.asarray(image.header.get_qform(), dtype=np.float32).astype(np.float64)
    except Exception:  # nibabel and numpy report an invalid quaternion by several kinds of errors
        return None
    return qform if np.isfinite(qform).all() else None


def _agrees(affine: np.ndarray, declared: np.ndarray) -> bool:
    return bool(np.allclose(declared, _steps(affine), rtol=_SAME_STEP, atol=0))


def _is_turned(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether an axis has different directions in two affines."""
    cosines = (first[:3, :3] * second[:3, :3]).sum(axis=0) / (_steps(first) * _steps(second))
    return bool(cosines.min() < np.cos(np.radians(_TURN)))


def _steps(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


def times(numbers: Iterable[float]) -> str:
    """Numbers with four digits as "1.5 x 1.5 x 8"."""
    return " x ".join(f"{number:.4g}" for number in numbers)
