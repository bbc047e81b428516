"""Training an image tower and a text tower on pictures with captions, into a file in the layout of CLIP checkpoints.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020. Since
it is known of which pictures in a batch a caption is true, all of those count as its pictures, as in Yang et al.,
"Unified Contrastive Learning in Image-Text-Label Space", arXiv 2204.03610.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.networks.anchors import text_shape
from monai_fedlora.networks.backbone import Features
from monai_fedlora.networks.byte_pairs import learn_tokens, save_tokens
from monai_fedlora.networks.clip_text import clip_state
from monai_fedlora.networks.pretraining_epochs import pretraining_epochs, shuffled
from monai_fedlora.networks.text import TextSettings, TextTransformer
from monai_fedlora.networks.vit import VisionTransformer

_SCALE, _LARGEST_SCALE = math.log(1 / 0.07), math.log(100)


class Statement(Protocol):
    """A sentence, and what it states."""

    @property
    def text(self) -> str: ...
    @property
    def statements(self) -> frozenset[str]: ...


class Pair(nn.Module):
    """Two towers and what compares them.

    Args:
        image: the image tower, whose head is not used.
        text: the text tower.
    """

    def __init__(self, image: VisionTransformer, text: TextTransformer) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.projection = nn.Linear(image.settings.dim, text.settings.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(_SCALE))

    def forward(self, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of images (B, 3, H, W) and texts (C, T)."""
        features: Features = self.image.prefix(images, len(self.image.blocks))
        seen = functional.normalize(self.projection(self.image.pool(features)), dim=-1)
        read = functional.normalize(self.text(ids), dim=-1)
        return self.logit_scale.clamp(max=_LARGEST_SCALE).exp() * seen @ read.T


def contrastive_loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean of both directions' cross-entropy, with the probability shared among all that fit.

    Args:
        logits: (B, C) of images and texts.
        true: (B, C) bool, whether a text is true of an image; at least one per row and column.
    """
    weights = true.to(logits.dtype)
    images = -(weights / weights.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    texts = -(weights / weights.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (images + texts) / 2


def pretrain_clip(
    images: Any,
    *,
    statements: Sequence[frozenset[str]],
    caption: Callable[[int, np.random.Generator], Statement],
    size: str,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    output: str | Path,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    start: VisionTransformer | None = None,
    provenance: str = "",
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[float, ...]:
    """Train both towers and save them with their tokens.

    AdamW with betas (0.9, 0.98) and weight decay 0.05 on matrices; the learning rate rises linearly over a tenth of
    the steps and falls by a cosine to zero. Captions are drawn anew in every epoch. The same arguments and number of
    threads give the same weights on a processor. They are stored in half precision.

    Args:
        images: a dataset of (3, H, W) normalised tensors, indexed anew in every epoch, so that it may augment.
        statements: everything that is true of each image.
        caption: draws a sentence about the image of this number.
        size: name of a CLIP architecture; the images have its size.
        epochs: passes over the images, at least 1.
        batch_size: images in a step, at least 2.
        lr: the highest learning rate.
        seed: of the weights, the order of the images and the captions.
        output: the safetensors file to write; ``vocab.json`` and ``merges.txt`` go beside it.
        device: where to compute.
        bf16: compute matrix products and convolutions in bfloat16.
        start: an image tower of this shape to start from, which may have a bias in its patch embedding and need not
            have a norm behind it; None starts from random weights.
        provenance: what the images are, kept in the file's metadata.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The mean loss of each epoch.

    Raises:
        ConfigError: a setting is out of range, ``size`` is no CLIP, or the loss became infinite.
        DataError: there are fewer than two images.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value}")
    if not lr > 0:
        raise ConfigError(f"lr must be positive, not {lr}")
    if len(images) < 2:
        raise DataError("a comparison needs two images or more")
    text, image = text_shape(size)
    if not isinstance(text, TextSettings):
        raise ConfigError(
            f"a {size} network's text tower is no CLIP's, which is what is trained here; choose clip_demo"
        )
    rng = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    tokens = learn_tokens(
        (caption(n, rng).text for n in range(len(images)) for _ in range(8)), vocabulary=text.vocabulary
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pair = Pair(VisionTransformer(image, out_chans=1), TextTransformer(text)).train()
    if start is not None:
        _copy_tower(start, pair.image)
    place = torch.device(device)
    pair.to(place)

    def batch_of(numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        captions = [caption(number, rng) for number in numbers]
        ids = tokens.rows({"caption": [one.text for one in captions]}, context=text.context)
        longest = int(pair.text.ends(ids).max()) + 1
        true = torch.tensor([[one.statements <= statements[number] for one in captions] for number in numbers])
        return torch.stack([images[number] for number in numbers]), ids[:, :longest], true

    generator = torch.Generator().manual_seed(seed)
    losses = pretraining_epochs(
        shuffled(batch_of, count=len(images), batch_size=batch_size, generator=generator),
        lambda some, ids, true: contrastive_loss(pair(some, ids).float(), true),
        (p for key, p in pair.named_parameters() if not key.startswith("image.head.")),
        steps=math.ceil(len(images) / batch_size),
        epochs=epochs,
        lr=lr,
        betas=(0.9, 0.98),
        generator=generator,
        device=place,
        bf16=bf16,
        on_epoch=on_epoch,
    )
    pair.cpu()
    state = clip_state(
        pair.image,
        pair.text,
        projection=pair.projection.weight,
        logit_scale=pair.logit_scale.detach().clamp(max=_LARGEST_SCALE),
    )
    files.save_tensors(
        output,
        {key: value.half() for key, value in state.items()},
        {
            "architecture": "CLIP",
            "size": size,
            "image_size": "x".join(str(n) for n in image.image_size),
            "objective": "contrast of images and captions",
            "n_images": str(len(images)),
            "epochs": str(epochs),
            "batch_size": str(batch_size),
            "lr": str(lr),
            "seed": str(seed),
            "final_loss": f"{losses[-1]:.6f}",
            "provenance": provenance,
            **({"precision": "bf16"} if bf16 else {}),
        },
    )
    save_tokens(Path(output).parent, tokens)
    return losses


@torch.no_grad()
def _copy_tower(start: VisionTransformer, network: VisionTransformer) -> None:
    """Fill a tower without a patch bias with the weights of one that may have it: every patch's position takes it."""
    state = {key: value for key, value in start.state_dict().items() if not key.startswith(start.head_prefixes)}
    bias = state.pop("embed.patch.bias", None)
    if bias is not None:
        state["embed.position"] = state["embed.position"] + bias
    own = network.state_dict()
    wrong = [key for key, value in state.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise ConfigError(f"the image tower to start from is of another shape: {wrong[0]}; choose the size to fit")
    network.load_state_dict(state, strict=False)
