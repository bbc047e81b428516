"""Preprocessing and augmentation of short-axis cines as MONAI dictionary transforms.

Four steps lead from the file to the network: read ED and ES, bring them to the canonical order of axes, resample, crop
around the heart and normalise. The last three are also in `localise.CinePreprocessor`, which exported bundles contain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import (
    EnsureTyped,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    ScaleIntensityRanged,
    SelectItemsd,
    Transform,
)

from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.frames import join_frames, read_frames
from monai_fedlora.transforms.localise import normalise_cine
from monai_fedlora.transforms.mask_grid import crop_like_image, resample_labels
from monai_fedlora.transforms.mask_reading import LABELLED, MASK, outlined, read_masks
from monai_fedlora.transforms.orientation import is_known
from monai_fedlora.transforms.resampling import resample

IMAGE = "image"
PLACEHOLDER = "placeholder"
"""Key of a boolean tensor: True where the file does not hold the orientation; all 16 orders of axes are then equal."""

KEPT_KEYS = (IMAGE, PLACEHOLDER, MASK, LABELLED, "label", "values", "subject")


class LoadCined(Transform):
    """Read ``ed`` and ``es``, or ``cine`` with ``ed_frame`` and ``es_frame``, into ``image``.

    ``image`` is a float32 MetaTensor (2, X, Y, Z), ED then ES, in the canonical order of axes and with its affine;
    ``placeholder`` is a boolean tensor, see :data:`PLACEHOLDER`. All other keys stay. Stacks of different length are
    joined by `frames.join_frames`. Where the item has ``mask_values``, ``mask`` is a uint8 tensor (2, X, Y, Z) on the
    image's grid, 0 for the background and 1 to K for the structures, and ``labelled`` says which of them it outlines.

    Raises:
        DataError: a file cannot be used; the message names it.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        ed, es = read_frames(data)  # type: ignore[arg-type]
        voxels, affine = join_frames(ed, es)
        matrix = torch.from_numpy(affine)
        image = MetaTensor(torch.from_numpy(voxels), affine=matrix, meta={"filename_or_obj": str(ed.path)})
        known = is_known(matrix, list(voxels.shape[1:]))
        loaded = {**data, IMAGE: image, PLACEHOLDER: torch.tensor(not known)}
        if "mask_values" not in data:
            return loaded
        mask = torch.from_numpy(read_masks(data, ed, es))  # type: ignore[arg-type]
        return {**loaded, MASK: mask, LABELLED: outlined(data["mask_values"])}


class ResampleCined(Transform):
    """`resampling.resample` on ``image``, a MetaTensor (2, X, Y, Z), and `mask_grid.resample_labels` on ``mask``.

    Args:
        spacing: wanted voxel size (x, y, z) in mm.
    """

    def __init__(self, *, spacing: Sequence[float]) -> None:
        self.spacing = [float(step) for step in spacing]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data[IMAGE]
        voxels, affine = resample(image.as_tensor(), image.affine, self.spacing)
        name = {"filename_or_obj": image.meta["filename_or_obj"]}
        resampled = {**data, IMAGE: MetaTensor(voxels, affine=affine, meta=name)}
        if MASK in data:
            resampled[MASK] = resample_labels(data[MASK], image.affine, self.spacing, len(data[LABELLED]) - 1)
        return resampled


