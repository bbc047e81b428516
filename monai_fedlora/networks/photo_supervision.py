"""What a backbone for photographs learns from labelled pictures: a mask, amounts of pigment and blood, numbers, signs
and a class.

The masks and amounts are read from each patch token alone by a linear layer, so that the tokens hold them; all else is
read from what a classifier's head reads. The parts and their weights are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fedlora.networks.vit import VisionTransformer

WEIGHTS: Mapping[str, float] = {"mask": 1.0, "amounts": 1.0, "numbers": 1.0, "signs": 1.0, "class": 1.0}
"""Weight of each part of the loss."""

_AMOUNTS_UNIT = 50.0  # brings the squared error of amounts, about a hundredth, to the size of the other parts


class PhotoSupervision(nn.Module):
    """The mean loss of a batch of pictures; the parts of the last one are in ``parts``.

    * mask: cross-entropy of each pixel with the lesion's share of it as target, and one minus the soft Dice of the
      batch;
    * amounts: squared error of the mean amount of each pigment and cover in a token;
    * numbers: smooth L1 error, over the pictures with a lesion;
    * signs: cross-entropy of each sign's presence, over the same;
    * class: cross-entropy with label smoothing 0.05.

    Args:
        backbone: what is trained; its own head takes no part.
        mean, std: of the backbone's channels; images come in [0, 1].
        amounts: how many maps of amounts there are.
        numbers: how many numbers.
        signs: how many signs.
        classes: how many classes, of lesions first.
        lesions: how many of them are lesions.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        amounts: int,
        numbers: int,
        signs: int,
        classes: int,
        lesions: int,
    ) -> None:
        super().__init__()
        self.backbone, self.of_lesions = backbone, lesions
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(
                name, torch.tensor([float(value) for value in values])[:, None, None], persistent=False
            )
        dim, patch = backbone.settings.dim, backbone.settings.patch
        self.pixels = nn.Linear(dim, patch**2)
        self.amounts = nn.Linear(dim, amounts)
        self.numbers = nn.Linear(dim, numbers)
        self.signs = nn.Linear(dim, signs)
        self.classes = nn.Linear(dim, classes)
        self.parts: dict[str, Tensor] = {}

    def forward(self, image: Tensor, maps: Tensor, numbers: Tensor, signs: Tensor, label: Tensor) -> Tensor:
        """The loss.

        Args:
            image: (B, 3, H, W) in [0, 1].
            maps: (B, 1 + A, H, W) in [0, 1], the lesion's mask first.
            numbers: (B, N), each with mean 0 and standard deviation 1 or so.
            signs: (B, S), 0 or 1.
            label: (B,).
        """
        tokens, pooled = self.read(image)
        lesion = (label < self.of_lesions).float()[:, None]
        count = lesion.sum().clamp(min=1)
        wanted = functional.smooth_l1_loss(self.numbers(pooled), numbers, reduction="none").mean(1, keepdim=True)
        seen = functional.binary_cross_entropy_with_logits(self.signs(pooled), signs, reduction="none")
        self.parts = {
            "mask": mask_loss(self.mask(tokens, image.shape[2:]), maps[:, :1]),
            "amounts": _AMOUNTS_UNIT * functional.mse_loss(self.amounts(tokens), self._token_means(maps[:, 1:])),
            "numbers": (wanted * lesion).sum() / count,
            "signs": (seen.mean(1, keepdim=True) * lesion).sum() / count,
            "class": functional.cross_entropy(self.classes(pooled), label, label_smoothing=0.05),
        }
        return torch.stack([WEIGHTS[name] * part for name, part in self.parts.items()]).sum()

    def normalised(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] as the backbone takes it."""
        return (image - self.mean) / self.std

    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised patch tokens (B, N, D) of images in [0, 1], and what the head reads (B, D)."""
        last = len(self.backbone.blocks) - 1
        before = self.backbone.prefix(self.normalised(image), last)
        features = before._replace(tokens=self.backbone.blocks[last](before.tokens))
        return self.backbone.norm(self.backbone.patch_tokens(features.tokens)), self.backbone.pool(features)

    def mask(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Logits of the lesion's mask (B, 1, H, W)."""
        patch = self.backbone.settings.patch
        pixels = self.pixels(tokens).transpose(1, 2)
        return functional.fold(pixels, (size[0], size[1]), kernel_size=patch, stride=patch)

    def backbone_state(self) -> dict[str, Tensor]:
        """The backbone's state without its head."""
        heads = self.backbone.head_prefixes
        return {key: value for key, value in self.backbone.state_dict().items() if not key.startswith(heads)}

    def _token_means(self, maps: Tensor) -> Tensor:
        """(B, N, A): the mean of each map over each token's pixels, tokens row by row."""
        patch = self.backbone.settings.patch
        return functional.avg_pool2d(maps, patch).flatten(2).transpose(1, 2)


def mask_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of each pixel, and one minus the soft Dice of the batch; both (B, 1, H, W), shares in [0, 1]."""
    probability = logits.sigmoid()
    dice = 2 * (probability * shares).sum() / (probability.sum() + shares.sum()).clamp(min=1.0)
    return functional.binary_cross_entropy_with_logits(logits, shares) + 1 - dice
