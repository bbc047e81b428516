"""Text towers under the names of OpenCLIP, OpenAI, BiomedCLIP and SigLIP compute what their authors' code computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.clip_text import ClipText, TextShape, load_clip_text
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.published import tensors_file
from tests.networks.towers import (
    BERT,
    CLIP,
    EMBED,
    SHAPE,
    SIGLIP,
    VOCABULARY,
    WIDTH,
    QuickGelu,
    biomedclip,
    open_clip,
    open_siglip,
    siglip,
)

END = VOCABULARY - 1
IDS = torch.tensor([[38, 3, 4, END, 0, 0, 0, 0], [38, 9, 7, 2, 1, 5, 6, END]])


def load(model: nn.Module, folder: Path, settings: TextShape) -> ClipText:
    return load_clip_text(find_weights(tensors_file(model, folder)), settings, dim=WIDTH)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("activation", "name"), [(nn.GELU, "gelu"), (QuickGelu, "quick_gelu")])
@torch.no_grad()
def test_openclip(tmp_path: Path, apart: bool, activation: Callable[[], nn.Module], name: Any) -> None:
    model: Any = open_clip(activation, apart=apart)
    clip = load(model, tmp_path, TextSettings(**SHAPE, embed_dim=EMBED, activation=name))
    assert_equal(clip.tower(IDS), (model.text if apart else model).encode_text(IDS))
    assert_equal(torch.ones(1, WIDTH) @ clip.projection.T, torch.ones(1, WIDTH) @ model.visual.proj)
    assert clip.logit_scale == model.logit_scale.item()


@torch.no_grad()
def test_biomedclip(tmp_path: Path) -> None:
    model: Any = biomedclip()
    ids = torch.tensor([[2, 8, 9, 3, 0, 0, 0, 0], [2, 9, 7, 5, 14, 5, 6, 3], [2, 3, 0, 0, 0, 0, 0, 0]])
    hidden = model.text.transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    clip = load(model, tmp_path, BERT)
    assert_equal(clip.tower(ids), model.text.proj(hidden[:, 0]))
    assert_equal(clip.tower(ids[:1, :4]), model.text.proj(hidden[:1, 0]))
    assert_equal(clip.projection, model.visual.head.proj.weight)


@torch.no_grad()
def test_siglip_of_transformers(tmp_path: Path) -> None:
    model: Any = siglip()
    ids = torch.tensor([[5, 8, 1, 1, 1, 1, 1, 1], [2, 9, 7, 5, 14, 5, 6, 1]])
    expected = model.text_model(input_ids=ids).pooler_output
    clip = load(model, tmp_path, SIGLIP)
    assert_equal(clip.tower(ids), expected)
    assert_equal(clip.tower(ids[:1, :3]), expected[:1])
    assert_equal(clip.projection, torch.eye(WIDTH))
    assert clip.logit_scale == model.logit_scale.item()


@torch.no_grad()
def test_what_fills_a_text_of_siglip_2_up_is_not_what_ends_it(tmp_path: Path) -> None:
    model: Any = siglip()
    ids = torch.tensor([[5, 8, 1, 0, 0, 0, 0, 0]])
    clip = load(model, tmp_path, replace(SIGLIP, pad=0))
    assert_equal(clip.tower(ids[:, :3]), model.text_model(input_ids=ids).pooler_output)


@torch.no_grad()
def test_siglip_of_openclip(tmp_path: Path) -> None:
    model: Any = open_siglip()
    clip = load(model, tmp_path, replace(SIGLIP, mlp_ratio=4))
    assert_equal(clip.tower(IDS), model.text.encode_text(IDS))


def changed(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    state = load_file(tensors_file(open_clip(), folder))
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


@torch.no_grad()
def test_openai_says_its_sizes_beside_the_towers(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda state: state.update(context_length=torch.tensor(8), vocab_size=torch.tensor(40)))
    clip = load_clip_text(find_weights(path), CLIP, dim=WIDTH)
    model: Any = open_clip()
    assert_equal(clip.tower(IDS), model.encode_text(IDS))


@torch.no_grad()
def test_what_a_training_put_in_front_of_all_names_is_found(tmp_path: Path) -> None:
    model: Any = open_clip()
    save_file({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "a.safetensors")
    clip = load_clip_text(find_weights(tmp_path / "a.safetensors"), CLIP, dim=WIDTH)
    assert_equal(clip.tower(IDS), model.encode_text(IDS))


def test_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    state = open_clip().state_dict()
    both = {f"{name}.{key}": value.clone() for name in ("student", "teacher") for key, value in state.items()}
    save_file(both, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"two text towers, below 'student\.' and below 'teacher\.'"):
        load_clip_text(find_weights(tmp_path / "a.safetensors"), CLIP, dim=WIDTH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ln_final.bias"), r"it lacks ln_final\.bias \(read as OpenCLIP's and OpenAI's CLIP\)"),
        (lambda s: s.pop("transformer.resblocks.1.attn.in_proj_bias"), r"it lacks .*in_proj_bias"),
        (lambda s: s.pop("visual.proj"), r"it lacks visual\.proj"),
        (lambda s: s.update({"transformer.resblocks.2.ln_1.bias": torch.zeros(16)}), "there is no place for transf"),
        (lambda s: s.update({"text_projection": torch.zeros(16, 9)}), "gives 9 numbers and visual.proj 12"),
        (lambda s: s.update({"visual.proj": torch.zeros(12, 16)}), r"gives 12 numbers and visual.proj 16"),
        (lambda s: s.update({"positional_embedding": torch.zeros(9, 16)}), r"is \(9, 16\) instead of \(8, 16\)"),
        (lambda s: s.pop("token_embedding.weight"), "holds no text tower"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(WeightsError, match=message) as error:
        load_clip_text(find_weights(path), CLIP, dim=WIDTH)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("model", "settings"),
    [(open_clip, BERT), (open_clip, SIGLIP), (biomedclip, CLIP), (siglip, CLIP)],
)
def test_a_text_tower_of_another_kind_is_refused(
    tmp_path: Path, model: Callable[[], nn.Module], settings: TextShape
) -> None:
    with pytest.raises(WeightsError, match=r"holds (no|another) text tower|does not fit the text tower"):
        load(model(), tmp_path, settings)
