"""Comparing the ``config.json`` beside published weights with the architecture they are loaded into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.checkpoint_files import CONFIG_NAME
from monai_fedlora.networks.vit import CHANNELS, ViTSettings

_KNOWN_TYPES = ("vit", "vit_mae", "dinov2", "clip", "clip_vision_model")
# Layer norms' epsilons that differ by no more (1e-12 and 1e-6 are both common) give features that agree to rounding.
_EPS_TOLERANCE = 1e-6


def check_config(path: Path, settings: ViTSettings) -> None:
    """Refuse a model of ``transformers`` that is not of this shape.

    The image size may differ, because positions are interpolated.

    Args:
        path: a file ``config.json``.
        settings: of the network that is to be filled.

    Raises:
        WeightsError: the file cannot be read, is of an unknown kind, or describes another shape; the message names
            every difference.
    """
    config = read_config(path)
    if config.model_type not in _KNOWN_TYPES:
        raise WeightsError(
            f"{path} is of model type {config.model_type!r}, which is not supported; known are "
            f"{', '.join(_KNOWN_TYPES)}"
        )
    config = getattr(config, "vision_config", config)
    if getattr(config, "use_swiglu_ffn", False):
        raise WeightsError(f"{path} describes gated MLPs (SwiGLU, as in DINOv2 giant), which are not supported")
    hidden = getattr(config, "intermediate_size", None) or config.hidden_size * config.mlp_ratio
    described = {
        "hidden_size": (config.hidden_size, settings.dim),
        "num_hidden_layers": (config.num_hidden_layers, settings.depth),
        "num_attention_heads": (config.num_attention_heads, settings.n_heads),
        "intermediate_size": (hidden, settings.dim * settings.mlp_ratio),
        "patch_size": (config.patch_size, settings.patch),
        "num_channels": (config.num_channels, CHANNELS),
        "hidden_act": (config.hidden_act, settings.activation),
        "qkv_bias": (getattr(config, "qkv_bias", True), settings.qkv_bias),
    }
    different = [f"{name} is {found} instead of {own}" for name, (found, own) in described.items() if found != own]
    if abs(config.layer_norm_eps - settings.norm_eps) > _EPS_TOLERANCE:
        different.append(f"layer_norm_eps is {config.layer_norm_eps} instead of {settings.norm_eps}")
    if different:
        raise WeightsError(f"{path} describes another architecture: {'; '.join(different)}; choose the size to fit")


def config_beside(weights: Path) -> Path | None:
    """The ``config.json`` of ``transformers`` beside a weights file; None where there is none, or one of another kind.

    Names and shapes of tensors do not tell every architecture apart: CLIP with another activation has the same.
    """
    path = weights.parent / CONFIG_NAME
    if not path.is_file():
        return None
    try:
        content = files.read_json(path)
    except FedLoraError:
        return None
    known = isinstance(content, dict) and content.get("model_type") in _KNOWN_TYPES
    return path if known else None


def read_config(path: Path) -> Any:
    """What transformers makes of a ``config.json``.

    Raises:
        WeightsError: it makes nothing of it; the message names the file.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises its own, the JSON parser's and the validation's errors
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"{path} is not understood by transformers ({reason[0] if reason else type(error).__name__}); it may be "
            "damaged, or of another library: then give the path of the weights file itself"
        ) from error
