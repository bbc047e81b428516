"""Which sizes of the catalogue a file of weights fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.anchors import read_clip
from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.catalogue import BUILT_IN, build_backbone
from monai_fedlora.networks.checkpoint_files import CheckpointFiles
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor, Shape, opened
from monai_fedlora.networks.cine_network import VIEW
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.layouts.recognise import recognise
from monai_fedlora.networks.position import Resizing
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.vit_weights import match_vision_transformer
from monai_fedlora.networks.weights import read_cine
from monai_fedlora.networks.weights_sources import find_file

_OF_CINES = f"enc_down_dict.{VIEW}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A size that a file could be of.

    Attributes:
        architecture: what the size's name stands for.
        n_loaded: tensors of the network that the file fills; 0 where it does not fit.
        skipped: names of the file's tensors that are left out.
        assumed: settings that neither the file nor a description beside it tells.
        resizing: how its learned positions are interpolated; None where there are none.
        problem: why it does not fit; empty where it does.
        no_texts: why the texts of a size with a text tower cannot be read; None where they can, or there is none.
    """

    architecture: Architecture
    n_loaded: int = 0
    skipped: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    resizing: Resizing | None = None
    problem: str = ""
    no_texts: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """What names and shapes of a file's tensors say.

    Attributes:
        n_tensors: in the file.
        layout: whose names the tensors have; None where they have nobody's that is known.
        prefix: what stands in front of every name of the network's.
        sizes: that it could be of, by their first layer, and whether it is.
    """

    n_tensors: int
    layout: str | None
    prefix: str
    sizes: tuple[Fit, ...]


def find_fits(source: str | Path, checkpoint: CheckpointFiles) -> Fits:
    """Try every size whose first layer is in the file, reading its tensors once; no network is held in memory.

    Args:
        source: see :func:`monai_fedlora.networks.weights_sources.find_weights`.
        checkpoint: the files found there.

    Raises:
        WeightsError: a file cannot be read, holds no tensors by name, or what would be loaded is not finite.
    """
    with opened(checkpoint, pickled=True) as tensors:
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        if any(_OF_CINES in key for key in shapes):
            return Fits(n_tensors=len(shapes), layout="CineMA", prefix="", sizes=_cines(source))
        layout, prefix = _naming(shapes, checkpoint.path)
        sizes = tuple(_images(source, checkpoint, tensors))
    return Fits(n_tensors=len(shapes), layout=layout, prefix=prefix, sizes=sizes)


def _naming(shapes: Mapping[str, Shape], path: Path) -> tuple[str | None, str]:
    try:
        found = recognise(shapes, path)
    except WeightsError:
        return None, ""
    return found.layout.title, found.prefix


def _cines(source: str | Path) -> tuple[Fit, ...]:
    rows = [row for row in BUILT_IN.values() if not isinstance(row.shape, ViTSettings)]
    try:
        checkpoint = find_file(source)
        with opened(checkpoint, pickled=False) as tensors:
            return tuple(_cine(tensors, checkpoint.path, row) for row in rows)
    except WeightsError as error:
        return tuple(Fit(architecture=row, problem=str(error)) for row in rows)


def _cine(tensors: Mapping[str, CheckpointTensor], path: Path, row: Architecture) -> Fit:
    with torch.device("meta"):
        network = build_backbone(row.name, out_chans=2)
    assert isinstance(network, ConvViT)
    try:
        read = read_cine(network, tensors, path, heads=False)
    except WeightsError as error:
        return Fit(architecture=row, problem=str(error))
    return Fit(architecture=row, n_loaded=len(read.values), skipped=read.skipped)


def _images(source: str | Path, checkpoint: CheckpointFiles, tensors: Mapping[str, CheckpointTensor]) -> list[Fit]:
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    rows = [row for row in BUILT_IN.values() if isinstance(row.shape, ViTSettings) and _could_be(row.shape, shapes)]
    finite: set[str] = set()
    return [_image(source, checkpoint, tensors, row, finite) for row in rows]


def _could_be(shape: ViTSettings, shapes: Mapping[str, Shape]) -> bool:
    """Whether a file holds the patch embedding of a size."""
    dim, patch = shape.dim, shape.patch
    return any(
        found[:1] == (dim,) and (found[2:] == (patch, patch) if len(found) == 4 else found[1:] == (3 * patch**2,))
        for found in shapes.values()
    )


def _image(
    source: str | Path,
    checkpoint: CheckpointFiles,
    tensors: Mapping[str, CheckpointTensor],
    row: Architecture,
    finite: set[str],
) -> Fit:
    """Try one size; ``finite`` are the names of tensors that were read already."""
    with torch.device("meta"):
        network = build_backbone(row.name, out_chans=2)
    assert isinstance(network, VisionTransformer)
    try:
        match = match_vision_transformer(network, checkpoint, tensors, heads=False, pinned=False)
        for name in sorted(match.names - finite):
            tensors[name].read_finite(name, checkpoint.path)
            finite.add(name)
    except WeightsError as error:
        return Fit(architecture=row, problem=str(error))
    no_texts = None
    if row.text is not None:
        try:
            read_clip(source, row.name)
        except FedLoraError as error:
            no_texts = str(error)
    return Fit(
        architecture=row,
        n_loaded=len(match.origins),
        skipped=match.skipped,
        assumed=match.assumed,
        resizing=match.resizing(network.settings) if network.settings.positions == "learned" else None,
        no_texts=no_texts,
    )
