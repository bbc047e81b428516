"""Loading a backbone's weights from disk or from the Hugging Face hub, all of them or none.

Of cine networks three layouts are understood, all of CineMA (Fu et al., arXiv 2506.00679): a fine-tuned classifier,
whose keys are those of :class:`~monai_fedlora.networks.cinema.ConvViT`; a fine-tuned segmentation network, whose keys
are those of :class:`~monai_fedlora.networks.convunetr.ConvUNetR`, with or without the classifier's fusion beside them;
and a pre-trained masked auto-encoder, whose decoder is left out. Those of the vision transformer are in
:mod:`monai_fedlora.networks.layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import BackboneInfo, Layout, check_pin_format, listed
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor, Shape, opened
from monai_fedlora.networks.cine_network import VIEW
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.networks.own_weights import load_own
from monai_fedlora.networks.position import find_grid, resize_position
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.vit_weights import load_vision_transformer
from monai_fedlora.networks.weights_sources import HUB_PREFIX, find_file, find_weights

__all__ = ["HUB_PREFIX", "BackboneInfo", "backbone_sha256", "load_backbone"]

_POSITION = f"enc_down_dict.{VIEW}.pos_embed"
_FIRST_CONV = f"enc_down_dict.{VIEW}.conv_blocks.0.patch_embed.conv.weight"
_AUTO_ENCODER = ("mask", "decoder", "dec_linear")
_DECODER = "dec_image_conv_block_dict."
_FUSION = "enc_fusion_dict."
_LAST = "pred_head_dict."


CineBackbone = ConvViT | ConvUNetR


def backbone_sha256(source: str | Path) -> str:
    """The hash by which a plan pins a source of weights; a hub id is downloaded first.

    Of one file it is the SHA-256 of its bytes. Of several files in one folder it is the SHA-256 of what ``sha256sum``
    prints for them, sorted by name.

    Raises:
        WeightsError: the source does not exist or cannot be read.
    """
    return find_weights(source).sha256()


def load_backbone(
    network: ConvViT | ConvUNetR | VisionTransformer,
    source: str | Path,
    *,
    sha256: str | None = None,
    heads: bool = True,
) -> BackboneInfo:
    """Load weights into ``network`` in place; after an error it is as it was.

    Heads are loaded when all of them are in a classifier's file and fit; otherwise the network keeps its own
    and they are listed as skipped. Positions of another image size are interpolated.

    A file may hold more than the network: a ConvViT leaves a segmentation decoder out, and a ConvUNetR the classifier's
    fusion and heads. A segmentation file's decoder must fit a ConvUNetR. Its last layer is kept back, and listed as
    skipped, where it is for other structures; where it fits, its channels mean what they mean in the file.

    Cine networks: a pre-trained file whose first convolution has one input channel has it repeated over the frames, not
    divided; a pre-trained file's positions are replaced by the network's own. Vision transformer: see
    :func:`~monai_fedlora.networks.vit_weights.load_vision_transformer`. Networks of other packages: see
    :func:`~monai_fedlora.networks.own_weights.load_own`.

    Args:
        network: where the weights go, without adapters.
        source: for a cine network and networks of other packages a safetensors file, or
            ``hf://owner/repo/path/in/repo.safetensors``; for a vision
            transformer any source of :func:`~monai_fedlora.networks.weights_sources.find_weights`.
        sha256: what :func:`backbone_sha256` must be; None accepts any file.
        heads: False keeps the network's own heads: of a ConvUNetR, its decoder.

    Raises:
        WeightsError: the file is missing, unreadable, not the pinned one, or does not fit the network; the
            message names the file and the keys.
        ConfigError: ``sha256`` is not 64 hexadecimal digits.
    """
    check_pin_format(sha256)
    if not isinstance(network, (ConvViT, ConvUNetR, VisionTransformer)):
        return load_own(network, find_file(source), sha256=sha256, heads=heads)
    if isinstance(network, VisionTransformer):
        return load_vision_transformer(network, find_weights(source), sha256=sha256, heads=heads)
    checkpoint = find_file(source)
    path, found = checkpoint.path, checkpoint.check_pin(sha256)
    targets = network.state_dict()
    with opened(checkpoint, pickled=False) as tensors:
        read = read_cine(network, tensors, path, heads=heads)
        with torch.no_grad():
            for key, value in read.values.items():
                targets[key].copy_(value)
    return BackboneInfo(
        path=path,
        sha256=found,
        n_loaded=len(read.values),
        layout=read.layout,
        heads=not read.own_heads,
        own_heads=read.own_heads,
        skipped=read.skipped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CineRead:
    """What a file holds for a cine network.

    Attributes:
        values: the network's tensors, by name.
        layout, own_heads, skipped: see :class:`~monai_fedlora.networks.checkpoint_files.BackboneInfo`.
    """

    values: Mapping[str, torch.Tensor]
    layout: Layout
    own_heads: tuple[str, ...]
    skipped: tuple[str, ...]


def read_cine(network: CineBackbone, tensors: Mapping[str, CheckpointTensor], path: Path, *, heads: bool) -> CineRead:
    """Read what fits a cine network, which stays as it is; see :func:`load_backbone`.

    Args:
        network: without adapters; shapes alone count.
        tensors: of the file.
        path: of the file, for messages.
        heads: False leaves heads out.

    Raises:
        WeightsError: the file does not fit, or what it holds is not finite; the message names it and the keys.
    """
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    layout = _layout_of(shapes)
    wanted, own_heads = _wanted_keys(network, shapes, layout=layout, heads=heads)
    _check_keys(network, wanted, own_heads, path)
    _check_shapes(shapes, network.state_dict(), wanted, layout=layout, path=path)
    return CineRead(
        values={key: _converted(key, tensors[key].read_finite(key, path), network, path) for key in wanted},
        layout=layout,
        own_heads=own_heads,
        skipped=tuple(sorted(shapes.keys() - set(wanted))),
    )


def _layout_of(keys: Collection[str]) -> Layout:
    if any(key.startswith(_DECODER) for key in keys):
        return "segmentation"
    if any(part in key for key in keys for part in _AUTO_ENCODER):
        return "pretrained"
    return "classifier" if any(key.startswith(_LAST) for key in keys) else "pretrained"


def _wanted_keys(
    network: CineBackbone, shapes: Mapping[str, Shape], *, layout: Layout, heads: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of the file that should go into the network, and the head prefixes whose values the network keeps.

    What is not listed is left out on purpose.
    """
    decodes = isinstance(network, ConvUNetR)
    dropped: tuple[str, ...] = (_FUSION,) if decodes else ()
    if layout == "pretrained":
        parts = (*_AUTO_ENCODER, "_head", "pos_embed")
        other_view = re.compile(rf"enc_(down|fusion)_dict\.(?!{VIEW}\.)")
        keys = (key for key in shapes if not any(part in key for part in parts) and not other_view.match(key))
        return tuple(key for key in keys if not key.startswith(dropped)), network.head_prefixes
    kept: tuple[str, ...] = ()
    own = {key: tuple(value.shape) for key, value in network.state_dict().items() if key.startswith(_LAST)}
    if decodes != (layout == "segmentation"):
        kept, dropped = network.head_prefixes, (*dropped, *ConvUNetR.head_prefixes)
    elif not heads:
        kept, dropped = network.head_prefixes, (*dropped, *(network.head_prefixes if decodes else own))
    elif any(shapes.get(key) != shape for key, shape in own.items()):
        kept, dropped = (_LAST,), (*dropped, *own)
    return tuple(key for key in shapes if not key.startswith(dropped)), kept


