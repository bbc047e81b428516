"""The description beside published weights must be of the network's architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import assert_refused, folder_of, network_of


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 32}, "hidden_size is 32 instead of 16"),
        ({"num_hidden_layers": 4}, "num_hidden_layers is 4 instead of 3"),
        ({"num_attention_heads": 4}, "num_attention_heads is 4 instead of 2"),
        ({"intermediate_size": 32}, "intermediate_size is 32 instead of 64"),
        ({"intermediate_size": 0}, "intermediate_size is 0 instead of 64"),
        ({"patch_size": 4}, "patch_size is 4 instead of 8"),
        ({"hidden_act": "relu"}, "hidden_act is relu instead of gelu"),
        ({"qkv_bias": False}, "qkv_bias is False instead of True"),
        ({"layer_norm_eps": 1e-3}, "layer_norm_eps is 0.001 instead of 1e-06"),
        ({"model_type": "swin"}, "model type 'swin', which is not supported"),
        ({"model_type": "dinov2", "mlp_ratio": 4, "use_swiglu_ffn": True}, "use_swiglu_ffn is True instead of False"),
        ({"model_type": "dinov2_with_registers", "mlp_ratio": 4}, "num_register_tokens is 4 instead of 0"),
        ({"model_type": "deit"}, "num_register_tokens is 1 instead of 0"),
        ({"model_type": "sam_vision_model"}, "SAM, MedSAM and ViTDet, which attend within windows"),
        ({"model_type": "beit"}, "BEiT, BEiT v2, data2vec and EVA, which bias attention"),
        ({"model_type": "siglip2_vision_model"}, "take the release of a fixed size"),
        ({"model_type": "dpt", "is_hybrid": True}, "model type 'bit', which is not supported"),
        ({"model_type": "no_such_model"}, "not understood by transformers"),
        ({"hidden_size": "wide"}, "not understood by transformers"),
    ],
)
def test_a_description_of_another_architecture_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    folder = folder_of(tmp_path, **changes)
    for source in (folder, folder / "model.safetensors"):
        assert_refused(network_of(), source, str(folder / "config.json"), named)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"vit"'])
def test_a_damaged_description_is_refused(tmp_path: Path, content: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(content)
    assert_refused(network_of(), folder, str(folder / "config.json"))


@pytest.mark.parametrize("eps", [1e-12, 1e-6])
def test_another_image_size_and_a_tiny_change_of_the_norms_are_no_difference(tmp_path: Path, eps: float) -> None:
    load_backbone(network_of(), folder_of(tmp_path, layer_norm_eps=eps, image_size=64))


def test_a_description_never_runs_code_of_its_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, model_type="custom", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    assert_refused(network_of(), folder, "config.json")
    assert not (tmp_path / "ran").exists()
