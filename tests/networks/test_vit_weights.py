"""Every published family against its own library: the same weights give the same tokens after every block."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.networks.published import (
    CLIP,
    DEPTH,
    DIM,
    DINOV2,
    HEADS,
    HF,
    PATCH,
    SIDE,
    assert_same,
    images,
    in_timms_names,
    network_of,
    randomised,
    state_of,
    tensors_file,
)

# ---- the families --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A published family: its model in its own library, and what that library computes.

    ``hidden`` returns the input of block 0 and the output of every block, and the pooled feature.
    """

    options: dict[str, Any]
    build: Callable[[], nn.Module]
    hidden: Callable[[nn.Module, Tensor], tuple[list[Tensor], Tensor]]
    save: Callable[[nn.Module, Path], Path]


def pretrained_folder(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**HF))


def vit_mae() -> nn.Module:
    from transformers import ViTMAEConfig, ViTMAEModel

    return ViTMAEModel(ViTMAEConfig(**HF, mask_ratio=0.0))


def dinov2() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**DINOV2))


def clip() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**HF))


def monai_vit(**changes: Any) -> nn.Module:
    from monai.networks.nets import ViT

    sizes = {"hidden_size": DIM, "mlp_dim": 4 * DIM, "num_layers": DEPTH, "num_heads": HEADS}
    images = {"in_channels": 3, "img_size": (SIDE, SIDE), "patch_size": (PATCH, PATCH), "spatial_dims": 2}
    return ViT(**{**sizes, **images, "classification": True, **changes})


def outputs(model: Any, x: Tensor) -> tuple[list[Tensor], Any]:
    out = model(x, output_hidden_states=True)
    return list(out.hidden_states), out


