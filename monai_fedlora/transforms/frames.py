"""Read the ED and ES frame of a short-axis cine and put them on one grid, or say why they cannot be used.

Every frame is brought to the canonical order of axes of :mod:`monai_fedlora.transforms.orientation`. The exported model
does the same with files that MONAI's ``LoadImaged`` has read.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from monai_fedlora.errors import DataError
from monai_fedlora.formats.nifti import Volume, open_volume
from monai_fedlora.formats.nifti_forms import times
from monai_fedlora.out_of_memory import tell_out_of_memory
from monai_fedlora.transforms.grey_levels import check_grey_levels, check_time_axis, not_finite
from monai_fedlora.transforms.orientation import orient_array

MINIMUM_SLICES = 3
IN_PLANE_MM = (0.2, 5.0)
SLICE_DISTANCE_MM = (1.0, 30.0)


@dataclass(frozen=True, slots=True)
class Frame:
    """One time point of a short-axis stack.

    Attributes:
        voxels: (X, Y, Z) float32 grey levels, finite and not constant, in the canonical order of axes.
        affine: (4, 4) float64, voxel to world in mm.
        path: the file it came from, for messages.
        notes: what the user should know about how the file was read.
        stored: (4, 4) float64, the affine of the voxels in the order of the file.
    """

    voxels: np.ndarray
    affine: np.ndarray
    path: Path
    stored: np.ndarray
    notes: tuple[str, ...] = ()


def read_frames(item: Mapping[str, Any]) -> tuple[Frame, Frame]:
    """Read ED and ES of one patient.

    Args:
        item: either ``ed`` and ``es`` (3D files), or ``cine`` (4D file: x, y, z, t) and the 0-based
            ``ed_frame`` and ``es_frame``.

    Raises:
        DataError: a key or file is missing, a file is damaged, or it is not a plausible short-axis stack.
    """
    if "cine" in item:
        return _read_cine(Path(item["cine"]), item)
    if "ed" in item and "es" in item:
        return _read_frame(Path(item["ed"])), _read_frame(Path(item["es"]))
    raise DataError(
        f"subject {item.get('subject', '(unnamed)')} has neither 'ed' and 'es' files nor a 'cine' file with "
        f"'ed_frame' and 'es_frame', only {sorted(map(str, item))}; both frames are needed"
    )


def make_frame(voxels: np.ndarray, affine: np.ndarray, path: Path, notes: tuple[str, ...] = ()) -> Frame:
    """Make a frame of voxels with axes in any order; arguments as the fields of :class:`Frame`.

    Raises:
        DataError: the voxels are not finite, all equal or the labels of a segmentation, or it is not a plausible
            short-axis stack.
    """
    oriented, moved = oriented_or_refused(voxels, affine, path)
    frame = Frame(_checked(oriented, path), moved, path, np.asarray(affine, dtype=np.float64), notes)
    _check_geometry(frame)
    return frame


def oriented_or_refused(voxels: np.ndarray, affine: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An array (X, Y, Z) or (X, Y, Z, T) in the canonical order of axes, and its affine.

    Raises:
        DataError: the affine is invalid, or the axis of the slices cannot be determined.
    """
    try:
        oriented, moved = orient_array(voxels, affine)
    except ValueError as error:
        raise DataError(f"{path}: {error}; convert the file again from the source") from error
    return np.ascontiguousarray(oriented), moved


