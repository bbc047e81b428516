"""The weights that a federation pins by their hash."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import read_clip
from monai_fedlora.networks.catalogue import architecture, build_backbone, demo_weights
from monai_fedlora.networks.image_settings import normalisation_beside
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.networks.weights_sources import HUB_PREFIX

_log = logging.getLogger(__name__)


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
    info = load_backbone(network, source, heads=False)
    if texts:
        read_clip(source, size)
    if info.assumed:
        _log.warning(
            "nothing beside %s tells %s: taken as the name %s has it; put the config.json or open_clip_config.json of "
            "the weights beside them to have it compared",
            source,
            ", ".join(info.assumed),
            size,
        )
    return info.sha256


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


def beside_backbone(size: str, source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings that the files beside weights decide: how photographs are normalised, where not as the size's.

    Args:
        size: named backbone.
        source: see :func:`find_backbone`.
        given: settings that somebody chose, which win.

    Raises:
        ConfigError: there is no such size.
        WeightsError: a file beside the weights cannot be read, or says what cannot be followed.
    """
    chosen = architecture(size)
    if chosen.mean is None or chosen.std is None:
        return {}
    return normalisation_beside(source, given, mean=chosen.mean, std=chosen.std)
