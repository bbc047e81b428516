"""Every published family against its own library: the same weights give the same tokens after every block."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.weights import backbone_sha256, load_backbone

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


def randomised(model: nn.Module) -> nn.Module:
    """Give every parameter, norms and biases included, a random value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


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


def tensors_file(model: nn.Module, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


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
    if x.shape[-1] == SIDE or "Dinov2" in type(model).__name__:
        out = model(x, output_hidden_states=True)
    else:
        out = model(x, output_hidden_states=True, interpolate_pos_encoding=True)
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
    larger = {"interpolate_pos_encoding": True} if x.shape[-1] != SIDE else {}
    hidden = list(model(x, noise=noise, output_hidden_states=True, **larger).hidden_states)
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
RESIZABLE = ("vit", "vit_mae", "dinov2", "clip")


def agree(network: VisionTransformer, family: Family, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        hidden, pooled = family.hidden(model, x)
        for block, expected in enumerate(hidden):
            torch.testing.assert_close(network.prefix(x, block).tokens, expected, rtol=1e-5, atol=1e-5)
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


@pytest.mark.parametrize("name", RESIZABLE)
@pytest.mark.parametrize("built_for", [SIDE, 48])
def test_a_larger_image_gives_the_familys_own_tokens(name: str, built_for: int, tmp_path: Path) -> None:
    """Positions are interpolated in the forward pass, or when a network of the larger size is loaded."""
    family = FAMILIES[name]
    model, network = randomised(family.build()), network_of(side=built_for, **family.options)
    load_backbone(network, family.save(model, tmp_path))
    agree(network, family, model, images(48))


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
    model = randomised(family.build())
    published, in_memory = network_of(**family.options), network_of(**family.options)
    load_backbone(published, family.save(model, tmp_path / "published"))
    load_backbone(in_memory, tensors_file(model, tmp_path / "memory"))
    assert_same(state_of(published), state_of(in_memory))


# ---- layouts without a library here: timm, MAE, RETFound, DINOv2's own ---------------------------------


def in_timms_names(network: VisionTransformer, *, norm: str = "norm") -> dict[str, Tensor]:
    """A network's weights as timm stores them: fused queries, keys and values, and a position for the class token."""
    own = state_of(network)
    position_of_class = torch.full((1, 1, DIM), 0.3)
    state = {
        "cls_token": own.pop("embed.cls") - position_of_class,
        "pos_embed": torch.cat([position_of_class, own.pop("embed.position")], dim=1),
    }
    for kind in ("weight", "bias"):
        state[f"patch_embed.proj.{kind}"] = own.pop(f"embed.patch.{kind}")
        state[f"{norm}.{kind}"] = own.pop(f"norm.{kind}")
        own.pop(f"head.{kind}")
        for block in range(DEPTH):
            parts = [own.pop(f"blocks.{block}.attn.{part}.{kind}") for part in "qkv"]
            state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return state | own


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
    assert {key for key in info.skipped if not key.startswith("decoder")} == {"mask_token", "norm.weight", "norm.bias"}
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


# ---- refusals: the file and the keys are named, the network is untouched --------------------------------


def assert_refused(network: VisionTransformer, source: Path | str, *names: str, **options: Any) -> None:
    before = state_of(network)
    with pytest.raises(WeightsError) as caught:
        load_backbone(network, source, **options)
    for name in names:
        assert name in str(caught.value)
    assert_same(state_of(network), before)


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


def test_the_file_of_the_refusals_is_accepted_as_it_is(tmp_path: Path) -> None:
    info = load_backbone(network_of(), write(tmp_path, STORED))
    assert (info.n_loaded, info.skipped) == (len(STORED), ())


@fuzz
@given(key=st.sampled_from(sorted(STORED)))
def test_a_missing_key_is_named_as_the_file_names_it(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, {name: value for name, value in STORED.items() if name != key})
    assert_refused(network_of(), path, str(path), f"it lacks {key}")


@fuzz
@given(name=st.text("abcxyz._0", min_size=1, max_size=20).map(lambda name: f"encoder.{name}"))
def test_an_extra_key_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {**STORED, name: torch.zeros(2)})
    assert_refused(network_of(), path, str(path), f"the network has no {name}")


@fuzz
@given(key=st.sampled_from(sorted(STORED)), data=st.data())
def test_a_wrong_shape_is_named(tmp_path: Path, key: str, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, STORED[key].ndim - 1))
    wrong = torch.cat([STORED[key]] * 3, dim=axis)
    path = write(tmp_path, {**STORED, key: wrong})
    if key == "embeddings.position_embeddings" and axis == 1:
        assert (3 * 17 - 1) ** 0.5 % 1 != 0
    assert_refused(network_of(), path, str(path), f"{key} is {tuple(wrong.shape)}")


