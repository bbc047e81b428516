"""What a NIfTI file says about itself, checked without loading its voxels."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.errors import DataError

_GZIP_MODULUS = 1 << 32


@dataclass(frozen=True, slots=True)
class Header:
    """Geometry of an image.

    Attributes:
        shape: voxels along each axis; (x, y, z) or (x, y, z, t).
        spacing: distance of voxels along x, y and z in mm, by the file's affine.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, float, float]


def read_header(path: Path, *, axes: int) -> Header:
    """Read and check the header of a NIfTI file, ``.nii`` or ``.nii.gz``.

    Checked: the number of axes, positive sizes, positive finite spacing, independent axes, a real number
    type, and that the file is as long as its header says. The length of a compressed file is taken from the
    last four bytes of gzip; only where they disagree is the file decompressed to find out.

    Args:
        path: the file.
        axes: 3 for one frame, 4 for a cine.

    Raises:
        DataError: the file is missing, unreadable, truncated or has the wrong geometry; the message names it.
    """
    image = _open(path)
    shape = tuple(int(size) for size in image.shape)
    if len(shape) != axes:
        kind = "one frame (x, y, z)" if axes == 3 else "a cine (x, y, z, t)"
        raise DataError(f"{path} has {len(shape)} axes {shape}, and {kind} has {axes}")
    if min(shape) < 1:
        raise DataError(f"{path} has no voxels: its shape is {shape}")
    spacing = _spacing(path, image)
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path} holds {dtype} voxels, not grey values")
    _check_length(path, int(image.dataobj.offset) + math.prod(shape) * dtype.itemsize)
    return Header(shape, spacing)


def _open(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"{path} is not NIfTI: its name must end in .nii or .nii.gz")
    damage = (
        ImageFileError,
        HeaderDataError,
        WrapStructError,
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        OverflowError,
    )
    try:
        image = nibabel.load(path)
    except damage as error:
        raise DataError(f"{path} is not a readable NIfTI file ({error}); copy it again from the source") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise DataError(f"{path} is not NIfTI but {type(image).__name__}")
    return image


def _spacing(path: Path, image: Any) -> tuple[float, float, float]:
    """Return the voxel sizes of the affine.

    Without an sform the affine rests on pixdim, whose zero and negative values nibabel repairs; here they
    are refused, because the repaired size (1 mm) is an invention.
    """
    import nibabel
    import numpy as np
    from nibabel.affines import voxel_sizes

    x, y, z = (float(step) for step in voxel_sizes(image.affine))
    declared: tuple[float, ...] = (x, y, z)
    if int(image.header["sform_code"]) == 0:
        with nibabel.openers.Opener(str(path)) as stream:
            raw = type(image.header).from_fileobj(stream, check=False)
        declared = tuple(float(step) for step in raw["pixdim"][1:4])
    if not all(math.isfinite(step) and step > 0 for step in (x, y, z, *declared)):
        raise DataError(f"{path} has voxel spacing {declared} mm; it must be positive, so convert the file again")
    if abs(np.linalg.det(image.affine[:3, :3])) < 1e-3 * x * y * z:
        raise DataError(f"{path} has an affine whose axes are not independent; convert the file again")
    return x, y, z


def _check_length(path: Path, expected: int) -> None:
    if not path.name.endswith(".gz"):
        length = path.stat().st_size
    elif _declared_gzip_length(path) == expected % _GZIP_MODULUS:
        return
    else:
        length = _decompressed_length(path)
    if length < expected:
        raise DataError(
            f"{path} is truncated: its header promises {expected} bytes and {length} are there; "
            "copy it again from the source"
        )


def _declared_gzip_length(path: Path) -> int:
    """Return the length modulo 2**32 that the last gzip member declares for itself (RFC 1952, ISIZE)."""
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        return int.from_bytes(stream.read(4), "little")


def _decompressed_length(path: Path) -> int:
    length = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(1 << 20):
                length += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); copy it again from the source") from error
    return length
