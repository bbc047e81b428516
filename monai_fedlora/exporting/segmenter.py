"""The exported model of a segmentation as one TorchScript module: from images of any size to masks on their own grid.

It needs torch alone, as `classifier` does.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn

from monai_fedlora.exporting.cine_modality import CheckedCine
from monai_fedlora.exporting.photograph_modality import CheckedPhotograph
from monai_fedlora.measures.heart_numbers import numbers_of, structure_volumes, without_impossible
from monai_fedlora.measures.stack_coverage import no_volume_reasons
from monai_fedlora.transforms.mask_grid import restore_labels
from monai_fedlora.transforms.orientation import all_orders, filled_slices, is_known, orient, turned_back
from monai_fedlora.transforms.photograph_geometry import centre_box, field_of_view
from monai_fedlora.transforms.photograph_mask import restore_photograph_labels


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
        values: of LV, MYO and RV in the masks; 0 for one that they have not.
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
            (9,) float64, those of :data:`monai_fedlora.measures.heart_function.UNITS`, NaN where there is none, and why
            there is no volume; an empty text where there are volumes.
        """
        values = [self.values[0], self.values[1], self.values[2]]
        known = is_known(affine, [mask.shape[1], mask.shape[2], mask.shape[3]])
        ordered, moved = orient(mask, affine)
        steps = moved[:3, :3].double().square().sum(dim=0).sqrt()
        sizes = [float(steps[0]), float(steps[1]), float(steps[2])]
        reasons = no_volume_reasons(ordered, sizes, values, known, self.size[2], self.spacing[2])
        numbers = numbers_of(without_impossible(structure_volumes(ordered, sizes, values)))
        text = ""
        for number in range(len(reasons)):  # joined so, as the check of a bundle lets no module call `join`
            text = reasons[number] if number == 0 else f"{text}; {reasons[number]}"
        return numbers if len(reasons) == 0 else torch.full_like(numbers, math.nan), text


class PhotographSegmenter(nn.Module):
    """Preprocessing, network, and the way back to the pixels of the photograph.

    Args:
        preprocessor: maps photographs to the network's input, and raises an error for unusable ones.
        network: maps prepared photographs (B, 3, S, S) to logits (B, 1, C, S, S).
    """

    def __init__(self, preprocessor: CheckedPhotograph, network: nn.Module) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network
        self.fundus = preprocessor.preprocessor.style == "fundus"

    def forward(self, image: Tensor) -> Tensor:
        """Masks (B, H, W) of upright photographs (B, 3, H, W) of any size, levels in [0, 1].

        Returns:
            uint8: 0 background, 1 to K the structures; what the network does not see is background.
        """
        logits = self.network(self.preprocessor(image))
        masks: list[Tensor] = []
        for index in range(len(logits)):
            # the preprocessor's own `box` is a method that the check of a bundle lets no module call
            box = field_of_view(image[index]) if self.fundus else centre_box(image.shape[2], image.shape[3])
            scores = logits[index].softmax(dim=1)
            masks.append(restore_photograph_labels(scores, box, image.shape[2], image.shape[3])[0])
        return torch.stack(masks)
