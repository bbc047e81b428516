"""In place of a segmentation model: one that knows the made-up hearts of `tests.clinic.cine_studies`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.clinic.trust import TrainedOn, Trust
from monai_fedlora.errors import DataError
from monai_fedlora.measures.structures import HEART
from monai_fedlora.studies.study import CINE
from tests.clinic.masked_hearts import by_grey_level


@dataclass(frozen=True, kw_only=True)
class GreyOutliner:
    """Outlines by grey level, so that every pixel of an image says what its mask must be.

    Attributes:
        refuses: of a pair of frames, whether it is refused.
        change: of the masks of a batch of pairs.
        asked: shapes of the batches, and whether every order was asked for.
    """

    name: str = "grey hearts"
    version: str = "0.3.1"
    sha256: str = "5a" * 32
    structures: tuple[str, ...] = HEART
    trust: Trust = field(default_factory=lambda: Trust(origin=TrainedOn(kind="synthetic", name="made-up hearts")))
    modality: str = CINE
    style: None = None
    spacing: tuple[float, float, float] = (4.0, 4.0, 10.0)
    slices: int = 99
    resampling: None = None
    takes_affine: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    refuses: Callable[[np.ndarray], bool] = lambda pair: False
    change: Callable[[np.ndarray], Any] = lambda masks: masks
    asked: list[tuple[tuple[int, ...], bool]] = field(default_factory=list)

    def masks(self, pairs: Tensor, affine: Tensor, *, every_order: bool = True) -> Tensor:
        self.asked.append((tuple(pairs.shape), every_order))
        if any(self.refuses(pair) for pair in pairs.numpy()):
            raise DataError("the model refuses this image: a frame is blank")
        return torch.from_numpy(self.change(by_grey_level(pairs.numpy())))
