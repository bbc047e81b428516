"""A checkpoint's text side is read whole, from the image tower's own file, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monai_fedlora.errors import WeightsError
from monai_fedlora.files import save_tensors
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.networks.clip_text import ClipText, clip_state, load_clip_text
from monai_fedlora.networks.text import TextTransformer
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.clip import SIZE, clip_model, photographs, shapes
from tests.networks.conftest import Checkpoint


def load(source: Path) -> ClipText:
    text, image = shapes()
    return load_clip_text(find_weights(source), text, dim=image.dim)


def changed(checkpoint: Checkpoint, folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    state = load_file(checkpoint.folder / "model.safetensors")
    change(state)
    save_file(state, folder / "clip.safetensors")
    return folder / "clip.safetensors"


def test_projection_and_temperature_are_those_of_the_file(checkpoint: Checkpoint) -> None:
    clip = load(checkpoint.folder)
    torch.testing.assert_close(clip.projection, checkpoint.model.visual_projection.weight.detach(), rtol=0, atol=0)
    assert clip.logit_scale == pytest.approx(checkpoint.model.logit_scale.item())
    assert not clip.tower.training
    assert not any(parameter.requires_grad for parameter in clip.tower.parameters())


def test_half_precision_is_read_as_single(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = changed(checkpoint, tmp_path, lambda s: s.update({key: value.half() for key, value in s.items()}))
    clip, whole = load(source), load(checkpoint.folder)
    for key, value in clip.tower.state_dict().items():
        torch.testing.assert_close(value, whole.tower.state_dict()[key].half().float(), rtol=0, atol=0)
    assert clip.projection.dtype == torch.float32


def test_positions_of_old_files_are_no_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    name = "text_model.embeddings.position_ids"
    load(changed(checkpoint, tmp_path, lambda s: s.update({name: torch.arange(32)[None]})))


def test_drawing_nothing_leaves_the_random_state(checkpoint: Checkpoint) -> None:
    state = torch.get_rng_state()
    load(checkpoint.folder)
    assert torch.equal(torch.get_rng_state(), state)


def without(*prefixes: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.startswith(prefixes)]:
            del state[key]

    return change


LAST = "text_model.encoder.layers.2.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("text_model.", "text_projection"), "holds no text tower .* not its image tower alone"),
        (without(LAST), rf"does not fit the text tower: it lacks {LAST}"),
        (without("logit_scale"), "it lacks logit_scale"),
        (without("visual_projection"), r"it lacks visual_projection\.weight"),
        (
            lambda s: s.update({"text_model.encoder.layers.3.mlp.fc1.bias": torch.zeros(384)}),
            r"there is no place for text_model\.encoder\.layers\.3\.mlp\.fc1\.bias",
        ),
        (
            lambda s: s.update({"visual_projection.weight": torch.zeros(48, 96)}),
            r"towers of different checkpoints: text_projection\.weight gives 64 numbers and .* 48",
        ),
        (
            lambda s: s.update(
                {"visual_projection.weight": torch.zeros(48, 96), "text_projection.weight": torch.zeros(48, 96)}
            ),
            r"visual_projection\.weight is \(48, 96\) instead of \(64, 96\)",
        ),
        (lambda s: s.update({"visual_projection.weight": torch.zeros(64, 80)}), r"\(64, 80\) instead of \(64, 96\)"),
        (lambda s: s.update({"visual_projection.weight": torch.zeros(64)}), "another number of dimensions"),
        (lambda s: s.update({"logit_scale": torch.zeros(2)}), "another number of dimensions"),
        (lambda s: s.update({LAST: torch.zeros(96, 80)}), rf"holds another text tower: {LAST} is \(96, 80\)"),
        (lambda s: s.update({LAST: torch.full((96, 96), torch.nan)}), f"{LAST} holds NaN"),
        (lambda s: s.update({"logit_scale": torch.tensor(torch.inf)}), "logit_scale holds NaN or infinite"),
        (lambda s: s.update({LAST: torch.zeros(96, 96, dtype=torch.int32)}), "not floating-point"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    source = changed(checkpoint, tmp_path, change)
    with pytest.raises(WeightsError, match=message) as error:
        load(source)
    assert str(source) in str(error.value)


def described(checkpoint: Checkpoint, folder: Path, *, text: dict[str, Any]) -> Path:
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((checkpoint.folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= text
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ({"vocab_size": 900}, "vocab_size is 900 instead of 896"),
        ({"max_position_embeddings": 77}, "max_position_embeddings is 77 instead of 32"),
        ({"num_hidden_layers": 12}, "num_hidden_layers is 12 instead of 3"),
        ({"num_attention_heads": 8}, "num_attention_heads is 8 instead of 4"),
        ({"intermediate_size": 96}, "intermediate_size is 96 instead of 384"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu instead of quick_gelu"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06 instead of 1e-05"),
        ({"eos_token_id": 894}, "eos_token_id is 894 instead of 895"),
    ],
)
def test_a_description_of_another_text_tower_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, text: dict[str, Any], named: str
) -> None:
    with pytest.raises(WeightsError, match="describes another text tower") as error:
        load(described(checkpoint, tmp_path, text=text))
    assert named in str(error.value)


def test_a_description_of_an_image_tower_alone_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = described(checkpoint, tmp_path, text={})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config["vision_config"] | {"model_type": "clip_vision_model"}))
    with pytest.raises(WeightsError, match="describes no text tower"):
        load(folder)


@torch.no_grad()
def test_end_tokens_of_old_configs_are_understood(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A config with an end token of 2 makes transformers take the highest token, which is the end."""
    folder = described(checkpoint, tmp_path, text={"eos_token_id": 2})
    old = clip_model(eos_token_id=2)
    old.load_state_dict(checkpoint.model.state_dict())
    ids = torch.tensor([[894, 2, 5, 895, 895, 895], [894, 4, 895, 895, 895, 895]])
    expected = old.text_projection(old.text_model(input_ids=ids).pooler_output)
    torch.testing.assert_close(load(folder).tower(ids), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_saved_towers_are_a_checkpoint_of_transformers(tmp_path: Path) -> None:
    text, image = shapes()
    torch.manual_seed(0)
    network = VisionTransformer(image, out_chans=2).eval()
    network.embed.cls.normal_()
    tower = TextTransformer(text).eval()
    scale, projection = torch.tensor(1.5), torch.randn(text.embed_dim, image.dim)
    state = clip_state(network, tower, projection=projection, logit_scale=scale)
    model = clip_model()
    assert state.keys() == model.state_dict().keys()
    model.load_state_dict(state)
    ids, x = torch.tensor([[894, 3, 895], [894, 9, 895]]), photographs()
    theirs = model(input_ids=ids, pixel_values=x)
    own = network.pool(network.prefix(x, image.depth)) @ projection.T
    torch.testing.assert_close(nn_normalise(own), theirs.image_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nn_normalise(tower(ids)), theirs.text_embeds, rtol=1e-5, atol=1e-5)
    save_tensors(tmp_path / "clip.safetensors", state, {"size": SIZE})
    again = build_backbone(SIZE, out_chans=2).eval()
    load_backbone(again, tmp_path / "clip.safetensors")
    torch.testing.assert_close(again.pool(again.prefix(x, 6)), network.pool(network.prefix(x, 6)))
    torch.testing.assert_close(load(tmp_path / "clip.safetensors").tower(ids), tower(ids))


def nn_normalise(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def test_another_width_of_the_image_tower_is_refused(checkpoint: Checkpoint) -> None:
    text, image = shapes()
    with pytest.raises(WeightsError, match=r"visual_projection\.weight is \(64, 96\) instead of \(64, 192\)"):
        load_clip_text(find_weights(checkpoint.folder), text, dim=2 * image.dim)
    with pytest.raises(WeightsError, match="num_hidden_layers is 3 instead of 4"):
        load_clip_text(find_weights(checkpoint.folder), replace(text, depth=4), dim=image.dim)