@fuzz
@given(key=st.sampled_from(sorted(STORED)), bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, key: str, bad: float) -> None:
    spoilt = STORED[key].clone()
    spoilt.view(-1)[-1] = bad
    path = write(tmp_path, {**STORED, key: spoilt})
    assert_refused(network_of(), path, str(path), f"{key} holds NaN or infinite values")


def test_integers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {**STORED, "layernorm.weight": torch.ones(DIM, dtype=torch.int32)})
    assert_refused(network_of(), path, "layernorm.weight holds I32 values")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depth": 2}, "the network has no encoder.layer.2."),
        ({"depth": 4}, "it lacks encoder.layer.3."),
        ({"layer_scale": True}, "it lacks blocks.0.ls1.gamma"),
        ({"pre_norm": True}, "it lacks embed.norm.bias"),
        ({"qkv_bias": False}, "the network has no encoder.layer.0.attention.attention.key.bias"),
        ({"dim": 24}, "instead of (24"),
        ({"patch": 4}, "projection.weight is (16, 3, 8, 8) instead of (16, 3, 4, 4)"),
        ({"mlp_ratio": 2}, "intermediate.dense.bias is (64,) instead of (32,)"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    assert_refused(network_of(**options), write(tmp_path, STORED), named)


def test_positions_of_no_square_grid_are_refused_unless_they_are_the_networks_own(tmp_path: Path) -> None:
    table = torch.randn(1, 1 + 8, DIM)
    path = write(tmp_path, {**STORED, "embeddings.position_embeddings": table})
    assert_refused(network_of(), path, "position_embeddings is (1, 9, 16)")
    torch.manual_seed(0)
    shape = ViTSettings(image_size=(16, 32), patch=PATCH, dim=DIM, depth=DEPTH, n_heads=HEADS)
    network = VisionTransformer(shape, out_chans=2)
    load_backbone(network, path)
    assert_same({"p": network.embed.position.detach()}, {"p": table[:, 1:]})


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(2)})
    assert_refused(network_of(), path, "conv1.weight, fc.bias", "none of the known layouts", "RETFound", "MONAI's ViT")


def test_a_network_with_adapters_is_refused(tmp_path: Path) -> None:
    from monai_fedlora.adapters.lora import LoraSettings, attach_lora

    network = network_of()
    attach_lora(network, LoraSettings(rank=2), ["shared"])
    assert_refused(network, write(tmp_path, STORED), "already carries adapters")


WHOLE_FILE = save(STORED)


@settings(fuzz, max_examples=40)
@given(length=st.integers(0, len(WHOLE_FILE) - 1))
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(WHOLE_FILE[:length])
    assert_refused(network_of(), path, str(path))


@settings(fuzz, max_examples=60)
@given(position=st.integers(0, 4000), value=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_loads_whole(tmp_path: Path, position: int, value: int) -> None:
    damaged = bytearray(WHOLE_FILE)
    damaged[position] = value
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged)
    network = network_of()
    before = state_of(network)
    try:
        load_backbone(network, path)
    except WeightsError as error:
        assert str(path) in str(error)
        assert_same(state_of(network), before)
    if damaged != WHOLE_FILE:
        assert_refused(network_of(), path, str(path), sha256=hashlib.sha256(WHOLE_FILE).hexdigest())


# ---- checkpoints of torch.save -------------------------------------------------------------------------


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return ran.touch, ()

    torch.save({"model": STORED, "args": Payload()}, tmp_path / "w.pth")
    assert_refused(network_of(), tmp_path / "w.pth", "w.pth", "could run code")
    assert not ran.exists()


