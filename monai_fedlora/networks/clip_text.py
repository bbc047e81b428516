"""Loading what a checkpoint knows of texts: its text tower, its projections and its temperature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.bert import BertSettings, BertTransformer
from monai_fedlora.networks.checkpoint_files import CheckpointFiles, listed
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor, Shape, opened
from monai_fedlora.networks.layouts.clip import CLIP
from monai_fedlora.networks.text import TextSettings, TextTransformer
from monai_fedlora.networks.text_config import check_text_config
from monai_fedlora.networks.text_layouts import HF_CLIP, SCALE, TextLayout, TextOrigin, find_text_layout
from monai_fedlora.networks.vit import VisionTransformer

TextShape = TextSettings | BertSettings
TextTower = TextTransformer | BertTransformer
Stored = Mapping[str, CheckpointTensor]

_IMAGE = "vision_model."
_PROJECTIONS = ("projection.2.weight", "projection.weight")  # what a text tower ends with


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipText:
    """The text side of a checkpoint.

    Attributes:
        tower: frozen, in evaluation mode.
        projection: (E, D) float32, of images' pooled features to what is compared with texts; the identity where they
            are compared as they are.
        logit_scale: logarithm of what cosines are multiplied by. What a sigmoid loss adds to all of them alike changes
            no softmax over classes, and is left out.
    """

    tower: TextTower
    projection: torch.Tensor
    logit_scale: float


def load_clip_text(checkpoint: CheckpointFiles, settings: TextShape, *, dim: int) -> ClipText:
    """Read the text side of a checkpoint in one of the layouts of :mod:`monai_fedlora.networks.text_layouts`.

    Args:
        checkpoint: the files, which hold the image tower too.
        settings: the text tower's shape.
        dim: width of the image tower.

    Raises:
        WeightsError: the files are unreadable, hold no text tower or one of another shape, or towers that do not belong
            together; the message names the file and the keys.
    """
    path = checkpoint.path
    check_text_config(checkpoint, settings)
    with torch.device("meta"):
        tower = settings.build()
    own = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
    with opened(checkpoint, pickled=True) as tensors:
        layout, prefix = _layout(tensors, own, path)
        origins = {key: origin for key in own if (origin := layout.origin(key, prefix))}
        image = None if layout.image_projection is None else prefix + layout.image_projection
        scale = prefix + SCALE
        _check_keys(layout, prefix, origins, [name for name in (image, scale) if name], tensors, path)
        _check_widths(layout, origins, tensors, image, scale, (settings.embed_dim, dim), path)
        _check_shapes(origins, own, tensors, path)
        values = {key: _read(origin, tensors, path) for key, origin in origins.items()}
        projection = torch.eye(dim) if image is None else tensors[image].read_finite(image, path).float()
        temperature = float(tensors[scale].read_finite(scale, path))
    tower.load_state_dict(values, assign=True)
    return ClipText(
        tower=tower.eval().requires_grad_(False),
        projection=(projection.T if layout.transposed else projection).contiguous(),
        logit_scale=temperature,
    )


def clip_state(
    image: VisionTransformer, text: TextTransformer, *, projection: torch.Tensor, logit_scale: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Both towers of a CLIP under the names of transformers, its position of the class token being part of the token.

    Args:
        image: the image tower; its head is left out.
        text: the text tower.
        projection: (E, D) of the image tower's pooled features.
        logit_scale: logarithm of what cosines are multiplied by, a scalar.
    """
    own = {key: value for key, value in image.state_dict().items() if not key.startswith(image.head_prefixes)}
    state = {f"{_IMAGE}{CLIP.origin(key).key}": value for key, value in own.items()}
    table = own["embed.position"][0]
    state[f"{_IMAGE}{CLIP.position}"] = torch.cat([torch.zeros_like(table[:1]), table])
    state[f"{_IMAGE}{CLIP.cls}"] = own["embed.cls"][0, 0]
    origins = {key: HF_CLIP.origin(key) for key in text.state_dict()}
    state |= {origin.key: text.state_dict()[key] for key, origin in origins.items() if origin}
    return state | {str(HF_CLIP.image_projection): projection, SCALE: logit_scale}


