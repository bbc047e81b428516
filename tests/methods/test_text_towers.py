"""Methods that compare images with texts begin as the authors' model, in every layout that has a text tower."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from monai_fedlora.methods.build import UNTRAINED, build_network
from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.token_files import find_token_files, read_token_files
from monai_fedlora.networks.vit import ViTSettings
from tests.networks import towers
from tests.networks.clip import SIZE, write_tokens
from tests.networks.published import images, tensors_file
from tests.networks.test_pieces import WORDS, unigram, word_list

CLASSES = ("NV", "MEL")
PROMPTS = Prompts(class_texts={"NV": "a mole", "MEL": "melanoma"})
SENTENCES = ["a photo of a mole", "a photo of melanoma"]
METHODS = ("clip_zero_shot", "clip_adapter", "prompt_tuning", "pfedst")
IMAGE = ViTSettings(
    image_size=(towers.SIDE, towers.SIDE),
    patch=towers.PATCH,
    dim=towers.WIDTH,
    depth=towers.LAYERS,
    n_heads=towers.HEADS,
)


def logits(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    return scale.exp() * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T


def assert_begins_as(expected: Tensor, folder: Path, size: str, x: Tensor, prompts: Prompts = PROMPTS) -> None:
    for method in METHODS:
        common: dict[str, Any] = {"size": size, "out_chans": 2, "method": method}
        network = build_network(**common, backbone=str(folder), classes=CLASSES, prompts=prompts).eval()
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-4)
        empty = build_network(**common, backbone=UNTRAINED)
        assert {key: value.shape for key, value in empty.state_dict().items() if "context" in key} == {
            key: value.shape for key, value in network.state_dict().items() if "context" in key
        }


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a name to small towers."""

    def name(shape: ViTSettings, text: Any) -> str:
        grey = (0.5,) * 3
        row = Architecture(name="micro_towers", shape=shape, text=text, mean=grey, std=grey, source="a test")
        monkeypatch.setitem(IMAGE_SIZES, "micro_towers", row)
        return "micro_towers"

    return name


@pytest.mark.slow
@torch.no_grad()
def test_openclip(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"width": 96, "heads": 4, "layers": 6, "patch": 8, "side": 64, "embed": 64}
    text: dict[str, Any] = {"context": 32, "vocabulary": 896, "layers": 3}
    model: Any = towers.open_clip(towers.QuickGelu, **shape, text=text)
    tensors_file(model, write_tokens(tmp_path))
    vision = {"image_size": 64, "layers": 6, "width": 96, "patch_size": 8, "head_width": 24}
    described = {"context_length": 32, "vocab_size": 896, "width": 96, "heads": 4, "layers": 3}
    config = {"embed_dim": 64, "quick_gelu": True, "vision_cfg": vision, "text_cfg": described}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    tokens = read_token_files(find_token_files(tmp_path, "byte_pairs"), "byte_pairs")
    x = torch.randn(2, 3, 64, 64)
    expected = logits(model.visual(x), model.encode_text(tokens.rows({"": SENTENCES}, context=32)), model.logit_scale)
    assert_begins_as(expected, tmp_path / "model.safetensors", SIZE, x)


@pytest.mark.slow
@torch.no_grad()
def test_biomedclip(tmp_path: Path, named: Any) -> None:
    model: Any = towers.biomedclip(vocabulary=len(WORDS))
    word_list(tmp_path)
    tensors_file(model, tmp_path)
    ids = read_token_files(find_token_files(tmp_path, "word_pieces"), "word_pieces").rows({"": SENTENCES}, context=8)
    hidden = model.text.transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    x = images()
    image = model.visual.head.proj(model.visual.trunk(x))
    expected = logits(image, model.text.proj(hidden[:, 0]), model.logit_scale)
    size = named(IMAGE, replace(towers.BERT, vocabulary=len(WORDS)))
    assert_begins_as(expected, tmp_path / "model.safetensors", size, x)


@pytest.mark.slow
@torch.no_grad()
def test_siglip(tmp_path: Path, named: Any) -> None:
    """The sigmoid's bias, the same for all classes, changes no comparison of classes and is left out."""
    unigram(tmp_path)
    tokens = read_token_files(find_token_files(tmp_path, "siglip"), "siglip")
    model: Any = towers.siglip(vocabulary=tokens.size)
    model.save_pretrained(tmp_path)
    ids, x = tokens.rows({"": ["a photo of a", "a photo of melanoma"]}, context=8), images()
    theirs = model(input_ids=ids, pixel_values=x).logits_per_image
    shape = replace(IMAGE, class_token=False, readout="map", activation="gelu_tanh", mlp_ratio=towers.SIGLIP.mlp_ratio)
    size = named(shape, replace(towers.SIGLIP, vocabulary=tokens.size))
    short = Prompts(class_texts={"NV": "a", "MEL": "melanoma"})
    assert_begins_as(theirs - model.logit_bias, tmp_path, size, x, short)
