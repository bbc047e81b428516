"""What a cine backbone learns from labelled hearts: masks through a decoder, and numbers and a class from its tokens.

The classifier and the segmenter share the stem and the encoder, so that one file serves both. Half of the time the
decoder gets no skips and must read the masks from the tokens: what it can read from the stem, tokens need not hold. The
parts and their weights are ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.convunetr import ConvUNetR

WEIGHTS: Mapping[str, float] = {"masks": 1.0, "shares": 1.0, "numbers": 4.0, "class": 0.5}
"""Weight of each part of the loss."""

_SHARES_UNIT = 25.0  # brings the squared error of shares, a few thousandths, to the size of the other parts


class HeartSupervision(nn.Module):
    """The mean loss of a batch of hearts; the parts of the last one are in ``parts``.

    * masks: of the decoder's output, twice the cross-entropy with the shares of each voxel as target, and one minus the
      soft Dice of each structure and frame over the batch;
    * shares: squared error of the share of each token's volume that each structure fills, predicted from the fused
      token alone. The mean token then holds the volumes, whatever reads it;
    * numbers: smooth L1 error, from the mean fused token and the class token;
    * class: cross-entropy with label smoothing 0.05, from the same; a heart between the classes (-1) does not count.

    Args:
        classifier: the backbone that is trained; its own heads take no part.
        segmenter: its decoder is trained; its stem and encoder are replaced by the classifier's.
        numbers: how many numbers.
        classes: how many classes.
    """

    def __init__(self, classifier: ConvViT, segmenter: ConvUNetR, *, numbers: int, classes: int) -> None:
        super().__init__()
        segmenter.enc_down_dict = classifier.enc_down_dict
        segmenter.encoder = classifier.encoder
        self.classifier, self.segmenter = classifier, segmenter
        dim = classifier.encoder.cls_token.shape[-1]
        self.numbers = nn.Linear(2 * dim, numbers)
        self.classes = nn.Linear(2 * dim, classes)
        self.shares = nn.Linear(dim, segmenter.n_frames * (segmenter.out_chans - 1))
        self.parts: dict[str, Tensor] = {}

    def forward(self, image: Tensor, shares: Tensor, numbers: Tensor, label: Tensor) -> Tensor:
        """The loss.

        Args:
            image: (B, F, X, Y, Z).
            shares: (B, F, S, X, Y, Z) in [0, 1].
            numbers: (B, N), each with mean 0 and standard deviation 1 or so.
            label: (B,), -1 for none.
        """
        decoded, fused, pooled = self.read(image)
        wanted = functional.smooth_l1_loss(self.numbers(pooled), numbers)
        known = label >= 0
        chosen = functional.cross_entropy(
            self.classes(pooled), label.clamp(min=0), reduction="none", label_smoothing=0.05
        )
        self.parts = {
            "masks": mask_loss(decoded, shares),
            "shares": _SHARES_UNIT * functional.mse_loss(self.shares(fused), self._token_shares(shares)),
            "numbers": wanted,
            "class": (chosen * known).sum() / known.sum().clamp(min=1),
        }
        return torch.stack([WEIGHTS[name] * part for name, part in self.parts.items()]).sum()

    def read(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's logits (B, F, 1 + S, X, Y, Z), the fused tokens (B, N, D), and the pooled ones (B, 2 D)."""
        network = self.classifier
        tokens, skips = network.stem(image, network.grid(image.shape[2:]))
        hidden = network.encoder.prepend(tokens)
        for block in network.blocks:
            hidden = block(hidden)
        hidden = network.encoder.norm(hidden)
        fused = network.fusion(hidden[:, 1:], network.fusion.addend(skips))
        decoded = self.segmenter.decode(hidden[:, 1:], skips, image)
        return decoded, fused, torch.cat([fused.mean(1), hidden[:, 0]], 1)

    def backbone_state(self) -> dict[str, Tensor]:
        """Stem, encoder and fusion, and the decoder with its head, under the keys of both networks."""
        heads = self.classifier.head_prefixes
        state = {key: value for key, value in self.classifier.state_dict().items() if not key.startswith(heads)}
        return {**self.segmenter.state_dict(), **state}

    def _token_shares(self, shares: Tensor) -> Tensor:
        """(B, N, F * S): the mean share in each token's volume, tokens in x, y, z order."""
        size = self.classifier.token_size
        pooled = functional.avg_pool3d(shares.flatten(1, 2), kernel_size=size, stride=size)
        return pooled.flatten(2).transpose(1, 2)


def mask_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Twice the cross-entropy, plus the mean over structures and frames of one minus the soft Dice of the batch.

    Args:
        logits: (B, F, 1 + S, X, Y, Z), background first.
        shares: (B, F, S, X, Y, Z) in [0, 1]; what they leave is background.
    """
    background = (1 - shares.sum(2, keepdim=True)).clamp(min=0)
    target = torch.cat([background, shares], 2)
    log_probability = logits.log_softmax(2)
    entropy = -(target * log_probability).sum(2).mean()
    probability = log_probability[:, :, 1:].exp()
    axes = (0, *range(3, logits.ndim))
    both = (probability * shares).sum(axes)
    dice = 2 * both / (probability.sum(axes) + shares.sum(axes)).clamp(min=1.0)
    return 2 * entropy + (1 - dice).mean()