def join_frames(ed: Frame, es: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Stack two frames slice by slice.

    If the affines differ by a whole number of slices, slices at the same position are joined. If the affines are equal
    but one stack has fewer slices (at end-systole the slice at the base or the apex is often missing), the shorter
    stack is moved along the other one to where the chest around the heart matches best. Slices without a partner are
    dropped from both stacks, so that a voxel is the same position in both channels and the number of slices does not
    reveal how far the heart contracts.

    Returns:
        voxels (2, X, Y, Z) float32, affine (4, 4) float64 of its first voxel.

    Raises:
        DataError: the frames differ in matrix or voxel size, orientation or position, or share under 3 slices.
    """
    of_ed, of_es = shared_slices(ed, es)
    affine = ed.affine.copy()
    affine[:3, 3] += of_ed.start * affine[:3, 2]
    return np.stack([ed.voxels[..., of_ed], es.voxels[..., of_es]]), affine


def shared_slices(ed: Frame, es: Frame) -> tuple[slice, slice]:
    """The slices of ED, and those of ES, that :func:`join_frames` joins; arguments and errors are the same."""
    where = f"{ed.path} and {es.path}"
    if ed.voxels.shape[:2] != es.voxels.shape[:2]:
        raise DataError(
            f"{where} have different matrices, {ed.voxels.shape} and {es.voxels.shape}; ED and ES must come "
            "from one acquisition, so pair the right files or resample one onto the other"
        )
    offset = _slice_offset(ed, es, where)
    if offset == 0 and ed.voxels.shape[2] != es.voxels.shape[2]:
        offset = _best_offset(ed.voxels, es.voxels)
    first, last = max(offset, 0), min(ed.voxels.shape[2], es.voxels.shape[2] + offset)
    if last - first < MINIMUM_SLICES:
        raise DataError(
            f"{where} share {max(last - first, 0)} slices and at least {MINIMUM_SLICES} are needed; "
            "they were probably acquired at different positions"
        )
    return slice(first, last), slice(first - offset, last - offset)


def read_cine(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read all frames of a 4D file, in the file's own order of axes.

    Returns:
        voxels (X, Y, Z, T) float32, affine (4, 4) float64 in mm, and notes for the user.

    Raises:
        DataError: the file is damaged, its voxels are not finite or no grey levels, time is not on the fourth axis, or
            a frame is no plausible short-axis stack.
    """
    volume = open_volume(path, axes=4)
    voxels = _scaled(_stored(volume, path), volume, path)
    if not np.isfinite(voxels).all():
        raise DataError(not_finite(voxels, path))
    oriented, moved = oriented_or_refused(voxels, volume.affine, path)
    check_time_axis(oriented, path)
    check_grey_levels(oriented[..., 0], path)
    _check_geometry(Frame(oriented[..., 0], moved, path, volume.affine))
    return voxels, volume.affine, volume.header.notes


def _read_cine(path: Path, item: Mapping[str, Any]) -> tuple[Frame, Frame]:
    volume = open_volume(path, axes=4)
    frames = volume.header.shape[3]
    wanted = []
    for key in ("ed_frame", "es_frame"):
        try:
            wanted.append(operator.index(item[key]))
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} is a cine, and its {key!r} must be a frame number counted from 0") from error
        if not 0 <= wanted[-1] < frames:
            raise DataError(
                f"{path} has {frames} frames, 0 to {frames - 1}, and {key} is {wanted[-1]}; frames are counted from 0"
            )
    ed, es = wanted
    if ed == es:
        raise DataError(f"{path}: ED and ES are both frame {ed}; the heart does not contract between them")
    stored = _stored(volume, path)
    check_time_axis(oriented_or_refused(stored, volume.affine, path)[0], path)
    voxels = _scaled(stored[..., wanted], volume, path)
    first, second = (make_frame(voxels[..., n], volume.affine, path, volume.header.notes) for n in range(2))
    return first, second


def _read_frame(path: Path) -> Frame:
    volume = open_volume(path, axes=3)
    return make_frame(_scaled(_stored(volume, path), volume, path), volume.affine, path, volume.header.notes)


def _stored(volume: Volume, path: Path) -> np.ndarray:
    """The numbers in the file, before slope and intercept."""
    try:
        return np.asanyarray(volume.proxy.get_unscaled())
    except Exception as error:  # nibabel, gzip and zlib report damage by many kinds of errors
        tell_out_of_memory(error, f"reading {path}")
        raise DataError(f"{path} cannot be read to its end ({error}); copy it again from the source") from error


