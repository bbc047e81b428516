"""The weights that a federation pins by their hash."""

from __future__ import annotations

from pathlib import Path

import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import read_clip
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.checkpoint_files import HUB_PREFIX
from monai_fedlora.networks.weights import load_backbone


def pin_backbone(size: str, source: str, *, texts: bool = False) -> str:
    """The hash to pin, of weights that were opened and fit the size; the network that they are read into has no memory.

    Args:
        size: named backbone.
        source: see :func:`find_backbone`.
        texts: whether a text tower and its tokens have to be there as well.

    Raises:
        ConfigError: there is no such size, or it has no text tower.
        WeightsError: the file cannot be read, or its names and shapes are not those of the size.
    """
    with torch.device("meta"):
        network = build_backbone(size, out_chans=2)
    pin = load_backbone(network, source, heads=False).sha256
    if texts:
        read_clip(source, size)
    return pin


def find_backbone(size: str, given: str | None) -> str:
    """The source of a backbone's weights: the given file, folder or hub id, else the demo weights of its size.

    Raises:
        ConfigError: there is no such file, folder or size.
    """
    backbone = given or demo_weights(size)
    if backbone is None:
        raise ConfigError(f"there are no demo weights of size {size}; give the file of its backbone")
    if not str(backbone).startswith(HUB_PREFIX) and not Path(backbone).exists():
        raise ConfigError(f"the backbone {backbone} does not exist")
    return str(backbone)
