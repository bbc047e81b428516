"""What a ``config.json`` of timm, as its hub folders have one, says about a vision transformer.

It names an architecture, whose name tells the number of heads and the activation, and the arguments that differ
(:mod:`monai_fedlora.networks.timm_arguments`). Some of timm's SigLIPs compute the exact GELU, and so do its CLIPs with
weights of OpenAI and others; they are taken as their authors' code computes, and transformers', with the approximate
and with the quick one.

Only DINOv2's giants are gated by their architecture; of others that are, who builds them says so beside the
description, and what gates: without a word timm's code would do it by a GELU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.timm_arguments import said_by_arguments
from monai_fedlora.networks.vit_block import GATE

_HEADS = {"tiny": 3, "small": 6, "medium": 8, "base": 12, "large": 16, "huge": 16, "giant": 16, "so400m": 16}
_HEADS_OF_WIDE_GIANTS = 24  # of DINOv2's, whose tokens are wider than those of the first ViT-g
_WIDE = 1536
# Published weights that were trained with the quick GELU, which timm's architecture of the same name does not compute;
# its own notes say so of most.
_QUICK_TAGS = {"openai", "dfn2b", "dfn5b", "metaclip_400m", "metaclip_2pt5b", "metaclip2_worldwide"}


def is_timm(content: Any) -> bool:
    """Whether a ``config.json`` is timm's."""
    return isinstance(content, Mapping) and "pretrained_cfg" in content and isinstance(content.get("architecture"), str)


def timm_settings(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What timm says, by the names of :class:`~monai_fedlora.networks.vit.ViTSettings`.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        WeightsError: it is of no plain vision transformer, has an argument that is not computed here, or does not say
            the activation of a network that was trained further.
    """
    name = str(content["architecture"]).partition(".")[0]
    if "dinov3" in name:
        raise WeightsError(
            f"{path} describes timm's {name}, whose names and biases are timm's alone; take the release of its owner, "
            "such as facebook/dinov3-vitb16-pretrain-lvd1689m"
        )
    # Positions that are turned or added inside blocks leave no trace among the tensors, nor do norms behind layers.
    if not re.match(r"(vit|deit3?)_", name) or re.search(r"_(rope|s?relpos|pe|rpn|lingbot|sapiens2)(_|$)", name):
        raise WeightsError(
            f"{path} describes timm's {name}, which is not supported; bring the network itself by a plug-in or by "
            "monai_fedlora.attach"
        )
    given = content.get("model_args") or {}
    if not isinstance(given, Mapping):
        raise WeightsError(f"{path} says model_args {given!r:.80}, which are no arguments by name; it is damaged")
    parts = f"{name}_"
    pool = "avg" if "_gap_" in parts else "map" if "_siglip_" in parts else "token"
    said: dict[str, Any] = {"norm_eps": 1e-5 if "_clip_" in parts else 1e-6}
    if "_giant_" in parts and "dinov2" in parts:
        said |= {"gated": True, "gate": GATE}
    said |= said_by_arguments(given, path, pool=pool)
    if isinstance(content.get("num_features"), int):
        said["dim"] = content["num_features"]
    if (heads := _heads(parts, said.get("dim"))) is not None:
        said.setdefault("n_heads", heads)
    if "activation" not in said:
        said["activation"] = _activation(parts, content, path)
    return said


def _heads(parts: str, dim: int | None) -> int | None:
    """Of an architecture; None where its name does not tell."""
    size = re.search(r"_(tiny|small|medium|base|large|huge|giant|so400m)_", parts)
    if size is None or "_plus_" in parts:
        return None
    if size[1] == "base" and "_patch16_gap_" in parts:
        return _HEADS["large"]
    wide = size[1] == "giant" and ("dinov2" in parts or dim == _WIDE)
    return _HEADS_OF_WIDE_GIANTS if wide else _HEADS[size[1]]


def _activation(parts: str, content: Mapping[str, Any], path: Path) -> str:
    """Of an architecture, or of the published weights whose tag it has."""
    if "quickgelu" in parts:
        return "quick_gelu"
    if "_siglip_" in parts:
        return "gelu_tanh"
    cfg = content.get("pretrained_cfg")
    if "_clip_" not in parts or not isinstance(cfg, Mapping) or not _is_quick(cfg, str(content["architecture"])):
        return "gelu"
    if content.get("num_classes", cfg.get("num_classes")) != cfg.get("num_classes", content.get("num_classes")):
        raise WeightsError(
            f"{path} describes a network that was trained further from weights of a quick GELU, and does not say its "
            'own activation; say it in its model_args: "act_layer": "gelu", which timm\'s architecture computes, or '
            '"act_layer": "quick_gelu"'
        )
    return "quick_gelu"


def _is_quick(cfg: Mapping[str, Any], architecture: str) -> bool:
    notes = str(cfg.get("notes") or "").lower()
    return "quickgelu" in notes or str(cfg.get("tag") or architecture.partition(".")[2]) in _QUICK_TAGS