@settings(fuzz, max_examples=30)
@given(share=st.floats(0, 0.999))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(STORED, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_refused(network_of(), path, str(path))


@settings(fuzz, max_examples=30)
@given(content=st.binary(max_size=200))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_random_bytes_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert_refused(network_of(), path, str(path))


@pytest.mark.parametrize("content", [[1, 2], {"model": {"epoch": 1}}, torch.zeros(3)])
def test_a_checkpoint_without_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert_refused(network_of(), tmp_path / "w.pt", "no tensors by name")


def test_an_old_checkpoint_equals_a_new_one(tmp_path: Path) -> None:
    states = []
    for zipped in (True, False):
        torch.save(STORED, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
        network = network_of()
        load_backbone(network, tmp_path / "w.bin")
        states.append(state_of(network))
    assert_same(*states)


# ---- folders -------------------------------------------------------------------------------------------


def folder_of(path: Path, **changes: Any) -> Path:
    """A folder as transformers writes it, with changed settings in its ``config.json``."""
    path.mkdir(exist_ok=True)
    save_file(STORED, path / "model.safetensors")
    config = {"model_type": "vit", **HF, "layer_norm_eps": 1e-6, **changes}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_weights_in_several_files_are_read_together(tmp_path: Path) -> None:
    whole, parts = network_of(), network_of()
    load_backbone(whole, folder_of(tmp_path / "one"))
    several = split_folder(tmp_path / "many")
    info = load_backbone(parts, several)
    assert_same(state_of(whole), state_of(parts))
    assert info.path == several
    names = sorted(path.name for path in several.glob("*.safetensors"))
    printed = "".join(f"{hashlib.sha256((several / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert info.sha256 == hashlib.sha256(printed.encode()).hexdigest() == backbone_sha256(several)


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


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert_refused(network_of(), folder, "model-00002-of-00002.safetensors, which is missing")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": "../secret.safetensors"}}'])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    folder = split_folder(tmp_path)
    (folder / "model.safetensors.index.json").write_text(content)
    assert_refused(network_of(), folder, "model.safetensors.index.json")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    save_file(STORED, folder / "model-00002-of-00002.safetensors")
    assert_refused(network_of(), folder, "which another file")


def test_a_folder_with_a_checkpoint_of_torch_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(STORED, folder / "pytorch_model.bin")
    network, other = network_of(), network_of()
    load_backbone(network, folder)
    load_backbone(other, write(tmp_path, STORED))
    assert_same(state_of(network), state_of(other))


def test_an_incomplete_folder_says_what_it_lacks(tmp_path: Path) -> None:
    assert_refused(network_of(), tmp_path, str(tmp_path), "holds no config.json")
    folder = folder_of(tmp_path)
    (folder / "model.safetensors").unlink()
    assert_refused(network_of(), folder, "holds no weights", "model.safetensors")
    assert_refused(network_of(), tmp_path / "absent", "does not exist")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 32}, "hidden_size is 32 instead of 16"),
        ({"num_hidden_layers": 4}, "num_hidden_layers is 4 instead of 3"),
        ({"num_attention_heads": 4}, "num_attention_heads is 4 instead of 2"),
        ({"intermediate_size": 32}, "intermediate_size is 32 instead of 64"),
        ({"patch_size": 4}, "patch_size is 4 instead of 8"),
        ({"num_channels": 1}, "num_channels is 1 instead of 3"),
        ({"hidden_act": "relu"}, "hidden_act is relu instead of gelu"),
        ({"qkv_bias": False}, "qkv_bias is False instead of True"),
        ({"layer_norm_eps": 1e-3}, "layer_norm_eps is 0.001 instead of 1e-06"),
        ({"model_type": "swin"}, "model type 'swin', which is not supported"),
        ({"model_type": "dinov2_with_registers"}, "'dinov2_with_registers', which is not supported"),
        ({"model_type": "dinov2", "mlp_ratio": 4, "use_swiglu_ffn": True}, "gated MLPs"),
        ({"model_type": "no_such_model"}, "not understood by transformers"),
        ({"hidden_size": "wide"}, "not understood by transformers"),
    ],
)
def test_a_description_of_another_architecture_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    assert_refused(network_of(), folder_of(tmp_path, **changes), str(tmp_path / "config.json"), named)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"vit"'])
def test_a_damaged_description_is_refused(tmp_path: Path, content: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(content)
    assert_refused(network_of(), folder, str(folder / "config.json"))


@pytest.mark.parametrize("eps", [1e-12, 1e-6])
def test_another_image_size_and_a_tiny_change_of_the_norms_are_no_difference(tmp_path: Path, eps: float) -> None:
    load_backbone(network_of(), folder_of(tmp_path, layer_norm_eps=eps, image_size=64))


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("embeddings.register_tokens", "register tokens"),
        ("reg_token", "register tokens"),
        ("encoder.layer.0.mlp.weights_in.weight", "gated MLPs"),
        ("blocks.0.mlp.w12.weight", "gated MLPs"),
    ],
)
def test_what_the_network_does_not_have_is_named(tmp_path: Path, key: str, meaning: str) -> None:
    assert_refused(network_of(), write(tmp_path, {**STORED, key: torch.zeros(2)}), key, meaning, "not supported")