def _layout(tensors: Stored, own: Mapping[str, Shape], path: Path) -> tuple[TextLayout, str]:
    try:
        found = find_text_layout(tensors.keys(), own)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if found is None:
        raise WeightsError(
            f"{path} holds no text tower of this kind; the whole checkpoint is needed, in the layout of transformers "
            "or of OpenCLIP, not its image tower alone"
        )
    return found


def _check_keys(
    layout: TextLayout,
    prefix: str,
    origins: Mapping[str, TextOrigin],
    beside: list[str],
    tensors: Stored,
    path: Path,
) -> None:
    rows = [origin.row for origin in origins.values() if origin.row]
    wanted = {*(origin.key for origin in origins.values()), *rows, *beside}
    missing = sorted(wanted - tensors.keys())
    unknown = layout.unused(tensors.keys(), wanted, prefix)
    problems = [f"it lacks {listed(missing)}"] if missing else []
    if unknown:
        problems.append(f"there is no place for {listed(unknown)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit the text tower: {'; '.join(problems)} (read as {layout.title}); it is incomplete, or "
            "of another size"
        )


def _check_shapes(origins: Mapping[str, TextOrigin], own: Mapping[str, Shape], tensors: Stored, path: Path) -> None:
    wrong = []
    for key, origin in origins.items():
        found, expected = tensors[origin.key].shape, own[key]
        if origin.third is not None:
            expected = (3 * expected[0], *expected[1:])
        if origin.transposed:
            expected = expected[::-1]
        if found != expected:
            wrong.append(f"{origin.key} is {found} instead of {expected}")
        if origin.row and tensors[origin.row].shape[1:] != expected[1:]:
            wrong.append(f"{origin.row} is {tensors[origin.row].shape} instead of (1 or more, {expected[1]})")
    if wrong:
        raise WeightsError(
            f"{path} holds another text tower: {listed(list(dict.fromkeys(wrong)))}; choose the size to fit"
        )


def _check_widths(
    layout: TextLayout,
    origins: Mapping[str, TextOrigin],
    tensors: Stored,
    image: str | None,
    scale: str,
    expected: tuple[int, int],
    path: Path,
) -> None:
    """Refuse towers whose projections do not meet; ``expected`` is (E, D)."""
    text = next(origins[key].key for key in _PROJECTIONS if key in origins)
    step = -1 if layout.transposed else 1
    ours = tensors[text].shape[::step]
    theirs = expected if image is None else tensors[image].shape[::step]
    if len(ours) != 2 or len(theirs) != 2 or tensors[scale].shape not in ((), (1,)):
        raise WeightsError(f"{path} is damaged: {text}, {image} or {scale} has another number of dimensions")
    if ours[0] != theirs[0] and image is not None:
        raise WeightsError(
            f"{path} holds towers of different checkpoints: {text} gives {ours[0]} numbers and {image} {theirs[0]}, "
            "which cannot be compared"
        )
    if theirs != expected:
        raise WeightsError(f"{path}: {image} is {theirs[::step]} instead of {expected[::step]}; choose the size to fit")
    if image is None and expected[0] != expected[1]:
        raise WeightsError(
            f"{path} compares image features as they are, {expected[1]} numbers, with texts of {expected[0]}; choose "
            "the size to fit"
        )


def _read(origin: TextOrigin, tensors: Stored, path: Path) -> torch.Tensor:
    """Our tensor in float32, refused if it is not finite."""
    value = tensors[origin.key].read_finite(origin.key, path).float()
    if origin.third is not None:
        value = value.chunk(3)[origin.third].clone()
    if origin.row is not None:
        value = value + tensors[origin.row].read_finite(origin.row, path).float()[0]
    return value.T.contiguous() if origin.transposed else value