def _scaled(stored: np.ndarray, volume: Volume, path: Path) -> np.ndarray:
    """Grey levels, float32, bit for bit those of nibabel's own scaling."""
    from nibabel.volumeutils import apply_read_scaling

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return apply_read_scaling(stored, volume.proxy.slope, volume.proxy.inter).astype(np.float32)
    except Exception as error:
        tell_out_of_memory(error, f"reading {path}")
        raise DataError(f"{path} has a slope or intercept that cannot be applied ({error})") from error


def _checked(voxels: np.ndarray, path: Path) -> np.ndarray:
    low, high = voxels.min(), voxels.max()
    if not np.isfinite(high - low):
        raise DataError(not_finite(voxels, path))
    if low == high:
        raise DataError(f"{path} is blank: every voxel is {low}; choose another frame or export it again")
    check_grey_levels(voxels, path)
    return voxels


def _check_geometry(frame: Frame) -> None:
    """Refuse a stack whose size or voxel size is implausible for a short-axis view."""
    shape = frame.voxels.shape
    spacing = np.linalg.norm(frame.affine[:3, :3], axis=0)
    x, y, z = (float(step) for step in spacing)
    text = f"{frame.path} has {times(shape)} voxels of {times(spacing)} mm"
    if shape[2] > min(shape[:2]):
        raise DataError(f"{text}: a short-axis stack has fewer slices than an image has rows or columns")
    if shape[2] < MINIMUM_SLICES:
        raise DataError(f"{text}: a short-axis stack needs at least {MINIMUM_SLICES} slices; is this a long-axis view?")
    if not (0.999 * IN_PLANE_MM[0] <= min(x, y) and max(x, y) <= 1.001 * IN_PLANE_MM[1]):
        raise DataError(f"{text}: a heart cannot be seen at that voxel size; are the units of the header mm?")
    if not SLICE_DISTANCE_MM[0] <= z <= SLICE_DISTANCE_MM[1]:
        raise DataError(f"{text}: that is no slice distance of a short-axis stack; are the units mm?")


def _slice_offset(ed: Frame, es: Frame, where: str) -> int:
    """Index of the ED slice at the position of slice 0 of ES, by the affines."""
    try:
        to_ed = np.linalg.solve(ed.affine, es.affine)
    except np.linalg.LinAlgError as error:
        raise DataError(f"{where}: the affine of ED cannot be inverted; convert the files again") from error
    x, y, z = (size - 1 for size in es.voxels.shape)
    corners = np.array([[i, j, k] for i in (0, x) for j in (0, y) for k in (0, z)])
    shift = corners @ (to_ed[:3, :3] - np.eye(3)).T + to_ed[:3, 3]
    centre = shift.mean(axis=0)
    if not (np.abs(shift - centre) <= (1.0, 1.0, 0.5)).all() or not (np.abs(centre[:2]) <= 1.0).all():
        raise DataError(
            f"{where} do not lie on one grid: their voxel size, orientation or in-plane position differ; "
            "pair the right files or resample one onto the other"
        )
    return round(float(centre[2]))


def _best_offset(ed: np.ndarray, es: np.ndarray) -> int:
    """Offset of ES along ED, in slices, at which the slices of both stacks are most similar."""

    def standardised(voxels: np.ndarray) -> torch.Tensor:
        slices = torch.from_numpy(np.ascontiguousarray(voxels)).permute(2, 0, 1)[:, None]
        pooled = F.avg_pool2d(slices, min(4, *voxels.shape[:2])).flatten(1)
        return F.normalize(pooled - pooled.mean(dim=1, keepdim=True), dim=1)

    similarity = standardised(ed) @ standardised(es).T
    spare = ed.shape[2] - es.shape[2]
    offsets = range(min(spare, 0), max(spare, 0) + 1)
    return max(offsets, key=lambda offset: float(similarity.diagonal(-offset).mean()))
