"""Adapters as the folders that PEFT reads and writes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.files import load_tensors, make_folder, read_json, save_tensors

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
HEAD_NAME = "head.safetensors"
_PREFIX = "base_model.model."
_SPECIAL = ("use_dora", "use_rslora", "bias", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern")


def save_peft_folder(network: Any, adapter: str, folder: Path) -> None:
    """Write one adapter of an adapted network so that ``PeftModel.from_pretrained(backbone, folder)`` loads it.

    Args:
        network: network adapted by :func:`monai_fedlora.adapters.lora.attach_lora`.
        adapter: which of its adapters.
        folder: created if needed; receives ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        WeightsError: the network has no such adapter; nothing is written.
    """
    tensors = {
        _PREFIX + key.replace(f".{adapter}.", "."): value
        for key, value in network.state_dict().items()
        if f".lora_A.{adapter}." in key or f".lora_B.{adapter}." in key
    }
    if not tensors:
        raise WeightsError(f"the network has no adapter called {adapter!r}")
    make_folder(folder)
    save_tensors(folder / WEIGHTS_NAME, tensors, {"format": "pt"})
    network.peft_config[adapter].save_pretrained(folder)


def load_peft_folder(folder: Path, adapter: str, *, scale: float | None = None) -> dict[str, Tensor]:
    """Read a LoRA folder as state-dict entries of an adapter called ``adapter``.

    Args:
        folder: written by PEFT or by :func:`save_peft_folder`.
        adapter: name for the entries.
        scale: alpha / r of the network that the entries are for; where the folder's differs, its B are multiplied
            by the ratio, so that the adapter does the same. None returns the tensors as they are stored.

    Raises:
        WeightsError: the folder is incomplete, or holds something else than LoRA weights; files are named.
    """
    stored = _scale_of(folder / CONFIG_NAME)
    ratio = stored / scale if scale else 1.0
    tensors, _ = load_tensors(folder / WEIGHTS_NAME)
    renamed = {}
    for key, value in tensors.items():
        stem, _, factor = key.removesuffix(".weight").rpartition(".")
        if factor not in ("lora_A", "lora_B") or not key.endswith(".weight"):
            raise WeightsError(f"{folder / WEIGHTS_NAME} holds {key!r}, which is not a LoRA factor")
        changed = factor == "lora_B" and ratio != 1.0
        renamed[f"{stem.removeprefix(_PREFIX)}.{factor}.{adapter}.weight"] = value * ratio if changed else value
    return renamed


def _scale_of(path: Path) -> float:
    """The alpha / r of a plain LoRA's configuration; anything but a plain LoRA is refused."""
    try:
        config = read_json(path)
    except FedLoraError as error:
        raise WeightsError(f"{error}; a PEFT adapter folder needs it") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise WeightsError(f"{path} does not describe a LoRA adapter")
    if special := [name for name in _SPECIAL if config.get(name) not in (None, False, "none", {})]:
        raise WeightsError(f"{path} sets {', '.join(special)}; only plain LoRA of one rank and alpha can be read")
    alpha, rank = config.get("lora_alpha"), config.get("r")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise WeightsError(f"{path} has r {rank!r} and lora_alpha {alpha!r}; both must be positive numbers")
    return alpha / rank
