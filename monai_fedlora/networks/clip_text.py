"""Loading what a CLIP checkpoint knows of texts: its text tower, its projections and its temperature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import CheckpointFiles, CheckpointTensor, listed, opened
from monai_fedlora.networks.text import TextSettings, TextTransformer
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.vit_config import config_beside, read_config
from monai_fedlora.networks.vit_layouts import CLIP

_TEXT, _IMAGE, _PROJECTION, _SCALE = "text_model.", "vision_model.", "visual_projection.weight", "logit_scale"
_OWN_PROJECTION = "projection.weight"
_IGNORED = f"{_TEXT}embeddings.position_ids"
_MODULES = {
    "token.weight": "embeddings.token_embedding.weight",
    "position": "embeddings.position_embedding.weight",
    "norm.weight": "final_layer_norm.weight",
    "norm.bias": "final_layer_norm.bias",
}
# What configs written before the end token was corrected call it; transformers then takes the highest token.
_OLD_END = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipText:
    """The text side of a CLIP checkpoint.

    Attributes:
        tower: frozen, in evaluation mode.
        projection: (E, D) float32, of images' pooled features to what is compared with texts.
        logit_scale: logarithm of what cosines are multiplied by.
    """

    tower: TextTransformer
    projection: torch.Tensor
    logit_scale: float


def published_name(key: str) -> str:
    """The name that transformers gives to a tensor of a :class:`TextTransformer`."""
    if key == _OWN_PROJECTION:
        return "text_projection.weight"
    if key in _MODULES:
        return _TEXT + _MODULES[key]
    _, number, module = key.split(".", 2)
    module, _, leaf = module.rpartition(".")
    return f"{_TEXT}encoder.layers.{number}.{CLIP.block_modules[module]}.{leaf}"


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
    state = {str(CLIP.origin(key, _IMAGE).key): value for key, value in own.items()}
    table = own["embed.position"][0]
    state[_IMAGE + CLIP.position] = torch.cat([torch.zeros_like(table[:1]), table])
    state[_IMAGE + CLIP.cls] = own["embed.cls"][0, 0]
    state |= {published_name(key): value for key, value in text.state_dict().items()}
    return state | {_PROJECTION: projection, _SCALE: logit_scale}


def load_clip_text(checkpoint: CheckpointFiles, settings: TextSettings, *, dim: int) -> ClipText:
    """Read the text side of a checkpoint in transformers' layout.

    Args:
        checkpoint: the files, which hold the image tower too.
        settings: the text tower's shape.
        dim: width of the image tower.

    Raises:
        WeightsError: the files are unreadable, hold no text tower or one of another shape, or towers that do not belong
            together; the message names the file and the keys.
    """
    path = checkpoint.path
    config = checkpoint.config or config_beside(path)
    if config is not None:
        _check_config(config, settings)
    with torch.device("meta"):
        tower = TextTransformer(settings)
    own = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
    names = {key: published_name(key) for key in own}
    with opened(checkpoint, pickled=True) as tensors:
        _check_keys({*names.values(), _PROJECTION, _SCALE}, tensors, path)
        _check_widths(names[_OWN_PROJECTION], tensors, settings, dim, path)
        if wrong := [
            f"{name} is {tensors[name].shape} instead of {own[key]}"
            for key, name in names.items()
            if tensors[name].shape != own[key]
        ]:
            raise WeightsError(f"{path} holds another text tower: {listed(wrong)}; choose the size to fit")
        values = {key: tensors[name].read_finite(name, path).float() for key, name in names.items()}
        projection = tensors[_PROJECTION].read_finite(_PROJECTION, path).float()
        scale = tensors[_SCALE].read_finite(_SCALE, path)
    tower.load_state_dict(values, assign=True)
    return ClipText(tower=tower.eval().requires_grad_(False), projection=projection, logit_scale=float(scale))


def _check_keys(wanted: set[str], tensors: Mapping[str, CheckpointTensor], path: Path) -> None:
    if not any(key.startswith(_TEXT) for key in tensors):
        raise WeightsError(
            f"{path} holds no text tower (tensors called {_TEXT}...); a whole CLIP checkpoint in transformers' layout "
            "is needed, not its image tower alone"
        )
    missing = sorted(wanted - tensors.keys())
    unknown = sorted(key for key in tensors.keys() - wanted if key.startswith(_TEXT) and key != _IGNORED)
    problems = [f"it lacks {listed(missing)}"] if missing else []
    if unknown:
        problems.append(f"there is no place for {listed(unknown)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit the text tower: {'; '.join(problems)}; it is incomplete, or of another size"
        )


def _check_widths(
    text: str, tensors: Mapping[str, CheckpointTensor], settings: TextSettings, dim: int, path: Path
) -> None:
    """Refuse towers whose projections do not meet."""
    ours, theirs = tensors[text].shape, tensors[_PROJECTION].shape
    if len(ours) != 2 or len(theirs) != 2 or tensors[_SCALE].shape not in ((), (1,)):
        raise WeightsError(f"{path} is damaged: {text}, {_PROJECTION} or {_SCALE} has another number of dimensions")
    if ours[0] != theirs[0]:
        raise WeightsError(
            f"{path} holds towers of different checkpoints: {text} gives {ours[0]} numbers and {_PROJECTION} "
            f"{theirs[0]}, which cannot be compared"
        )
    if theirs != (settings.embed_dim, dim):
        raise WeightsError(
            f"{path}: {_PROJECTION} is {theirs} instead of {(settings.embed_dim, dim)}; choose the size to fit"
        )


def _check_config(path: Path, settings: TextSettings) -> None:
    """Refuse a description of another text tower; the message names every difference."""
    config = getattr(read_config(path), "text_config", None)
    if config is None:
        raise WeightsError(f"{path} describes no text tower; a whole CLIP checkpoint is needed")
    described = {
        "vocab_size": (config.vocab_size, settings.vocabulary),
        "max_position_embeddings": (config.max_position_embeddings, settings.context),
        "hidden_size": (config.hidden_size, settings.dim),
        "num_hidden_layers": (config.num_hidden_layers, settings.depth),
        "num_attention_heads": (config.num_attention_heads, settings.n_heads),
        "intermediate_size": (config.intermediate_size, settings.dim * settings.mlp_ratio),
        "hidden_act": (config.hidden_act, settings.activation),
        "layer_norm_eps": (config.layer_norm_eps, settings.norm_eps),
    }
    different = [f"{name} is {found} instead of {own}" for name, (found, own) in described.items() if found != own]
    if config.eos_token_id not in (settings.end, _OLD_END):
        different.append(f"eos_token_id is {config.eos_token_id} instead of {settings.end}")
    if different:
        raise WeightsError(f"{path} describes another text tower: {'; '.join(different)}; choose the size to fit")
