"""What lies beside published weights describes the text tower that they are loaded into, or they are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.clip_text import TextShape, load_clip_text
from monai_fedlora.networks.open_clip_config import read_open_clip_config
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.published import tensors_file
from tests.networks.towers import (
    BERT,
    CLIP,
    CONTEXT,
    EMBED,
    HEADS,
    LAYERS,
    SIGLIP,
    VOCABULARY,
    WIDTH,
    biomedclip,
    open_clip,
    siglip,
)

TEXT = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
BERT_TEXT = {
    "hf_model_name": "a/bert",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "cls_last_hidden_state_pooler",
    "context_length": CONTEXT,
}


def described(folder: Path, text: dict[str, Any], **model: Any) -> Path:
    vision = {"image_size": 32, "layers": LAYERS, "width": WIDTH, "head_width": 8, "patch_size": 8}
    config = {"model_cfg": {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": text, **model}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder / "open_clip_config.json"


def refused(path: Path, settings: TextShape) -> str:
    with pytest.raises(WeightsError, match="describes another text tower") as error:
        load_clip_text(find_weights(path), settings, dim=WIDTH)
    return str(error.value)


def test_openclip_says_the_activation(tmp_path: Path) -> None:
    path = tensors_file(open_clip(), tmp_path)
    described(tmp_path, TEXT)
    load_clip_text(find_weights(path), CLIP, dim=WIDTH)
    assert "the activation is gelu instead of quick_gelu" in refused(path, replace(CLIP, activation="quick_gelu"))
    described(tmp_path, TEXT, quick_gelu=True)
    assert "the activation is quick_gelu instead of gelu" in refused(path, CLIP)
    described(tmp_path, TEXT | {"act_kwargs": {"approximate": "tanh"}})
    assert "the activation is gelu_tanh instead of gelu" in refused(path, CLIP)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"context_length": 77}, "context_length is 77 instead of 8"),
        ({"heads": 4}, "heads is 4 instead of 2"),
        ({"mlp_ratio": 2}, "the width of the MLP is 32 instead of 64"),
        ({"norm_kwargs": {"eps": 1e-6}}, "norm_kwargs.eps is 1e-06 instead of 1e-05"),
        ({"no_causal_mask": True}, "no_causal_mask is True instead of False"),
        ({"pool_type": "last"}, "pool_type is last instead of argmax"),
        ({"embed_cls": True}, "embed_cls is True instead of False"),
        ({"hf_model_name": "a/bert"}, "a BERT is True instead of False"),
    ],
)
def test_openclip_describes_another_tower(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    path = tensors_file(open_clip(), tmp_path)
    described(tmp_path, TEXT | changes)
    assert named in refused(path, CLIP)


def test_biomedclip_is_described_by_openclip(tmp_path: Path) -> None:
    path = tensors_file(biomedclip(), tmp_path)
    described(tmp_path, BERT_TEXT)
    load_clip_text(find_weights(path), BERT, dim=WIDTH)
    described(tmp_path, BERT_TEXT | {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"})
    message = refused(path, BERT)
    assert "hf_pooler_type is mean_pooler" in message
    assert "hf_proj_type is linear instead of mlp" in message


def test_siglip_is_described_by_transformers(tmp_path: Path) -> None:
    siglip().save_pretrained(tmp_path)
    load_clip_text(find_weights(tmp_path), SIGLIP, dim=WIDTH)
    assert "hidden_act is gelu_pytorch_tanh instead of gelu" in refused(tmp_path, replace(SIGLIP, activation="gelu"))
    assert "intermediate_size is 60 instead of 64" in refused(tmp_path, replace(SIGLIP, mlp_ratio=4))
    assert "model_type is siglip instead of clip" in refused(tmp_path, replace(SIGLIP, causal=True))


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": {"embed_dim": 12, "vision_cfg": {"width": 8}}}'])
def test_a_damaged_description_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "open_clip_config.json"
    path.write_text(content)
    with pytest.raises(WeightsError, match=r"open_clip_config\.json"):
        read_open_clip_config(path)


def test_openclip_describes_its_image_tower(tmp_path: Path) -> None:
    settings = read_open_clip_config(described(tmp_path, TEXT, quick_gelu=True)).image_settings()
    assert settings == {
        "image_size": (32, 32),
        "patch": 8,
        "dim": WIDTH,
        "depth": LAYERS,
        "n_heads": HEADS,
        "mlp_width": 64,
        "activation": "quick_gelu",
        "norm_eps": 1e-5,
        "layer_scale": False,
    }


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"layers": [3, 4, 6, 3]}, "a convolutional image tower"),
        ({"width": 16, "attentional_pool": True}, "an image tower with attentional_pool True"),
        ({"width": 16, "pool_type": "avg"}, "an image tower with pool_type 'avg'"),
    ],
)
def test_image_towers_that_are_none_of_ours_are_refused(tmp_path: Path, vision: dict[str, Any], message: str) -> None:
    path = described(tmp_path, TEXT, vision_cfg=vision)
    with pytest.raises(WeightsError, match=message):
        read_open_clip_config(path).image_settings()


@pytest.mark.parametrize(
    ("vision", "said"),
    [
        ({"timm_pool": ""}, {"n_heads": 12, "activation": "gelu", "norm_eps": 1e-6}),
        ({"timm_pool": "avg"}, {"readout": "mean_of_norm"}),
        ({}, {"readout": "mean_of_norm"}),
        ({"timm_model_kwargs": {"act_layer": "quick_gelu"}}, {"activation": "quick_gelu"}),
        ({"timm_model_name": "vit_base_patch16_clip_quickgelu_224"}, {"activation": "quick_gelu", "norm_eps": 1e-5}),
        ({"timm_model_name": "vit_so400m_patch14_siglip_224", "timm_pool": "map"}, {"n_heads": 16, "readout": "map"}),
    ],
)
def test_an_image_tower_of_timm_is_described_by_its_name(
    vision: dict[str, Any], said: dict[str, Any], tmp_path: Path
) -> None:
    given = {"timm_model_name": "vit_base_patch16_224", "image_size": 224} | vision
    found = read_open_clip_config(described(tmp_path, BERT_TEXT, vision_cfg=given)).image_settings()
    assert found == found | said | {"image_size": (224, 224)}
    assert ("readout" in found) == (vision.get("timm_pool") != "")


@pytest.mark.parametrize("changes", [{"timm_model_name": "vitamin_base_224"}, {"timm_pool": "rot_attn"}])
def test_an_image_tower_of_timm_that_is_none_of_ours_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = described(tmp_path, BERT_TEXT, vision_cfg={"timm_model_name": "vit_base_patch16_224", **changes})
    with pytest.raises(WeightsError, match="not supported"):
        read_open_clip_config(path).image_settings()


def test_a_bias_of_what_projects_images_has_no_place(tmp_path: Path) -> None:
    torch.save({**biomedclip().state_dict(), "visual.head.proj.bias": torch.ones(12)}, tmp_path / "weights.bin")
    with pytest.raises(WeightsError, match=r"no place for visual\.head\.proj\.bias"):
        load_clip_text(find_weights(tmp_path / "weights.bin"), BERT, dim=WIDTH)


@pytest.mark.parametrize("vision", [{"width": "16"}, {"width": 16, "head_width": 0}, {"width": 16, "image_size": None}])
def test_sizes_that_are_no_numbers_are_a_damaged_description(tmp_path: Path, vision: dict[str, Any]) -> None:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": {"embed_dim": 4, "vision_cfg": vision, "text_cfg": {}}}))
    with pytest.raises(WeightsError, match=r"open_clip_config\.json describes sizes that are no numbers"):
        read_open_clip_config(path).image_settings()
