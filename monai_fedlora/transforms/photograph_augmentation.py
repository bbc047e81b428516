"""Random transforms of photographs for training: MONAI's, and a jitter of saturation, which MONAI lacks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import (
    EnsureTyped,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandomizableTransform,
    RandScaleIntensityd,
    ScaleIntensityRanged,
    Transform,
)
from torch import Tensor

from monai_fedlora.transforms.photograph import IMAGE, MASK, channel_levels
from monai_fedlora.transforms.photograph_colour import saturate
from monai_fedlora.transforms.photograph_style import STYLES


class LinearChannelsd(Transform):
    """Compute ``scale_c x + offset_c`` for channel c of ``image`` (3, H, W), as a new tensor.

    Args:
        scale: (3, 1, 1).
        offset: (3, 1, 1).
    """

    def __init__(self, *, scale: Tensor, offset: Tensor) -> None:
        self.scale, self.offset = scale, offset

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, IMAGE: data[IMAGE] * self.scale + self.offset}


class RandSaturationd(RandomizableTransform):
    """Scale the saturation of ``image`` (3, H, W) in [0, 1] by a factor from ``1 - spread`` to ``1 + spread``.

    Args:
        spread: in [0, 1].
        prob: probability in [0, 1].
    """

    def __init__(self, *, spread: float, prob: float) -> None:
        super().__init__(prob)
        self.spread = spread
        self.factor = 1.0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to change the saturation, and by which factor."""
        super().randomize(None)
        if self._do_transform:
            self.factor = float(self.R.uniform(1.0 - self.spread, 1.0 + self.spread))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        return {**data, IMAGE: saturate(data[IMAGE], self.factor)} if self._do_transform else dict(data)


def photograph_augmentation(
    *,
    style: str,
    image_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    probability: float = 0.5,
    jitter: float = 0.2,
) -> list[Callable]:
    """Random transforms for training, after `photograph.photograph_preprocessing`.

    The normalisation is undone first and applied again last, so that padding is black and the jitter acts on levels in
    [0, 1], where they stay. There are mirroring and rotation as the style allows, scaling by up to 20 %, a shift by up
    to a twentieth of the width, and jitter of brightness, gamma, saturation and the gain of each channel (the last a
    quarter of ``jitter``); black stays black. The ranges are ours. A ``mask`` is mirrored, rotated, scaled, shifted and
    padded with its image.

    Args:
        style: in :data:`monai_fedlora.transforms.photograph_style.STYLES`.
        image_size: pixels (H, W) of ``image``.
        mean: the backbone's, of each channel.
        std: the backbone's, of each channel.
        probability: probability of each transform.
        jitter: largest relative change of brightness, gamma and saturation, below 1.

    Raises:
        ConfigError: there is no such style, or mean or standard deviation is not valid.
    """
    variation = STYLES[style].variation
    centre, width = channel_levels("mean", mean), channel_levels("std", std)
    shift = max(image_size) / 20
    return [
        LinearChannelsd(scale=width, offset=centre),
        *(
            RandFlipd(keys=(IMAGE, MASK), allow_missing_keys=True, prob=probability, spatial_axis=axis)
            for axis in variation.flips
        ),
        RandAffined(
            keys=(IMAGE, MASK),
            allow_missing_keys=True,
            prob=probability,
            spatial_size=tuple(image_size),
            rotate_range=variation.angle,
            translate_range=(shift, shift),
            scale_range=(0.2, 0.2),
            mode=("bilinear", "nearest"),
            padding_mode=variation.padding,
            cache_grid=True,
        ),
        RandScaleIntensityd(keys=IMAGE, prob=probability, factors=jitter),
        RandAdjustContrastd(keys=IMAGE, prob=probability, gamma=(1 - jitter, 1 / (1 - jitter))),
        RandScaleIntensityd(keys=IMAGE, prob=probability, factors=jitter / 4, channel_wise=True),
        RandSaturationd(spread=jitter, prob=probability),
        ScaleIntensityRanged(keys=IMAGE, a_min=0.0, a_max=1.0, b_min=0.0, b_max=1.0, clip=True),
        LinearChannelsd(scale=1 / width, offset=-centre / width),
        EnsureTyped(keys=IMAGE, dtype=torch.float32, track_meta=False),
        EnsureTyped(keys=MASK, dtype=torch.uint8, track_meta=False, allow_missing_keys=True),
    ]
