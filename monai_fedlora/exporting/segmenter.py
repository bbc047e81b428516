"""The exported model of a segmentation as one TorchScript module: from images of any size to masks on their own grid.

It needs torch alone, as `classifier` does.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from monai_fedlora.exporting.cine_modality import CheckedCine
from monai_fedlora.exporting.mask_numbers import heart_numbers, no_volume
from monai_fedlora.transforms.mask_grid import restore_labels
from monai_fedlora.transforms.orientation import all_orders, filled_slices, is_known, turned_back


def mean_turned_back(logits: Tensor, filled: int) -> Tensor:
    """The mean (1, F, C, X, X, Z) of the logits (16, F, C, X, X, Z) of all orders, each turned back before.

    Args:
        logits: of `orientation.all_orders`.
        filled: slices that the image fills.
    """
    turned: list[Tensor] = []
    for number in range(16):
        turned.append(turned_back(logits[number], number, filled))
    return torch.stack(turned).mean(dim=0, keepdim=True)


class CineSegmenter(nn.Module):
    """Preprocessing, network, and the way back to the grid of the file.

    Where an image has no affine, or one that tells no orientation, the logits are averaged over all orders of its axes.

    Args:
        preprocessor: maps images and affines to the network's input, and raises an error for unusable ones.
        network: maps prepared images (B, 2, X, Y, Z) to logits (B, 2, C, X, Y, Z).
        values: of LV, MYO and RV in the masks, see :mod:`monai_fedlora.exporting.mask_numbers`.
    """

    def __init__(
        self,
        preprocessor: CheckedCine,
        network: nn.Module,
        *,
        values: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network
        self.values = (int(values[0]), int(values[1]), int(values[2]))
        self.size, self.spacing = preprocessor.preprocessor.size, preprocessor.preprocessor.spacing

    def forward(self, image: Tensor, affine: Optional[Tensor] = None) -> Tensor:  # noqa: UP045  for TorchScript
        """Masks (B, 2, X, Y, Z) of raw images of the same shape, with affines (B, 4, 4), in the order of their axes.

        Returns:
            uint8: 0 background, 1 to K the structures.
        """
        prepared = self.preprocessor(image, affine)
        shape = [image.shape[2], image.shape[3], image.shape[4]]
        places = self.preprocessor.preprocessor.unknown(image) if affine is None else affine
        masks: list[Tensor] = []
        for index in range(len(prepared)):
            one = prepared[index]
            if affine is not None and is_known(affine[index], shape):
                logits = self.network(one.unsqueeze(0))
            else:
                logits = mean_turned_back(self.network(all_orders(one)), filled_slices(one))
            masks.append(restore_labels(logits[0].softmax(dim=1), image[index], places[index], self.spacing))
        return torch.stack(masks)

    @torch.jit.export
    def measure(self, mask: Tensor, affine: Tensor) -> tuple[Tensor, str]:
        """Numbers of a heart from the masks of both frames.

        Args:
            mask: (2, X, Y, Z) of :meth:`forward`.
            affine: (4, 4) voxel to world in mm.

        Returns:
            Those of :data:`monai_fedlora.exporting.mask_numbers.COLUMNS`, NaN where there is none, and why there is no
            volume; an empty text where there are volumes.
        """
        values = [self.values[0], self.values[1], self.values[2]]
        reason = no_volume(mask, affine, values, self.size[2], self.spacing[2])
        return heart_numbers(mask, affine, values, len(reason) == 0), reason