def _check_keys(network: CineBackbone, wanted: Collection[str], own_heads: tuple[str, ...], path: Path) -> None:
    own = network.state_dict().keys()
    unknown = sorted(set(wanted) - own)
    missing = sorted(key for key in own - set(wanted) if key != _POSITION and not key.startswith(own_heads))
    problems = []
    if missing:
        problems.append(f"it lacks {listed(missing)}")
    if unknown:
        problems.append(f"the network has no {listed(unknown)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit the network: {'; '.join(problems)}; it is probably the weights of another "
            "architecture or size, or the network already carries adapters"
        )


def _check_shapes(
    shapes: Mapping[str, Shape],
    targets: Mapping[str, torch.Tensor],
    wanted: Collection[str],
    *,
    layout: Layout,
    path: Path,
) -> None:
    wrong = []
    for key in wanted:
        found, expected = shapes[key], tuple(targets[key].shape)
        accepted = {expected}
        if key == _FIRST_CONV and layout == "pretrained":
            accepted.add((expected[0], 1, *expected[2:]))
        if key == _POSITION and len(found) == 3:
            accepted.add((1, found[1], expected[2]))
        if found not in accepted:
            wrong.append(f"{key} is {found} instead of {expected}")
    if wrong:
        raise WeightsError(
            f"{path} does not fit the network: {listed(wrong)}; it is probably of another size or another "
            "number of frames"
        )


def _converted(key: str, value: torch.Tensor, network: CineBackbone, path: Path) -> torch.Tensor:
    """A tensor of the file in the shape of the network's."""
    if key == _FIRST_CONV:
        return value.expand(-1, network.n_frames, -1, -1, -1)
    if key == _POSITION:
        grid = find_grid(value)
        if grid is not None and grid != network.stem.grid:
            return resize_position(value.float(), grid, network.stem.grid)
        expected = network.stem.pos_embed.shape
        if value.shape != expected:
            raise WeightsError(
                f"{path}: {key} has {value.shape[1]} positions, the network {expected[1]}, and they are no "
                "sine-cosine table that could be interpolated; build the network with the image size of the file"
            )
    return value
