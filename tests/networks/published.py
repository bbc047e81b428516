"""Published vision transformers in small, for the tests that load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file
from torch import Tensor, nn

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.weights import load_backbone

SIDE, PATCH, DIM, DEPTH, HEADS = 32, 8, 16, 3, 2
HF = {
    "hidden_size": DIM,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * DIM,
    "image_size": SIDE,
    "patch_size": PATCH,
}
DINOV2 = {key: value for key, value in HF.items() if key != "intermediate_size"} | {"mlp_ratio": 4}
CLIP = {"activation": "quick_gelu", "norm_eps": 1e-5, "patch_bias": False, "pre_norm": True}


def images(side: int = SIDE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def network_of(*, side: int = SIDE, out_chans: int = 2, seed: int = 5, **options: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    shape = {"image_size": (side, side), "patch": PATCH, "dim": DIM, "depth": DEPTH, "n_heads": HEADS, **options}
    return VisionTransformer(ViTSettings(**shape), out_chans=out_chans).eval()


EMPTY = network_of()
"""For files that are refused, which leave it alone."""


def randomised(model: nn.Module) -> nn.Module:
    """Give every parameter, norms and biases included, a random value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def in_timms_names(network: VisionTransformer, *, norm: str = "norm", depth: int = DEPTH) -> dict[str, Tensor]:
    """A network's weights as timm stores them: fused queries, keys and values, and a position for the class token."""
    own = state_of(network)
    position_of_class = torch.full_like(own["embed.cls"], 0.3)
    state = {
        "cls_token": own.pop("embed.cls") - position_of_class,
        "pos_embed": torch.cat([position_of_class, own.pop("embed.position")], dim=1),
    }
    for kind in ("weight", "bias"):
        state[f"patch_embed.proj.{kind}"] = own.pop(f"embed.patch.{kind}")
        state[f"{norm}.{kind}"] = own.pop(f"norm.{kind}")
        own.pop(f"head.{kind}")
        for block in range(depth):
            parts = [own.pop(f"blocks.{block}.attn.{part}.{kind}") for part in "qkv"]
            state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return state | own


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def tensors_file(model: nn.Module, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def assert_refused(network: VisionTransformer, source: Path | str, *names: str, **options: Any) -> None:
    before = state_of(network)
    with pytest.raises(WeightsError) as caught:
        load_backbone(network, source, **options)
    for name in names:
        assert name in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def stored_vit() -> dict[str, Tensor]:
    """A small file in transformers' names, written once."""
    network = randomised(network_of())
    names = {
        "norm1": "layernorm_before",
        "attn.q": "attention.attention.query",
        "attn.k": "attention.attention.key",
        "attn.v": "attention.attention.value",
        "attn.proj": "attention.output.dense",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    state = {
        "embeddings.cls_token": torch.randn(1, 1, DIM),
        "embeddings.position_embeddings": torch.randn(1, 17, DIM),
        "embeddings.patch_embeddings.projection.weight": network.embed.patch.weight.detach(),
        "embeddings.patch_embeddings.projection.bias": torch.randn(DIM),
        "layernorm.weight": torch.randn(DIM),
        "layernorm.bias": torch.randn(DIM),
    }
    for index, block in enumerate(network.blocks):
        for ours, theirs in names.items():
            for kind, value in block.get_submodule(ours).state_dict().items():
                state[f"encoder.layer.{index}.{theirs}.{kind}"] = value
    return state


STORED = stored_vit()

fuzz = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def folder_of(path: Path, **changes: Any) -> Path:
    """A folder as transformers writes it, with changed settings in its ``config.json``."""
    path.mkdir(exist_ok=True)
    save_file(STORED, path / "model.safetensors")
    config = {"model_type": "vit", **HF, "layer_norm_eps": 1e-6, **changes}
    (path / "config.json").write_text(json.dumps(config))
    return path


def split_folder(path: Path) -> Path:
    folder_of(path)
    (path / "model.safetensors").unlink()
    weight_map = {}
    for number, chosen in enumerate((sorted(STORED)[:20], sorted(STORED)[20:]), start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({key: STORED[key] for key in chosen}, path / name)
        weight_map |= dict.fromkeys(chosen, name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path
