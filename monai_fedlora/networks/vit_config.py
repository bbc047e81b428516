"""Comparing the ``config.json`` beside published weights with the architecture they are loaded into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.bare_files import ASSUMED_GATE
from monai_fedlora.networks.checkpoint_files import CONFIG_NAME
from monai_fedlora.networks.layouts.others import other_type
from monai_fedlora.networks.open_clip_config import read_open_clip_config
from monai_fedlora.networks.rotary import PERIOD_BASE
from monai_fedlora.networks.timm_config import is_timm, timm_settings
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.networks.vit_block import GATE

_KNOWN_TYPES = (
    *("vit", "vit_mae", "vit_msn", "deit", "ijepa", "dpt", "dinov2", "dinov2_with_registers", "dinov3_vit"),
    *("clip", "clip_vision_model", "clipseg", "clipseg_vision_model", "siglip", "siglip_vision_model"),
    *("metaclip_2", "metaclip_2_vision_model", "chinese_clip", "chinese_clip_vision_model"),
)
_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}  # transformers' words for ours
# Layer norms' epsilons that differ by no more (1e-12 and 1e-6 are both common) give features that agree to rounding.
_EPS_TOLERANCE = 1e-6


def check_config(path: Path, settings: ViTSettings) -> tuple[str, ...]:
    """Refuse a model of ``transformers`` or of timm that is not of this shape.

    The image size may differ, because positions are interpolated.

    Args:
        path: a file ``config.json``.
        settings: of the network that is to be filled.

    Returns:
        What it leaves open and was taken as the settings have it.

    Raises:
        WeightsError: the file cannot be read, is of an unknown kind, or describes another shape; the message names
            every difference.
    """
    content = _content(path)
    if is_timm(content):
        said = timm_settings(content, path)
        _check_said(said, settings, path)
        return (ASSUMED_GATE,) if settings.gated and "gate" not in said else ()
    config = read_config(path)
    # A network for dense predictions around one that it describes apart.
    config = getattr(config, "backbone_config", None) or config
    if config.model_type not in _KNOWN_TYPES or getattr(config, "is_hybrid", False):
        raise WeightsError(_not_supported(path, config.model_type))
    config = getattr(config, "vision_config", config)
    gated = bool(getattr(config, "use_swiglu_ffn", False))
    hidden = getattr(config, "intermediate_size", None)
    if hidden is None:
        hidden = int(config.hidden_size * config.mlp_ratio)
    registers = getattr(config, "num_register_tokens", int(config.model_type == "deit"))
    described: dict[str, tuple[Any, Any]] = {
        "hidden_size": (config.hidden_size, settings.dim),
        "num_hidden_layers": (config.num_hidden_layers, settings.depth),
        "num_attention_heads": (config.num_attention_heads, settings.n_heads),
        "intermediate_size": (_gated_width(hidden) if gated else hidden, settings.mlp_width),
        "num_register_tokens": (registers, settings.registers),
        "patch_size": (_side(config.patch_size), settings.patch),
        "qkv_bias": (getattr(config, "qkv_bias", True), settings.qkv_bias),
    }
    if config.model_type == "dinov3_vit":
        described |= {
            "hidden_act": (config.hidden_act, GATE if settings.gated else settings.activation),
            "qkv_bias": (config.query_bias and config.value_bias, settings.qkv_bias),
            "key_bias": (config.key_bias, settings.key_bias),
            "use_gated_mlp": (config.use_gated_mlp, settings.gated),
            "rope_theta": (config.rope_theta, PERIOD_BASE),
        }
    else:
        described["use_swiglu_ffn"] = (gated, settings.gated)
        if not gated:
            described["hidden_act"] = (config.hidden_act, _ACTIVATIONS.get(settings.activation, settings.activation))
    different = [f"{name} is {found} instead of {own}" for name, (found, own) in described.items() if found != own]
    if abs(config.layer_norm_eps - settings.norm_eps) > _EPS_TOLERANCE:
        different.append(f"layer_norm_eps is {config.layer_norm_eps} instead of {settings.norm_eps}")
    if different:
        raise WeightsError(f"{path} describes another architecture: {'; '.join(different)}; choose the size to fit")
    return ()


def _not_supported(path: Path, model_type: str) -> str:
    other = other_type(model_type)
    known = f"known are {', '.join(_KNOWN_TYPES)}. A network of another kind is brought by a plug-in or by "
    return (
        f"{path} is of model type {model_type!r}, which is not supported; "
        f"{other.sentence if other else f'{known}monai_fedlora.attach'}. Where the description is of other weights, "
        "keep these in a folder of their own"
    )


def check_open_clip(path: Path, settings: ViTSettings) -> None:
    """Refuse an OpenCLIP's image tower that is not of this shape.

    The image size may differ, because positions are interpolated.

    Args:
        path: a file ``open_clip_config.json``.
        settings: of the network that is to be filled.

    Raises:
        WeightsError: the file cannot be read, or describes another shape; the message names every difference.
    """
    said = read_open_clip_config(path).image_settings()
    del said["image_size"]
    _check_said(said, settings, path)


def _side(size: Any) -> Any:
    """A square's side, which may be written twice."""
    return size[0] if isinstance(size, (list, tuple)) and len(set(size)) == 1 else size


def _gated_width(hidden: int) -> int:
    """The hidden width of DINOv2's gated MLP: two thirds of a plain one's, rounded up to a multiple of 8."""
    return (int(hidden * 2 / 3) + 7) // 8 * 8


def _check_said(said: Mapping[str, Any], settings: ViTSettings, path: Path) -> None:
    """Refuse what differs from what is said by the names of our settings."""
    different = [
        f"{name} is {value} instead of {own}"
        for name, value in said.items()
        if (own := GATE if name == "gate" else getattr(settings, name)) != value
        and not (name == "norm_eps" and abs(own - value) <= _EPS_TOLERANCE)
        and name != ("activation" if settings.gated else "gate")
    ]
    if different:
        raise WeightsError(f"{path} describes another architecture: {'; '.join(different)}; choose the size to fit")


def config_beside(weights: Path) -> Path | None:
    """The ``config.json`` of ``transformers`` or timm beside a weights file, of whatever model; None where none is.

    Names and shapes of tensors do not tell every architecture apart: CLIP with another activation has the same.

    Raises:
        WeightsError: the file is damaged.
    """
    path = weights.parent / CONFIG_NAME
    if not path.is_file():
        return None
    content = _content(path)
    described = isinstance(content, dict) and (isinstance(content.get("model_type"), str) or is_timm(content))
    return path if described else None


def _content(path: Path) -> Any:
    try:
        return files.read_json(path)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error


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
            "damaged, or of another library or of code of its own: then take the weights file into a folder of its own"
        ) from error
