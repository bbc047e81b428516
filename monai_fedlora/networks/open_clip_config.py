"""What an ``open_clip_config.json`` says about the towers that lie beside it.

OpenCLIP writes one into a hub folder: ``model_cfg`` describes the towers, ``preprocess_cfg`` the images. What a field
leaves out has OpenCLIP's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.checkpoint_files import OPEN_CLIP_CONFIG
from monai_fedlora.networks.timm_config import timm_settings

# Ways of timm to read tokens; an empty one is that of the tower's name.
_POOLS = {"token": "cls", "tok": "cls", "avg": "mean_of_norm", "map": "map"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipConfig:
    """The description.

    Attributes:
        path: the file.
        embed_dim: length of the vectors that are compared.
        quick_gelu: whether its own towers compute with it.
        vision: ``vision_cfg``.
        text: ``text_cfg``.
        preprocess: ``preprocess_cfg``.
    """

    path: Path
    embed_dim: int
    quick_gelu: bool
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    preprocess: Mapping[str, Any]

    def activation(self, tower: Mapping[str, Any]) -> str:
        """Our name of the activation of one of its own towers."""
        if self.quick_gelu:
            return "quick_gelu"
        return "gelu_tanh" if within(tower, "act_kwargs").get("approximate") == "tanh" else "gelu"

    def image_settings(self) -> dict[str, Any]:
        """What it says of the image tower, by the names of :class:`monai_fedlora.networks.vit.ViTSettings`.

        Raises:
            WeightsError: the image tower is none of ours.
        """
        vision = self.vision
        try:
            return self._image_settings(vision)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise WeightsError(f"{self.path} describes sizes that are no numbers ({error}); it is damaged") from error

    def _image_settings(self, vision: Mapping[str, Any]) -> dict[str, Any]:
        if "timm_model_name" in vision:
            return {"image_size": _pair(vision.get("image_size", 224)), **self._of_timm(vision)}
        others: dict[str, Any] = {
            "attentional_pool": False,
            "attn_pooler": False,
            "final_ln_after_pool": False,
            "no_ln_pre": False,
        }
        others |= {"pos_embed_type": "learnable", "pool_type": "tok", "input_patchnorm": False}
        for name, own in others.items():
            if vision.get(name, own) != own:
                raise WeightsError(f"{self.path} describes an image tower with {name} {vision[name]!r}; not supported")
        if not isinstance(vision.get("layers", 12), int):
            raise WeightsError(f"{self.path} describes a convolutional image tower (a ResNet), which is not supported")
        width = vision.get("width", 768)
        return {
            "image_size": _pair(vision.get("image_size", 224)),
            "patch": vision.get("patch_size", 16),
            "dim": width,
            "depth": vision.get("layers", 12),
            "n_heads": width // vision.get("head_width", 64),
            "mlp_width": int(width * vision.get("mlp_ratio", 4)),
            "activation": self.activation(vision),
            "norm_eps": within(vision, "norm_kwargs").get("eps", 1e-5),
            "layer_scale": vision.get("ls_init_value") is not None,
        }

    def _of_timm(self, vision: Mapping[str, Any]) -> dict[str, Any]:
        """Of an image tower of timm's: what its name tells, and how its tokens are read."""
        given = within(vision, "timm_model_kwargs")
        said = timm_settings({"architecture": vision["timm_model_name"], "model_args": given}, self.path)
        pool = vision.get("timm_pool", "avg")
        if pool and pool not in _POOLS:
            raise WeightsError(f"{self.path} describes an image tower with timm_pool {pool!r}; not supported")
        return said | ({"readout": _POOLS[pool]} if pool else {})


def open_clip_config_beside(weights: Path) -> Path | None:
    """The ``open_clip_config.json`` beside a weights file, or in a folder of them; None where there is none."""
    path = (weights if weights.is_dir() else weights.parent) / OPEN_CLIP_CONFIG
    return path if path.is_file() else None


def read_open_clip_config(path: Path) -> OpenClipConfig:
    """Read one.

    Raises:
        WeightsError: it is damaged, or says nothing of two towers; the message names the file.
    """
    try:
        content = files.read_json(path)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error
    model = within(content, "model_cfg") if isinstance(content, Mapping) else {}
    if not isinstance(model.get("embed_dim"), int) or not within(model, "vision_cfg") or "text_cfg" not in model:
        raise WeightsError(f"{path} does not describe two towers; it is damaged or not OpenCLIP's")
    return OpenClipConfig(
        path=path,
        embed_dim=model["embed_dim"],
        quick_gelu=bool(model.get("quick_gelu", False)),
        vision=within(model, "vision_cfg"),
        text=within(model, "text_cfg"),
        preprocess=within(content, "preprocess_cfg"),
    )


def within(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a description; empty where it is missing."""
    value = content.get(name)
    return value if isinstance(value, Mapping) else {}


def _pair(size: Any) -> Any:
    return (size, size) if isinstance(size, int) else tuple(size)