def test_a_description_never_runs_code_of_its_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, model_type="custom", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    assert_refused(network_of(), folder, "config.json")
    assert not (tmp_path / "ran").exists()


# ---- the pin and the hub -------------------------------------------------------------------------------


def test_the_pinned_file_is_accepted_in_either_case_and_another_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, STORED)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_backbone(network_of(), path, sha256=digest.upper()).sha256 == digest == backbone_sha256(path)
    assert_refused(network_of(), path, "a" * 64, digest, sha256="a" * 64)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        load_backbone(network_of(), path, sha256="abc")


def test_the_pin_of_several_files_notices_a_change_in_any(tmp_path: Path) -> None:
    folder = split_folder(tmp_path)
    pin = backbone_sha256(folder)
    load_backbone(network_of(), folder, sha256=pin)
    for part in folder.glob("*.safetensors"):
        content = part.read_bytes()
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert_refused(network_of(), folder, pin, sha256=pin)
        part.write_bytes(content)


def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the hub with a folder; returns the list of what is asked for."""
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append(f"{repo_id}/{filename}")
        if not (folder / filename).is_file():
            raise EntryNotFoundError(f"404: {filename}")
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_repository_of_the_hub_is_loaded_like_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, network, local = split_folder(tmp_path), network_of(), network_of()
    asked = hub(folder, monkeypatch)
    info = load_backbone(network, "hf://owner/repo", sha256=backbone_sha256(folder))
    load_backbone(local, folder)
    assert_same(state_of(network), state_of(local))
    assert info.sha256 == backbone_sha256("hf://owner/repo")
    assert set(asked) == {
        f"owner/repo/{name}"
        for name in (
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        )
    }


def test_a_file_of_the_hub_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    torch.save({"model": STORED}, tmp_path / "some" / "w.pth")
    asked = hub(tmp_path, monkeypatch)
    load_backbone(network_of(), "hf://owner/repo/some/w.pth")
    assert asked == ["owner/repo/some/w.pth"]


@pytest.mark.parametrize("error", [ConnectionError("no route to host"), LocalEntryNotFoundError("offline")])
def test_without_network_the_message_says_what_to_download_by_hand(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(**_: str) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_refused(
        network_of(),
        "hf://owner/repo",
        str(error),
        "https://huggingface.co/owner/repo/resolve/main/config.json",
        "by hand",
    )


@pytest.mark.parametrize("source", ["hf://repo", "hf://", "hf:///repo"])
def test_a_malformed_hub_id_is_refused(source: str) -> None:
    assert_refused(network_of(), source, "hf://owner/repo")


def test_the_family_models_are_written_in_names_that_the_layouts_know(tmp_path: Path) -> None:
    """The published names, so that an older or newer library reads and writes the same files."""
    for name, key in {
        "vit": "encoder.layer.0.attention.attention.query.weight",
        "dinov2": "encoder.layer.0.attention.attention.query.weight",
        "clip": "encoder.layers.0.self_attn.q_proj.weight",
    }.items():
        folder = FAMILIES[name].save(FAMILIES[name].build(), tmp_path / name)
        assert key in load_file(folder / "model.safetensors")
