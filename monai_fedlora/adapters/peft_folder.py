"""Adapters as the folders that PEFT reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from monai_fedlora.errors import WeightsError
from monai_fedlora.files import load_tensors, read_json, save_tensors

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
HEAD_NAME = "head.safetensors"
_PREFIX = "base_model.model."


def save_peft_folder(network: Any, adapter: str, folder: Path) -> None:
    """Write one adapter of an adapted network so that ``PeftModel.from_pretrained(backbone, folder)`` loads it.

    Args:
        network: network adapted by :func:`monai_fedlora.adapters.lora.attach_lora`.
        adapter: which of its adapters.
        folder: created if needed; receives ``adapter_config.json`` and ``adapter_model.safetensors``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _PREFIX + key.replace(f".{adapter}.", "."): value
        for key, value in network.state_dict().items()
        if f".lora_A.{adapter}." in key or f".lora_B.{adapter}." in key
    }
    if not tensors:
        raise WeightsError(f"the network has no adapter called {adapter!r}")
    save_tensors(folder / WEIGHTS_NAME, tensors, {"format": "pt"})
    network.peft_config[adapter].save_pretrained(folder)


def load_peft_folder(folder: Path, adapter: str) -> dict[str, Tensor]:
    """Read a LoRA folder as state-dict entries of an adapter called ``adapter``.

    Raises:
        WeightsError: the folder is incomplete, or holds something else than LoRA weights; files are named.
    """
    config = read_json(folder / CONFIG_NAME)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise WeightsError(f"{folder / CONFIG_NAME} does not describe a LoRA adapter")
    if config.get("use_dora") or config.get("use_rslora") or config.get("bias", "none") != "none":
        raise WeightsError(f"{folder / CONFIG_NAME}: only plain LoRA without DoRA, rsLoRA or biases can be read")
    tensors, _ = load_tensors(folder / WEIGHTS_NAME)
    renamed = {}
    for key, value in tensors.items():
        stem, _, factor = key.removesuffix(".weight").rpartition(".")
        if factor not in ("lora_A", "lora_B") or not key.endswith(".weight"):
            raise WeightsError(f"{folder / WEIGHTS_NAME} holds {key!r}, which is not a LoRA factor")
        renamed[f"{stem.removeprefix(_PREFIX)}.{factor}.{adapter}.weight"] = value
    return renamed