class NormaliseCined(Transform):
    """`localise.normalise_cine` on ``image``: (2, X, Y, Z) on the network's grid -> (2, \\*image_size) in [0, 1].

    A ``mask`` (2, X, Y, Z) is cropped and padded in the same way.

    Args:
        image_size: voxels (x, y, z) of the network's input.
        spacing: voxel size (x, y, z) of ``image`` in mm; x and y equal.
    """

    def __init__(self, *, image_size: Sequence[int], spacing: Sequence[float]) -> None:
        self.size, self.spacing_mm = _checked(image_size, spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data[IMAGE]
        voxels = image.as_tensor() if isinstance(image, MetaTensor) else image
        prepared = {**data, IMAGE: normalise_cine(voxels, self.size, self.spacing_mm)}
        if MASK in data:
            prepared[MASK] = crop_like_image(data[MASK], voxels, self.size, self.spacing_mm)
        return prepared


def cine_preprocessing(*, image_size: Sequence[int], spacing: Sequence[float]) -> list[Callable]:
    """Deterministic transforms from a datalist item to the network's input.

    The item afterwards holds ``image`` (plain float32 tensor (2, \\*image_size) in [0, 1]), ``placeholder`` (see
    :data:`PLACEHOLDER`) and, where present, ``label``, ``values`` and ``subject``. With masks it also holds ``mask``
    (uint8 tensor (2, \\*image_size) of 0 to K) and ``labelled`` (see `mask_reading.LABELLED`). All other keys are
    dropped, so that items of any source can be collated.

    Args:
        image_size: voxels (x, y, z) of the network's input.
        spacing: voxel size (x, y, z) of the network's input in mm; x and y equal.

    Raises:
        ConfigError: size or spacing is not valid.
    """
    _checked(image_size, spacing)
    return [
        LoadCined(),
        ResampleCined(spacing=spacing),
        NormaliseCined(image_size=image_size, spacing=spacing),
        EnsureTyped(keys=IMAGE, dtype=torch.float32, track_meta=False),
        SelectItemsd(keys=KEPT_KEYS, allow_missing_keys=True),
    ]


def cine_augmentation(
    *, image_size: Sequence[int], spacing: Sequence[float], probability: float = 0.5, shift_mm: float = 15.0
) -> list[Callable]:
    """Random transforms for training, after `cine_preprocessing`.

    CineMA's (Fu et al., arXiv 2506.00679): gamma 0.5 to 1.5, noise of up to 0.1, any rotation about the slice
    axis, in-plane scaling by up to 20 % and a shift. CineMA shifts by up to 60 mm before a random crop; here
    the crop is fixed and the shift covers the error of the heart's localisation (ours). Slices are not interpolated
    with each other, and grey levels stay in [0, 1]. A ``mask`` is rotated, scaled and shifted with its image.

    Args:
        image_size: voxels (x, y, z) of ``image``.
        spacing: voxel size (x, y, z) in mm; x and y equal.
        probability: probability of gamma, of noise, and of rotation, scaling and shift together.
        shift_mm: largest in-plane shift along an axis.
    """
    size, spacing_mm = _checked(image_size, spacing)
    shift = shift_mm / spacing_mm
    return [
        RandAdjustContrastd(keys=IMAGE, prob=probability, gamma=(0.5, 1.5)),
        RandGaussianNoised(keys=IMAGE, prob=probability, std=0.1),
        RandAffined(
            keys=(IMAGE, MASK),
            allow_missing_keys=True,
            prob=probability,
            spatial_size=size,
            rotate_range=(0.0, 0.0, math.pi),
            translate_range=(shift, shift, 0.0),
            scale_range=(0.2, 0.2, 0.0),
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
            cache_grid=True,
        ),
        ScaleIntensityRanged(keys=IMAGE, a_min=0.0, a_max=1.0, b_min=0.0, b_max=1.0, clip=True),
        EnsureTyped(keys=IMAGE, dtype=torch.float32, track_meta=False),
        EnsureTyped(keys=MASK, dtype=torch.uint8, track_meta=False, allow_missing_keys=True),
    ]


def _checked(image_size: Sequence[int], spacing: Sequence[float]) -> tuple[tuple[int, int, int], float]:
    if len(image_size) != 3 or min(image_size) < 1:
        raise ConfigError(f"image_size {tuple(image_size)} must be three positive numbers of voxels (x, y, z)")
    if len(spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise ConfigError(f"spacing {tuple(spacing)} must be three positive lengths in mm (x, y, z)")
    if spacing[0] != spacing[1]:
        raise ConfigError(f"spacing {tuple(spacing)} must be the same along x and y")
    x, y, z = (int(size) for size in image_size)
    return (x, y, z), float(spacing[0])
