"""Comparing what lies beside published weights with the text tower they are loaded into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.bert import BertSettings
from monai_fedlora.networks.checkpoint_files import CheckpointFiles
from monai_fedlora.networks.open_clip_config import open_clip_config_beside, read_open_clip_config, within
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.vit_config import config_beside, read_config

Compared = dict[str, tuple[Any, Any]]

_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}  # transformers' words for ours
# What configs written before CLIP's end token was corrected call it; transformers then takes the highest token.
_OLD_END = 2


def check_text_config(checkpoint: CheckpointFiles, settings: TextSettings | BertSettings) -> None:
    """Refuse a description of another text tower; the message names every difference.

    Args:
        checkpoint: beside which a ``config.json`` of transformers or an ``open_clip_config.json`` may lie.
        settings: of the text tower that is to be filled.

    Raises:
        WeightsError: a file cannot be read, describes no text tower, or another one.
    """
    if path := checkpoint.config or config_beside(checkpoint.path):
        _refuse(path, _by_transformers(path, settings))
    if path := open_clip_config_beside(checkpoint.path):
        _refuse(path, _by_open_clip(path, settings))


def _refuse(path: Path, compared: Compared) -> None:
    different = [f"{name} is {found} instead of {own}" for name, (found, own) in compared.items() if found != own]
    if different:
        raise WeightsError(f"{path} describes another text tower: {'; '.join(different)}; choose the size to fit")


def _by_transformers(path: Path, settings: TextSettings | BertSettings) -> Compared:
    whole = read_config(path)
    config = getattr(whole, "text_config", None)
    if config is None:
        raise WeightsError(f"{path} describes no text tower; a whole CLIP checkpoint is needed")
    compared = {
        "vocab_size": (config.vocab_size, settings.vocabulary),
        "hidden_size": (config.hidden_size, settings.dim),
        "num_hidden_layers": (config.num_hidden_layers, settings.depth),
        "num_attention_heads": (config.num_attention_heads, settings.n_heads),
        "intermediate_size": (config.intermediate_size, settings.mlp_width),
        "hidden_act": (config.hidden_act, _ACTIVATIONS.get(settings.activation, settings.activation)),
        "layer_norm_eps": (config.layer_norm_eps, settings.norm_eps),
        "max_position_embeddings": (config.max_position_embeddings, settings.context),
    }
    causal = settings.causal if isinstance(settings, TextSettings) else False
    compared["model_type"] = (whole.model_type, "clip" if causal else "siglip")
    if causal and config.eos_token_id != _OLD_END:
        compared["eos_token_id"] = (config.eos_token_id, settings.end_token)
    return compared


def _by_open_clip(path: Path, settings: TextSettings | BertSettings) -> Compared:
    config = read_open_clip_config(path)
    text = config.text
    compared: Compared = {
        "embed_dim": (config.embed_dim, settings.embed_dim),
        "context_length": (text.get("context_length", 77), settings.context),
        "a BERT": ("hf_model_name" in text, isinstance(settings, BertSettings)),
    }
    if isinstance(settings, BertSettings):
        return compared | {
            "hf_proj_type": (text.get("hf_proj_type"), "mlp"),
            "hf_pooler_type": (text.get("hf_pooler_type"), "cls_last_hidden_state_pooler"),
        }
    width = text.get("width", 512)
    compared |= {
        "vocab_size": (text.get("vocab_size", 49408), settings.vocabulary),
        "width": (width, settings.dim),
        "layers": (text.get("layers", 12), settings.depth),
        "heads": (text.get("heads", 8), settings.n_heads),
        "the width of the MLP": (int(width * text.get("mlp_ratio", 4)), settings.mlp_width),
        "norm_kwargs.eps": (within(text, "norm_kwargs").get("eps", 1e-5), settings.norm_eps),
        "no_causal_mask": (text.get("no_causal_mask", False), not settings.causal),
        "pool_type": (text.get("pool_type", "argmax"), "argmax" if settings.causal else "last"),
        "proj_bias": (text.get("proj_bias", False), settings.projection_bias),
        "embed_cls": (text.get("embed_cls", False), False),
        "ls_init_value": (text.get("ls_init_value"), None),
    }
    if settings.causal:  # copies of SigLIP say the exact GELU, or nothing, where the original has the approximate one
        compared["the activation"] = (config.activation(text), settings.activation)
    return compared
