"""Images as the network takes them, kept outside the project, and what a frozen encoder makes of them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _real_hearts.patients import Patient
from monai_fedlora.engines.config import preprocessing
from monai_fedlora.files import load_tensors, make_folder, save_tensors
from monai_fedlora.networks.catalogue import architecture, build_backbone
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.transforms.orientation import N_ORDERS, one_order

BATCH = 16
DECODER = "dec_image_conv_block_dict."


def scratch_folder() -> Path:
    """Where prepared images lie, for this user alone; safe to delete."""
    folder = Path(tempfile.gettempdir()) / f"real_hearts_{os.getuid()}"
    make_folder(folder)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise SystemExit(f"{folder} is readable by others; remove it, or set TMPDIR to a folder of your own")
    return folder


def prepared(patients: Sequence[Patient], *, size: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 2, X, Y, Z) by the package's preprocessing for a size, and which of them have lost their orientation.

    They are kept in :func:`scratch_folder` under a name that depends on the files, their times of change and the grid.
    """
    chosen = architecture(size)
    files = [path for patient in patients for path in (patient.ed, patient.es)]
    told: list[Any] = [chosen.image_size, chosen.spacing, [(str(path), path.stat().st_mtime_ns) for path in files]]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
    path = scratch_folder() / f"{name}.safetensors"
    if not path.is_file():
        transform = preprocessing(size=size)
        items = [transform(patient.item()) for patient in patients]
        images = torch.stack([torch.as_tensor(item["image"]) for item in items])
        lost = torch.stack([item["placeholder"] for item in items])
        save_tensors(path, {"image": images, "lost": lost})
    held, _ = load_tensors(path)
    return held["image"], held["lost"]


def encoder(*, size: str, weights: str | Path | None, seed: int = 0) -> ConvViT:
    """A frozen backbone: of a file, or untrained.

    Args:
        size: a ConvViT's name.
        weights: the file; None leaves the random start.
        seed: of the random start.
    """
    torch.manual_seed(seed)
    network = build_backbone(size, out_chans=2)
    if not isinstance(network, ConvViT):
        raise SystemExit(f"{size} is no ConvViT; the probe reads pooled tokens of one")
    if weights is not None:
        load_backbone(network, weights, heads=False)
    return network.eval()


def has_decoder(weights: str | Path) -> bool:
    """Whether a file holds a decoder beside the encoder."""
    held, _ = load_tensors(weights)
    return any(key.startswith(DECODER) for key in held)


@torch.inference_mode()
def pooled(
    network: ConvViT, images: torch.Tensor, lost: torch.Tensor, *, blocks: Sequence[int] = (), orders: int = N_ORDERS
) -> np.ndarray:
    """Mean fused patch token and class token of every image, and the same two of inner blocks if wanted.

    Args:
        network: a frozen backbone.
        images: (N, 2, X, Y, Z).
        lost: (N,) whether the orientation is lost.
        blocks: numbers from 1 of blocks whose output (mean patch token, class token, without fusion) is added.
        orders: of a patient without orientation, the features are the mean over so many of the 16 orders of axes, as
            the package's predictions are; 1 reads the order of the file alone.

    Returns:
        (N, (2 + 2 * blocks) * width).
    """
    rows = []
    for start in range(0, len(images), BATCH):
        batch, mark = images[start : start + BATCH], lost[start : start + BATCH]
        total = _pooled(network, batch, blocks)
        if mark.any() and orders > 1:
            kept = batch[mark]
            for number in range(1, orders):
                total[mark] += _pooled(network, torch.stack([one_order(image, number) for image in kept]), blocks)
            total[mark] /= orders
        rows.append(total)
    return torch.cat(rows).double().numpy()


def _pooled(network: ConvViT, images: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
    features = network.embed(images)
    tokens, inner = features.tokens, []
    for number, block in enumerate(network.blocks, 1):
        tokens = block(tokens)
        if number in blocks:
            inner += [tokens[:, 1:].mean(dim=1), tokens[:, 0]]
    last = network.encoder.norm(tokens)
    fused = network.fusion(last[:, 1:], features.addend)
    return torch.cat([fused.mean(dim=1), last[:, 0], *inner], dim=1)
