"""From words in a config to a network that is ready to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import get_method
from monai_fedlora.networks.catalogue import Network, architecture_names, build_backbone, demo_weights
from monai_fedlora.networks.weights import load_backbone

UNTRAINED = "untrained"
DEMO = "demo"


def build_network(
    *,
    size: str,
    out_chans: int,
    n_frames: int = 2,
    backbone: str = DEMO,
    backbone_sha256: str | None = None,
    method: str = "dual_lora",
    method_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Network:
    """Build a backbone, load its weights and attach a method's trainable part.

    Args:
        size: name in :func:`monai_fedlora.networks.catalogue.architecture_names`.
        out_chans: number of classes.
        n_frames: input frames of a cine (ED and ES: 2).
        backbone: source of the weights, see :func:`monai_fedlora.networks.weights.load_backbone`; ``"demo"`` for the
            packaged weights of a size that has some, or ``"untrained"`` for the architecture alone, which a server or
            a shape check needs.
        backbone_sha256: refuse any other file; None accepts what is given.
        method: registered method name.
        method_args: its hyper-parameters.
        seed: for the head's and the adapters' initial values.

    Returns:
        The network, mapping (B, n_frames, X, Y, Z), or (B, 3, H, W) for images, to logits (B, out_chans).

    Raises:
        ConfigError: unknown size, method or hyper-parameter.
        WeightsError: the backbone file is missing, damaged, or not the pinned one.
    """
    chosen = get_method(method, method_args)
    source = demo_weights(size) if backbone == DEMO else backbone
    if source is None:
        known = " and ".join(repr(name) for name in architecture_names() if demo_weights(name))
        raise ConfigError(
            f"the packaged demo weights are of size {known}, not {size!r}; give the path of a {size} backbone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_backbone(size, out_chans=out_chans, n_frames=n_frames)
        if backbone != UNTRAINED:
            load_backbone(network, source, sha256=backbone_sha256)
        chosen.attach(network)
    return network
