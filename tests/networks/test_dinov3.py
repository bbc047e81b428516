"""DINOv3 in the layouts in which it is published, against transformers' own class."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import HF, assert_refused, images, network_of, randomised

DINOV3 = {"positions": "rotary", "registers": 4, "key_bias": False, "layer_scale": True, "norm_eps": 1e-5}
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
DEPTH = HF["num_hidden_layers"]


def theirs(**changes: Any) -> Any:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return randomised(DINOv3ViTModel(DINOv3ViTConfig(**HF, num_register_tokens=4, **changes)))


def agree(network: VisionTransformer, model: Any, x: Tensor) -> None:
    with torch.no_grad():
        out = model(x, output_hidden_states=True)
        for block, expected in enumerate(out.hidden_states):
            tokens = network.prefix(x, block).tokens
            torch.testing.assert_close(tokens, expected[:, : tokens.shape[1]], rtol=1e-5, atol=1e-5)
        assert len(out.hidden_states) == DEPTH + 1
        torch.testing.assert_close(network.pool(network.prefix(x, DEPTH)), out.pooler_output, rtol=1e-5, atol=1e-5)


def as_released(model: Any) -> dict[str, Tensor]:
    """The names of the authors' own files, with the buffers that these hold beside the weights."""
    state = {key.replace("model.layer.", "layer."): value for key, value in model.state_dict().items()}
    names = {
        **{"embeddings.cls_token": "cls_token", "embeddings.register_tokens": "storage_tokens"},
        **{"embeddings.patch_embeddings": "patch_embed.proj", "attention.o_proj": "attn.proj"},
        **{"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"},
        **{"up_proj": "fc1", "down_proj": "fc2"},
        **({"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"} if model.config.use_gated_mlp else {}),
    }
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if ("attention" in key and "o_proj" not in key) or key == "embeddings.mask_token":
            continue
        for old, new in names.items():
            key = key.replace(old, new)
        found[re.sub(r"^layer\.", "blocks.", key)] = value.clone()
    dim = model.config.hidden_size
    for block in range(DEPTH):
        parts = [f"layer.{block}.attention.{name}_proj" for name in "qkv"]
        found[f"blocks.{block}.attn.qkv.weight"] = torch.cat([state[f"{part}.weight"] for part in parts])
        query, value = state[f"{parts[0]}.bias"], state[f"{parts[2]}.bias"]
        found[f"blocks.{block}.attn.qkv.bias"] = torch.cat([query, torch.full((dim,), 9.0), value])
        mask = torch.cat([torch.ones(dim), torch.zeros(dim), torch.ones(dim)])
        found[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    found["mask_token"], found["rope_embed.periods"] = torch.zeros(1, dim), torch.tensor([1.0, 10.0])
    return found | {"local_cls_norm.weight": torch.ones(dim), "local_cls_norm.bias": torch.zeros(dim)}


@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("form", ["folder", "in memory", "released"])
def test_every_block_and_the_feature_equal_transformers(form: str, gated: bool, side: int, tmp_path: Path) -> None:
    model = theirs(**(GATED if gated else {}))
    network = network_of(side=side, gated=gated, **DINOV3)
    source = tmp_path / "dinov3.pth"
    if form == "folder":
        model.save_pretrained(tmp_path)
        source = tmp_path
    elif form == "in memory":
        torch.save(model.state_dict(), source)
    else:
        torch.save(as_released(model), source)
    info = load_backbone(network, source)
    assert info.n_loaded == len(network.state_dict()) - 2 and not info.heads
    agree(network, model, images(side))


def test_a_folder_that_describes_another_dinov3_is_refused(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    assert_refused(network_of(gated=True, **DINOV3), tmp_path, "use_gated_mlp is False", "hidden_act")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_theta": 10.0}))
    assert_refused(network_of(**DINOV3), tmp_path, "rope_theta is 10.0 instead of 100.0")


def test_a_file_with_another_number_of_registers_is_refused(tmp_path: Path) -> None:
    model = theirs()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["embeddings.register_tokens"] = state["embeddings.register_tokens"][:, :3].clone()
    save_file(state, tmp_path / "w.safetensors")
    assert_refused(network_of(**DINOV3), tmp_path / "w.safetensors", "embeddings.register_tokens is (1, 3, 16)")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"blocks.1.attn.qkv.bias_mask": torch.ones(3 * HF["hidden_size"])}, "biases of keys"),
        ({"rope_embed.periods": torch.tensor([1.0, 100.0])}, "other periods"),
        ({"rope_embed.periods": torch.ones(4)}, "1 heads"),
    ],
)
def test_what_the_authors_file_says_of_turns_and_biases_is_not_passed_over(
    changes: dict[str, Tensor], named: str, tmp_path: Path
) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    model = randomised(DINOv3ViTModel(DINOv3ViTConfig(**HF, num_register_tokens=4)))
    torch.save(as_released(model) | changes, tmp_path / "weights.pth")
    options = {"norm_eps": 1e-5, "key_bias": False, "layer_scale": True, "registers": 4, "positions": "rotary"}
    assert_refused(network_of(**options), tmp_path / "weights.pth", named)
