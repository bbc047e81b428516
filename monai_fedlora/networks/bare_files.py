"""Settings that neither names nor shapes of tensors tell: the number of heads, the activation and the epsilon of norms.

What the tensors themselves give away is compared, whatever lies beside them. Where no description does, what is known
to differ among networks with the same names and shapes is refused, and what is left is as the size's name says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import CONFIG_NAME, OPEN_CLIP_CONFIG
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.layouts.ours import OURS
from monai_fedlora.networks.layouts.recognise import Recognised
from monai_fedlora.networks.layouts.timm_vit import DEIT_III
from monai_fedlora.networks.position import sincos_position
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.networks.vit_block import GATE

ASSUMED_GATE = f"activation {GATE} of gates"
_UNTOLD = ("n_heads", "activation", "norm_eps")
# Networks with rotary positions besides have DeiT III's names and shapes.
_NOT_TURNED = "that no rotary positions are added to the learned ones (as timm's vit_*_rope_ape_* adds them)"
_OPENAIS = {"input_resolution", "context_length", "vocab_size"}  # numbers that its programs keep among the weights
_MOCO_SMALL = 384
_MOCO_HEADS = 12
_NARROW = 768  # from this width on every published training has the same number of heads
_TOLERANCE = 1e-2  # above the rounding of bfloat16


def check_bare(
    found: Recognised,
    tensors: Mapping[str, CheckpointTensor],
    settings: ViTSettings,
    path: Path,
    *,
    size: str | None,
    described: bool,
    pinned: bool,
) -> tuple[str, ...]:
    """Refuse what the tensors contradict, or what nothing tells of a family that computes in more than one way.

    The activation of a CLIP is told by the numbers that OpenAI's own files hold beside the weights, and by nothing
    else. Of a network narrower than 768 whose positions are a fixed sine-cosine table the number of heads is told by
    MoCo v3's order of the axes, and by nothing else. A file that this package wrote says the size that it is of.

    Args:
        found: the vision transformer in the file.
        tensors: of the file.
        settings: of the network that is to be filled.
        path: of the file, for messages.
        size: that the file says it is of; None where it says none.
        described: whether a description lies beside the file, which the caller compared with ``settings``.
        pinned: whether the file is the one of a pin; who made the pin had all this checked, and needs no description.

    Returns:
        What was taken as the settings have it, such as ``"n_heads 12"``; nothing of a described file.

    Raises:
        WeightsError: see above; the message says what to put beside the file.
    """
    if found.layout == OURS:
        return ()
    told: dict[str, Any] = {}
    eps = found.layout.norm_eps
    if eps is not None and eps != settings.norm_eps:
        raise WeightsError(
            f"{path} is of {found.layout.title}, whose norms have an epsilon of {eps}, not {settings.norm_eps}; choose "
            "a size of that network, or build it with its owner's library and put a method into it with "
            "monai_fedlora.attach"
        )
    said = IMAGE_SIZES[size].shape if size in IMAGE_SIZES else None
    if said is not None:
        told = {name: getattr(said, name) for name in _UNTOLD}
    elif {name.rpartition(".")[2] for name in found.outside} >= _OPENAIS:
        told["activation"] = "quick_gelu"
    elif settings.pre_norm and not (described or pinned):
        raise WeightsError(_untold_activation(path))
    table = _narrow_table(found, tensors, settings) if said is None else None
    if table is not None and _is_mocos(table):
        told["n_heads"] = _MOCO_HEADS
    elif table is not None and _is_sine_cosine(table) and not (described or pinned):
        raise WeightsError(_untold_heads(path, settings))
    for name, value in told.items():
        if (own := getattr(settings, name)) != value:
            whose = _whose(name, size if said else None)
            beside = ", and take away the description beside it, which is of another network" if described else ""
            raise WeightsError(f"{path} is of {whose}, of which {name} is {value}, not {own}; choose that size{beside}")
    if described:
        return ()
    if eps is not None:
        told["norm_eps"] = eps
    assumed = [_assumed(name, settings) for name in _UNTOLD if name not in told]
    return (*assumed, *((_NOT_TURNED,) if said is None and found.layout == DEIT_III else ()))


def _assumed(name: str, settings: ViTSettings) -> str:
    if name == "activation" and settings.gated:
        return ASSUMED_GATE
    return f"{name} {getattr(settings, name)}"


def _whose(name: str, size: str | None) -> str:
    """Which network the tensors show by a setting, and its size."""
    if size is not None:
        return f"the size {size}, as it says itself"
    return "OpenAI's CLIP (sizes clip_*)" if name == "activation" else "MoCo v3's ViT-S (moco_small_16)"


def _untold_activation(path: Path) -> str:
    return (
        f"nothing beside {path} tells its activation, and CLIPs of the same names and shapes compute with two: with "
        "the quick GELU those of OpenAI, MetaCLIP, DFN and OpenCLIP's models named -quickgelu (sizes clip_*), with the "
        f"exact one most others (sizes open_clip_*). Put the owner's {CONFIG_NAME} or {OPEN_CLIP_CONFIG} beside it; "
        f'for weights that you trained with OpenCLIP, write {{"model_cfg": MODEL, "preprocess_cfg": {{}}}} into an '
        f"{OPEN_CLIP_CONFIG}, where MODEL is the content of its file in open_clip/model_configs"
    )


def _untold_heads(path: Path, settings: ViTSettings) -> str:
    architecture = '{"architecture": "vit_small_patch16_224", "model_args": {"num_heads": HEADS}, "pretrained_cfg": {}}'
    return (
        f"nothing beside {path} tells its number of heads: its positions are a fixed sine-cosine table, as of masked "
        f"auto-encoders, whose networks of {settings.dim} channels are trained with 3, 6 or 12 heads under the same "
        f"names. Put the owner's {CONFIG_NAME} beside it, or write what the training's code says into one: "
        f"{architecture}"
    )


def _narrow_table(
    found: Recognised, tensors: Mapping[str, CheckpointTensor], settings: ViTSettings
) -> torch.Tensor | None:
    """The positions (N, D) of a square of patches, of a narrow network; None of any other."""
    name = found.names.get(str(found.layout.position))
    if settings.dim >= _NARROW or name is None or tensors[name].shape[-1] != settings.dim:
        return None
    rows = tensors[name].read().float().reshape(-1, settings.dim)
    return rows[len(rows) - math.isqrt(len(rows)) ** 2 :]


def _is_sine_cosine(table: torch.Tensor) -> bool:
    """Whether it is MAE's, of the columns first."""
    return _close(table, _of_columns_first(table))


def _is_mocos(table: torch.Tensor) -> bool:
    """Whether it is MoCo v3's, of the rows first, as its small network has it."""
    half = table.shape[1] // 2
    rows_first = _of_columns_first(table).roll(half, dims=1)
    return table.shape[1] == _MOCO_SMALL and _close(table, rows_first)


def _of_columns_first(table: torch.Tensor) -> torch.Tensor:
    side = math.isqrt(len(table))
    return sincos_position(table.shape[1], (side, side))


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < _TOLERANCE)
