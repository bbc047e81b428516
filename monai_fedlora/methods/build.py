"""Build a network, load its weights and attach a method, from the plain values of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Method, get_method
from monai_fedlora.networks.anchors import text_anchors, text_shape
from monai_fedlora.networks.catalogue import Network, build_backbone, demo_sizes, demo_weights, pinned_demo_weights
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.read_once import read_backbone
from monai_fedlora.networks.text_head import CosineHead, put_head
from monai_fedlora.networks.text_reader import read_texts, unread_texts

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
    classes: Sequence[str] = (),
    prompts: Prompts | None = None,
    text_cache: Path | None = None,
    masks: bool = False,
) -> Network:
    """Build a backbone, load its weights and attach a method's trainable part.

    For a method that reads texts the head compares images with the texts of the classes, as the text tower in the same
    checkpoint reads them. A network without weights has that head with zeros. Where the texts train, the text tower is
    part of the head.

    Args:
        size: name in :data:`monai_fedlora.networks.catalogue.BACKBONES`.
        out_chans: number of classes; with ``masks`` of channels per frame, the background and each structure.
        n_frames: input frames of a cine (ED and ES: 2).
        backbone: source of the weights, see :func:`monai_fedlora.networks.weights.load_backbone`; ``"demo"`` for the
            packaged weights of a size that has some, or ``"untrained"`` for the architecture alone, which a server or
            a shape check needs.
        backbone_sha256: refuse any other file; None accepts what is given.
        method: registered method name.
        method_args: its hyper-parameters.
        seed: for the head's and the adapters' initial values.
        classes: names in label order, which a method that reads texts needs; others leave them alone.
        prompts: how it puts them into words; None for the defaults.
        text_cache: folder in which the texts' features are kept, see
            :func:`monai_fedlora.networks.anchors.text_anchors`.
        masks: whether a decoder gives logits per voxel in place of one vector per image; the decoder is then the head.

    Returns:
        The network, mapping (B, n_frames, X, Y, Z), or (B, 3, H, W) for images, to logits (B, out_chans), or to
        (B, n_frames, out_chans, X, Y, Z) with ``masks``.

    Raises:
        ConfigError: unknown size, method or hyper-parameter; or the method reads texts, and the size is no CLIP, a
            class has no name, or a text is too long.
        WeightsError: the backbone file is missing, damaged, or not the pinned one.
    """
    chosen = get_method(method, method_args)
    if chosen.reads_text and masks:
        raise ConfigError(f"{method} compares whole images with texts and gives no masks; choose another method")
    if chosen.reads_text:
        _check_text(method, size, out_chans, None if backbone == UNTRAINED else classes)
    source: str | Path | None = backbone
    if backbone == DEMO:
        source = (backbone_sha256 and pinned_demo_weights(size, backbone_sha256)) or demo_weights(size)
    if source is None:
        known = ", ".join(map(repr, demo_sizes()))
        raise ConfigError(
            f"the packaged demo weights are of the sizes {known}, not {size!r}; give the path of a {size} backbone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_backbone(size, out_chans=out_chans, n_frames=n_frames, masks=masks)
        info = None
        if backbone != UNTRAINED:
            kind = (size, out_chans, n_frames, masks)
            info = read_backbone(network, source, sha256=backbone_sha256, kind=kind)
        if chosen.reads_text and info is None:
            put_head(network, _empty_head(chosen, size, out_chans))
        elif chosen.reads_text and info is not None:
            head = CosineHead.of(
                text_anchors(source, size=size, classes=classes, prompts=prompts, cache=text_cache, sha256=info.sha256)
            )
            if chosen.writes_text:
                head.reader = read_texts(source, size=size, classes=classes, prompts=prompts)
            put_head(network, head)
        chosen.attach(network)
    return network


def _empty_head(method: Method, size: str, n_classes: int) -> CosineHead:
    """The head of a network without weights."""
    text, image = text_shape(size)
    head = CosineHead(n_classes=n_classes, embed_dim=text.embed_dim, dim=image.dim)
    if method.writes_text:
        head.reader = unread_texts(size, n_classes)
    return head


def _check_text(method: str, size: str, out_chans: int, classes: Sequence[str] | None) -> None:
    """Refuse a network that cannot read texts, and classes without a name each."""
    try:
        text_shape(size)
    except ConfigError as error:
        raise ConfigError(f"{method} compares images with texts: {error}") from error
    if classes is not None and len(classes) != out_chans:
        raise ConfigError(
            f"{method} compares images with texts and needs the names of all {out_chans} classes, not {len(classes)}"
        )
