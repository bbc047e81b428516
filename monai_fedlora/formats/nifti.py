"""Open a NIfTI file and check its header without reading its voxels."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fedlora.errors import DataError

if TYPE_CHECKING:
    import numpy as np

_GZIP_MODULUS = 1 << 32
_MM = {1: ("metre", 1000.0), 3: ("micron", 0.001)}
"""Spatial units of ``xyzt_units`` other than mm (2) and unknown (0)."""
_POSSIBLE_MM = (0.1, 100.0)
"""Smallest and largest plausible voxel size, mm (ours)."""


@dataclass(frozen=True, slots=True)
class Header:
    """Geometry of an image.

    Attributes:
        shape: voxels along each axis; (x, y, z) or (x, y, z, t).
        spacing: distance of voxels along x, y and z in mm.
        notes: what the user should know about how the header was read.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """An image with a valid header, whose voxels were not read.

    Attributes:
        header: its geometry.
        affine: (4, 4) float64, voxel to world in mm (right, anterior, superior).
        proxy: nibabel's array proxy of the voxels, of the shape of the header.
    """

    header: Header
    affine: np.ndarray
    proxy: Any


def read_header(path: Path, *, axes: int) -> Header:
    """Read and check the header of a NIfTI file; see :func:`open_volume`."""
    return open_volume(path, axes=axes).header


def open_volume(path: Path, *, axes: int) -> Volume:
    """Open a NIfTI file, ``.nii`` or ``.nii.gz``; its voxels are not read.

    Checked: the number of axes, positive sizes, positive finite spacing, linearly independent axes, a real number type,
    and that the file is as long as its header says. The length of a compressed file is taken from the last four bytes
    of gzip; only if these disagree is the file decompressed to find out.

    Axes of length 1 after the third are dropped. Where the sform contradicts pixdim, the qform is used if it agrees.
    Positions in metre or micron are converted to mm, unless the numbers can only be mm. The last two leave a note.

    Args:
        path: the file.
        axes: 3 for one frame, 4 for a cine.

    Raises:
        DataError: the file is missing, unreadable, truncated or has the wrong geometry; the message names it.
    """
    from monai_fedlora.formats.nifti_forms import chosen_affine

    image = _open(path)
    shape = _shape(path, image, axes)
    affine, notes = chosen_affine(image, path)
    spacing = _spacing(path, image, affine)
    factor, unit_notes = _unit(image, spacing)
    affine[:3] *= factor
    x, y, z = (step * factor for step in spacing)
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path} holds {dtype} voxels, not grey values")
    _check_length(path, int(image.dataobj.offset) + math.prod(shape) * dtype.itemsize)
    return Volume(Header(shape, (x, y, z), (*notes, *unit_notes)), affine, image.dataobj.reshape(shape))


def _open(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
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


def _shape(path: Path, image: Any, axes: int) -> tuple[int, ...]:
    """Return the sizes without trailing axes of length 1."""
    full = tuple(int(size) for size in image.shape)
    if min(full, default=0) < 1:
        raise DataError(f"{path} has no voxels: its shape is {full}")
    shape = full
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == axes:
        return shape
    kind = "one frame (x, y, z)" if axes == 3 else "a cine (x, y, z, t)"
    advice = ""
    if (len(shape), axes) == (3, 4):
        advice = "; two frames are given as two files, <study>_ed.nii.gz and <study>_es.nii.gz"
    elif (len(shape), axes) == (4, 3):
        advice = "; give the file as a cine"
    raise DataError(f"{path} has {len(shape)} axes, its shape is {full}, and {kind} has {axes}{advice}")


def _spacing(path: Path, image: Any, affine: np.ndarray) -> tuple[float, float, float]:
    """Return the voxel sizes of the affine.

    Without an sform the affine is made of pixdim, whose zero and negative values nibabel replaces by 1 mm; here they
    are refused, because the true size is not known.
    """
    import nibabel
    import numpy as np

    x, y, z = (float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    declared: tuple[float, ...] = (x, y, z)
    if int(image.header["sform_code"]) == 0:
        with nibabel.openers.Opener(str(path)) as stream:
            raw = type(image.header).from_fileobj(stream, check=False)
        declared = tuple(float(step) for step in raw["pixdim"][1:4])
    if not all(math.isfinite(step) and step > 0 for step in (x, y, z, *declared)):
        raise DataError(f"{path} has voxel spacing {declared} mm; it must be positive, so convert the file again")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-3 * x * y * z:
        raise DataError(f"{path} has an affine whose axes are not independent; convert the file again")
    return x, y, z


def _unit(image: Any, spacing: tuple[float, float, float]) -> tuple[float, tuple[str, ...]]:
    """Return the factor that converts positions to mm, and a note on it."""
    name, factor = _MM.get(int(image.header["xyzt_units"]) & 7, ("mm", 1.0))
    low, high = _POSSIBLE_MM
    if factor == 1.0:
        return 1.0, ()
    if all(low <= step * factor <= high for step in spacing):
        return factor, (f"the positions in the file are in {name} and were converted to mm",)
    if all(low <= step <= high for step in spacing):
        return 1.0, (f"the file says that its positions are in {name}, which cannot be; they were taken as mm",)
    return factor, ()


def _check_length(path: Path, expected: int) -> None:
    if not path.name.lower().endswith(".gz"):
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
