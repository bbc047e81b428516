"""Pre-training a backbone on images without labels, into a file that ``load_backbone`` reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.networks.cinema import ConvViT, ConvViTSize, convvit
from monai_fedlora.networks.mae import MaskedAutoencoder, random_visible
from monai_fedlora.networks.pretraining_epochs import pretraining_epochs, shuffled
from monai_fedlora.networks.standardise import standardise_readout
from monai_fedlora.networks.vit import CHANNELS, VisionTransformer


def pretrain(
    images: Iterable[torch.Tensor],
    *,
    size: str,
    epochs: int,
    batch_size: int,
    lr: float,
    mask_ratio: float,
    seed: int,
    output: str | Path,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    standardise_on: Iterable[torch.Tensor] | None = None,
    provenance: str = "",
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[float, ...]:
    """Train a masked auto-encoder and save its backbone, without heads, as safetensors.

    AdamW with betas (0.9, 0.95) and weight decay 0.05 on matrices, as in He et al., arXiv 2111.06377; the
    learning rate rises linearly over a tenth of the steps and falls by a cosine to zero. The same images,
    settings, seed and number of threads give the same weights on a processor.

    Args:
        images: tensors of one shape: cines (n_frames, X, Y, Z) with values in [0, 1], or colour images (3, H, W),
            normalised; a dataset with a length is indexed anew in each epoch, so that it may augment; any other
            iterable is read once.
        size: name in :data:`monai_fedlora.networks.catalogue.BUILT_IN`; the image size is that of the images.
        epochs: passes over the images, at least 1.
        batch_size: images in a step, at least 1.
        lr: the highest learning rate.
        mask_ratio: share of the tokens that is masked, in (0, 1).
        seed: of the weights, the order of the images and the masks.
        output: the file to write.
        device: where to compute.
        bf16: compute matrix products and convolutions in bfloat16, but for the standardised readout.
        standardise_on: images, usually the same without augmentation, over which the trained backbone's readout is
            standardised (:func:`monai_fedlora.networks.standardise.standardise_readout`); None leaves it as trained.
        provenance: what the images are, kept in the file's metadata.
        on_epoch: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The mean loss of each epoch.

    Raises:
        DataError: there are no images, or they differ in shape.
        ConfigError: a setting is out of range, or the loss became infinite.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "lr": lr}.items():
        if not value > 0:
            raise ConfigError(f"{name} must be positive, not {value}")
    dataset: Any = images if hasattr(images, "__getitem__") and hasattr(images, "__len__") else list(images)
    if not len(dataset):
        raise DataError("there are no images to pre-train on")
    shape = tuple(dataset[0].shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = _untrained(size, shape)
        network = MaskedAutoencoder(backbone, mask_ratio=mask_ratio).train()
    generator = torch.Generator().manual_seed(seed)
    heads = tuple(f"backbone.{prefix}" for prefix in backbone.head_prefixes)
    place = torch.device(device)
    network.to(place)

    def batch_of(numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = _batch([dataset[number] for number in numbers], shape)
        return batch, random_visible(len(batch), network.n_tokens, network.n_keep, generator)

    losses = pretraining_epochs(
        shuffled(batch_of, count=len(dataset), batch_size=batch_size, generator=generator),
        network,
        (p for key, p in network.named_parameters() if not key.startswith(heads)),
        steps=math.ceil(len(dataset) / batch_size),
        epochs=epochs,
        lr=lr,
        betas=(0.9, 0.95),
        generator=generator,
        device=place,
        bf16=bf16,
        on_epoch=on_epoch,
    )
    if standardise_on is not None:
        batches = _batches(standardise_on, batch_size, shape)
        standardise_readout(backbone, (batch.to(place) for batch in batches))

    files.save_tensors(
        output,
        network.backbone_state(),
        {
            "architecture": type(backbone).__name__,
            "size": size,
            "image_size": "x".join(str(n) for n in shape[1:]),
            "n_frames" if len(shape) == 4 else "n_channels": str(shape[0]),
            "objective": f"masked auto-encoder, mask ratio {mask_ratio}",
            "n_images": str(len(dataset)),
            "epochs": str(epochs),
            "batch_size": str(batch_size),
            "lr": str(lr),
            "seed": str(seed),
            "final_loss": f"{losses[-1]:.6f}",
            "readout": "as trained" if standardise_on is None else "standardised",
            "provenance": provenance,
            **({"precision": "bf16"} if bf16 else {}),
        },
    )
    return losses


def _untrained(size: str, shape: tuple[int, ...]) -> ConvViT | VisionTransformer:
    """A backbone with new weights for images of this shape."""
    settings = architecture(size).shape
    if isinstance(settings, ConvViTSize):
        if len(shape) != 4:
            raise DataError(f"images must be (n_frames, X, Y, Z), not {shape}")
        return convvit(size, out_chans=1, n_frames=shape[0], image_size=shape[1:])
    if settings is None:
        raise ConfigError(f"only networks of this package are pre-trained here, and {size} is not one of them")
    if len(shape) != 3 or shape[0] != CHANNELS:
        raise DataError(f"images must be ({CHANNELS}, H, W), not {shape}")
    return VisionTransformer(replace(settings, image_size=(shape[1], shape[2])), out_chans=1)


def _batches(images: Iterable[torch.Tensor], size: int, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """The images in their order, ``size`` at a time."""
    rest = iter(images)
    while some := list(islice(rest, size)):
        yield _batch(some, shape)


def _batch(images: list[torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    for image in images:
        if tuple(image.shape) != shape:
            raise DataError(f"images must have one shape, but there are {shape} and {tuple(image.shape)}")
    return torch.stack([torch.as_tensor(image, dtype=torch.float32) for image in images])
