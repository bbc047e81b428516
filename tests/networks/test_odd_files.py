"""Files as people have them that are not quite as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.image_settings import read_image_settings
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.published import (
    DEPTH,
    DIM,
    HEADS,
    PATCH,
    SIDE,
    assert_refused,
    assert_same,
    folder_of,
    in_timms_names,
    network_of,
    randomised,
    state_of,
)


def timms() -> dict[str, Any]:
    return in_timms_names(randomised(network_of()))


@pytest.mark.slow
def test_monais_epsilon_is_its_librarys(tmp_path: Path) -> None:
    from monai.networks.nets import ViT

    model = ViT(
        in_channels=3,
        img_size=SIDE,
        patch_size=PATCH,
        hidden_size=DIM,
        mlp_dim=4 * DIM,
        num_layers=DEPTH,
        num_heads=HEADS,
        proj_type="conv",
        classification=True,
        spatial_dims=2,
        qkv_bias=True,
    )
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    assert_refused(network_of(norm_eps=1e-6), tmp_path / "weights.pth", "MONAI's ViT", "1e-05", "attach")
    info = load_backbone(network_of(norm_eps=1e-5), tmp_path / "weights.pth")
    assert info.assumed == (f"n_heads {HEADS}", "activation gelu")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_one_channel_in_half_precision_is_spread_without_rounding(kind: torch.dtype, tmp_path: Path) -> None:
    state = {key: value.to(kind) for key, value in timms().items()}
    grey = state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :1].contiguous()
    save_file(state, tmp_path / "weights.safetensors")
    network = network_of()
    load_backbone(network, tmp_path / "weights.safetensors")
    torch.testing.assert_close(network.embed.patch.weight.sum(dim=1), grey[:, 0].float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("before", [True, False])
def test_a_head_behind_a_further_layer_is_left_out(before: bool, tmp_path: Path) -> None:
    state = timms() | {"head.weight": torch.ones(2, DIM), "head.bias": torch.ones(2)}
    if before:
        state |= {"pre_logits.fc.weight": torch.ones(DIM, DIM), "pre_logits.fc.bias": torch.ones(DIM)}
    torch.save(state, tmp_path / "weights.pth")
    assert load_backbone(network_of(), tmp_path / "weights.pth").heads is not before


def test_two_tensors_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    state = timms()
    torch.save({"model": state, "model.cls_token": state["cls_token"] + 1}, tmp_path / "weights.pth")
    assert_refused(network_of(), tmp_path / "weights.pth", "two tensors called model.cls_token")


@pytest.mark.parametrize("word", ["sparse", "missing"])
def test_tensors_without_all_their_values_are_named(word: str, tmp_path: Path) -> None:
    state = timms()
    norm = state["norm.weight"]
    state["norm.weight"] = norm.to_sparse() if word == "sparse" else torch.empty_like(norm, device="meta")
    torch.save(state, tmp_path / "weights.pth")
    assert_refused(network_of(), tmp_path / "weights.pth", f"norm.weight holds {word} values")


def test_the_hubs_cache_says_which_of_its_folders_is_meant(tmp_path: Path) -> None:
    (tmp_path / "models--owner--repo" / "snapshots").mkdir(parents=True)
    inside = folder_of(tmp_path / "models--owner--repo" / "snapshots" / "abc")
    with pytest.raises(WeightsError, match=rf"cache of the hub.*give {inside}"):
        find_weights(tmp_path / "models--owner--repo")


def test_a_patch_that_is_written_twice_is_a_square(tmp_path: Path) -> None:
    load_backbone(network_of(), folder_of(tmp_path / "same", patch_size=[PATCH, PATCH]))
    assert_refused(network_of(), folder_of(tmp_path / "other", patch_size=[PATCH, 4]), "patch_size is [8, 4]")


def test_colours_in_another_order_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "turned")
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_flip_channel_order": True}))
    with pytest.raises(WeightsError, match="blue, green, red"):
        read_image_settings(folder)


@pytest.mark.parametrize("alone", [True, False])
def test_adapters_of_peft_are_to_be_merged(alone: bool, tmp_path: Path) -> None:
    state = {f"base_model.model.{key}".replace("attn.qkv.", "attn.qkv.base_layer."): v for key, v in timms().items()}
    adapters = {f"base_model.model.blocks.0.attn.qkv.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    torch.save(adapters if alone else state | adapters, tmp_path / "weights.pth")
    assert_refused(network_of(), tmp_path / "weights.pth", "holds adapters of PEFT", "merge_and_unload()")


def test_a_file_without_any_tensor_is_called_empty(tmp_path: Path) -> None:
    save_file({}, tmp_path / "weights.safetensors")
    assert_refused(network_of(), tmp_path / "weights.safetensors", "weights.safetensors holds no tensors")


def test_monais_older_patch_embedding_has_a_token_without_use(tmp_path: Path) -> None:
    options: dict[str, Any] = {"norm_eps": 1e-5, "class_token": False, "readout": "mean_of_norm"}
    own = state_of(randomised(network_of(**options)))
    names = {"embed.patch": "patch_embedding.patch_embeddings", "mlp.fc1": "mlp.linear1", "mlp.fc2": "mlp.linear2"}
    names |= {"attn.proj": "attn.out_proj", "embed.position": "patch_embedding.position_embeddings"}
    state = {"vit.patch_embedding.cls_token": torch.zeros(1, 1, DIM)}
    for key, value in own.items():
        if ".attn.q." in key:
            fused = torch.cat([own[key.replace(".q.", f".{part}.")] for part in "qkv"])
            state[f"vit.{key.replace('.q.', '.qkv.')}"] = fused
        elif not key.startswith("head.") and ".attn.k." not in key and ".attn.v." not in key:
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            state[f"vit.{key}"] = value
    torch.save(state, tmp_path / "weights.pth")
    network = network_of(**options, seed=6)
    assert "vit.patch_embedding.cls_token" in load_backbone(network, tmp_path / "weights.pth").skipped
    read = state_of(network)
    assert_same({key: read[key] for key in own if "head" not in key}, {k: own[k] for k in own if "head" not in k})