def with_class_token(model: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    hidden, out = outputs(model, x)
    return hidden, out.last_hidden_state[:, 0]


def clip_hidden(model: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    hidden, out = outputs(model, x)
    return hidden, out.pooler_output


def with_mean(model: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """RETFound's feature of a pre-trained file; the auto-encoder shuffles its tokens, which noise in order undoes."""
    noise = torch.linspace(0, 1, (x.shape[-1] // PATCH) ** 2).expand(len(x), -1)
    hidden = list(model(x, noise=noise, output_hidden_states=True).hidden_states)
    return hidden, nn.functional.layer_norm(hidden[-1][:, 1:].mean(dim=1), (DIM,), eps=1e-12)


def monai_hidden(model: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    _, hidden = model(x)
    embedded = model.patch_embedding(x)
    first = torch.cat([model.cls_token.expand(len(x), -1, -1), embedded], dim=1)
    return [first, *hidden], model.norm(hidden[-1])[:, 0]


FAMILIES = {
    "vit": Family({"norm_eps": 1e-12}, vit, with_class_token, pretrained_folder),
    "vit_mae": Family({"norm_eps": 1e-12, "readout": "mean"}, vit_mae, with_mean, pretrained_folder),
    "dinov2": Family({"layer_scale": True}, dinov2, with_class_token, pretrained_folder),
    "clip": Family(CLIP, clip, clip_hidden, pretrained_folder),
    "monai": Family({"norm_eps": 1e-5, "qkv_bias": False}, monai_vit, monai_hidden, tensors_file),
    "monai_qkv_bias": Family({"norm_eps": 1e-5}, lambda: monai_vit(qkv_bias=True), monai_hidden, tensors_file),
    "monai_perceptron": Family(
        {"norm_eps": 1e-5, "qkv_bias": False}, lambda: monai_vit(proj_type="perceptron"), monai_hidden, tensors_file
    ),
}


def agree(network: VisionTransformer, family: Family, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        hidden, pooled = family.hidden(model, x)
        for block, expected in enumerate(hidden):
            alone = block == DEPTH and network.reads_class_token_alone
            read = expected[:, :1] if alone else expected
            torch.testing.assert_close(network.prefix(x, block).tokens, read, rtol=1e-5, atol=1e-5)
        assert len(hidden) == DEPTH + 1
        torch.testing.assert_close(network.pool(network.prefix(x, DEPTH)), pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_block_and_the_feature_equal_the_familys_own(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    model, network = randomised(family.build()), network_of(**family.options)
    info = load_backbone(network, family.save(model, tmp_path))
    agree(network, family, model, images())
    untouched = {"head.weight", "head.bias"} | ({"norm.weight", "norm.bias"} if name == "vit_mae" else set())
    assert info.n_loaded == len(network.state_dict()) - len(untouched)
    assert (info.layout, info.heads) == ("pretrained", False)
    fresh = state_of(network_of(**family.options))
    assert {key for key, value in network.state_dict().items() if torch.equal(value, fresh[key])} == untouched


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_description_beside_a_file_is_read_too(tmp_path: Path, name: str) -> None:
    """A CLIP that was trained with another activation has the same names and shapes."""
    family = FAMILIES["clip"]
    folder = family.save(randomised(family.build()), tmp_path / "clip")
    if name.endswith(".bin"):
        torch.save(load_file(folder / "model.safetensors"), folder / name)
    load_backbone(network_of(**family.options), folder / name)
    config = json.loads((folder / "config.json").read_text())
    for place in (config, config.get("vision_config", {})):
        place["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))
    for source in (folder, folder / name):
        network = network_of(**family.options)
        before = state_of(network)
        with pytest.raises(WeightsError, match="hidden_act is gelu"):
            load_backbone(network, source)
        assert_same(state_of(network), before)
    for foreign in ('{"model_type": "bert"}', "["):
        (folder / "config.json").write_text(foreign)
        with pytest.raises(WeightsError, match=r"config\.json"):
            load_backbone(network_of(**family.options), folder / name)


def test_positions_that_fit_no_grid_are_counted(tmp_path: Path) -> None:
    state = in_timms_names(network_of())
    state["pos_embed"] = state["pos_embed"][:, 2:]
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"pos_embed is .*one of them the class token's .* neither a square") as said:
        load_backbone(network_of(), tmp_path / "w.safetensors")
    assert "instead of" not in str(said.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loaded_network_can_be_cut_before_any_block(name: str, tmp_path: Path) -> None:
    family, x = FAMILIES[name], images()
    network = network_of(**family.options)
    load_backbone(network, family.save(randomised(family.build()), tmp_path))
    for block in range(DEPTH + 1):
        torch.testing.assert_close(network.suffix(network.prefix(x, block), block), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["vit", "vit_mae", "dinov2", "clip"])
def test_names_of_the_librarys_own_modules_are_understood_too(name: str, tmp_path: Path) -> None:
    """What a library calls its parameters in memory differs from what it writes, and changes with its version."""
    family = FAMILIES[name]
    model: Any = randomised(family.build())
    published, in_memory = network_of(**family.options), network_of(**family.options)
    load_backbone(published, family.save(model, tmp_path / "published"))
    model.config.save_pretrained(tmp_path / "memory")
    load_backbone(in_memory, tensors_file(model, tmp_path / "memory"))
    assert_same(state_of(published), state_of(in_memory))


# ---- layouts without a library here: timm, MAE, RETFound, DINOv2's own ---------------------------------


def mae_checkpoint(network: VisionTransformer) -> dict[str, Any]:
    """What MAE's and RETFound's training scripts store."""
    state = in_timms_names(network)
    for key in ("decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.attn.qkv.weight", "mask_token"):
        state[key] = torch.randn(1, 2, 3)
    return {"model": state, "epoch": 799, "args": argparse.Namespace(model="mae_vit_large_patch16", lr=1e-3)}


def logits_agree(a: VisionTransformer, b: VisionTransformer) -> None:
    with torch.no_grad():
        b.head.load_state_dict(a.head.state_dict())
        torch.testing.assert_close(a(images()), b(images()), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_the_masked_auto_encoder_is_read_without_its_decoder(tmp_path: Path) -> None:
    source, network = randomised(network_of(readout="mean")), network_of(readout="mean")
    torch.save(mae_checkpoint(source), tmp_path / "RETFound.pth")
    info = load_backbone(network, tmp_path / "RETFound.pth")
    assert {key for key in info.skipped if not key.startswith("model.decoder")} == {
        "model.mask_token",
        "model.norm.weight",
        "model.norm.bias",
    }
    source.norm.load_state_dict(nn.LayerNorm(DIM).state_dict())
    logits_agree(source, network)


def test_a_fine_tuned_retfound_brings_the_norm_behind_its_mean_and_its_head(tmp_path: Path) -> None:
    source, network = randomised(network_of(readout="mean", out_chans=3)), network_of(readout="mean", out_chans=3)
    state = in_timms_names(source, norm="fc_norm")
    torch.save({"model": state | source.head.state_dict(prefix="head.")}, tmp_path / "checkpoint-best.pth")
    info = load_backbone(network, tmp_path / "checkpoint-best.pth")
    assert (info.layout, info.heads, info.skipped) == ("classifier", True, ())
    torch.testing.assert_close(network(images()), source(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_dinov2s_own_file_is_read_with_its_layer_scales(prefix: str, tmp_path: Path) -> None:
    source, network = randomised(network_of(layer_scale=True)), network_of(layer_scale=True)
    state = {f"{prefix}{key}": value for key, value in in_timms_names(source).items()}
    state[f"{prefix}mask_token"] = torch.zeros(1, DIM)
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    assert load_backbone(network, tmp_path / "dinov2_vits14_pretrain.pth").skipped == (f"{prefix}mask_token",)
    logits_agree(source, network)


def test_our_own_file_is_read_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    source, network = randomised(network_of()), network_of()
    monkeypatch.setitem(sys.modules, "transformers", None)
    info = load_backbone(network, tensors_file(source, tmp_path))
    assert_same(state_of(network), state_of(source))
    assert (info.n_loaded, info.heads, info.skipped) == (len(source.state_dict()), True, ())


def test_our_own_file_keeps_its_norm_whatever_is_read_out(tmp_path: Path) -> None:
    source, network = randomised(network_of(readout="mean")), network_of(readout="mean")
    load_backbone(network, tensors_file(source, tmp_path))
    assert_same(state_of(network), state_of(source))


# ---- parts that have no use ----------------------------------------------------------------------------


def test_an_auto_encoder_of_transformers_is_read_without_its_decoder(tmp_path: Path) -> None:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {f"decoder_{key}": value for key, value in HF.items() if "size" in key and "image" not in key}
    decoder = {key: value for key, value in decoder.items() if "patch" not in key}
    model = ViTMAEForPreTraining(
        ViTMAEConfig(**HF, **decoder, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    )
    model.save_pretrained(tmp_path)
    info = load_backbone(network_of(norm_eps=1e-12), tmp_path)
    assert info.skipped
    assert all(key.startswith("decoder.") for key in info.skipped)


def test_of_a_whole_clip_only_the_image_tower_is_read(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {key: value for key, value in HF.items() if key not in ("image_size", "patch_size")}
    model = randomised(CLIPModel(CLIPConfig(vision_config=HF, text_config={**text, "vocab_size": 50})))
    model.save_pretrained(tmp_path)
    network = network_of(**CLIP)
    info = load_backbone(network, tmp_path)
    assert {key.partition(".")[0] for key in info.skipped} == {
        "text_model",
        "text_projection",
        "visual_projection",
        "logit_scale",
    }
    agree(network, FAMILIES["clip"], model.vision_model, images())


@pytest.mark.parametrize(("out_chans", "wanted", "loaded"), [(3, True, True), (3, False, False), (2, True, False)])
def test_a_classifier_is_read_where_it_fits_and_is_wanted(
    tmp_path: Path, out_chans: int, wanted: bool, loaded: bool
) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    model = randomised(ViTForImageClassification(ViTConfig(**HF, num_labels=3)))
    model.save_pretrained(tmp_path)
    network = network_of(norm_eps=1e-12, out_chans=out_chans)
    before = state_of(network.head)
    info = load_backbone(network, tmp_path, heads=wanted)
    assert (info.heads, info.skipped) == (loaded, () if loaded else ("classifier.bias", "classifier.weight"))
    if loaded:
        torch.testing.assert_close(network(images()), model(images()).logits, rtol=1e-5, atol=1e-5)
    else:
        assert_same(state_of(network.head), before)


def test_a_classifier_of_the_class_token_is_not_put_behind_the_mean(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    ViTForImageClassification(ViTConfig(**HF, num_labels=2)).save_pretrained(tmp_path)
    assert not load_backbone(network_of(norm_eps=1e-12, readout="mean"), tmp_path).heads


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    source, network = randomised(network_of()), network_of()
    state = {key: value.to(dtype) for key, value in source.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    load_backbone(network, tmp_path / "w.safetensors")
    assert_same(state_of(network), {key: value.float() for key, value in state.items()})


def test_the_family_models_are_written_in_names_that_the_layouts_know(tmp_path: Path) -> None:
    """The published names, so that an older or newer library reads and writes the same files."""
    for name, key in {
        "vit": "encoder.layer.0.attention.attention.query.weight",
        "dinov2": "encoder.layer.0.attention.attention.query.weight",
        "clip": "encoder.layers.0.self_attn.q_proj.weight",
    }.items():
        folder = FAMILIES[name].save(FAMILIES[name].build(), tmp_path / name)
        assert key in load_file(folder / "model.safetensors")
