"""Which affine of a NIfTI file is right.

A header may place its voxels three times: by ``pixdim``, which has the lengths of their edges, by the *sform* and by
the *qform*. Readers take the sform where its code is not 0. There are published collections, ACDC among them, whose
sform has voxels of 1 mm beside a right pixdim and qform; `chosen_affine` takes what agrees with pixdim, which is what
MONAI's ``NibabelReader`` does with files of three axes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.errors import DataError

_TURN = 5.0
"""Degrees between axes of both forms from which they are not the same (ours)."""
_SAME_STEP = 0.01
"""Relative difference up to which two voxel sizes are the same (ours)."""


def chosen_affine(image: Any, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the sform or the qform of an image, whichever agrees with pixdim.

    An sform of other rounding than pixdim gives way to a qform that is the same but for rounding, so that the numbers
    are those of MONAI's reader.

    Args:
        image: a nibabel image.
        path: its file, for messages.

    Returns:
        (4, 4) float64 in the header's unit, and what to say of the choice. Without an sform it is the qform, or what
        nibabel makes of pixdim alone.

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
        f"{path} contradicts itself: its voxels are {_times(declared)} mm by pixdim and {_times(_steps(affine))} mm "
        "by its affine, and no qform agrees with pixdim; convert it again from the source"
    )


def _qform(image: Any) -> np.ndarray | None:
    """Return the affine of the quaternion in the precision of an sform; None if it is none."""
    try:
        qform = np.asarray(image.header.get_qform(), dtype=np.float32).astype(np.float64)
    except Exception:  # nibabel and numpy report a quaternion that is none in several ways
        return None
    return qform if np.isfinite(qform).all() else None


def _agrees(affine: np.ndarray, declared: np.ndarray) -> bool:
    return bool(np.allclose(declared, _steps(affine), rtol=_SAME_STEP, atol=0))


def _is_turned(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether an axis runs elsewhere by one of two affines than by the other."""
    cosines = (first[:3, :3] * second[:3, :3]).sum(axis=0) / (_steps(first) * _steps(second))
    return bool(cosines.min() < np.cos(np.radians(_TURN)))


def _steps(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


def _times(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
