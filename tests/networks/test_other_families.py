"""Families of transformers beside those of the catalogue: equal to their own classes, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.text_config import check_text_config
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.networks.weights_sources import find_weights
from tests.networks.published import (
    CLIP,
    DEPTH,
    DIM,
    DINOV2,
    HF,
    assert_refused,
    images,
    network_of,
    randomised,
    tensors_file,
)
from tests.networks.towers import image_tower, open_clip, open_siglip

TEXT = {key: value for key, value in HF.items() if key not in ("image_size", "patch_size")} | {"vocab_size": 50}


def pair(name: str, **options: Any) -> Any:
    """A model of an image and a text tower."""
    import transformers

    config = getattr(transformers, f"{name}Config")(vision_config=dict(HF), text_config=dict(TEXT), **options)
    return getattr(transformers, f"{name}Model")(config)


def one(name: str, **options: Any) -> Any:
    import transformers

    return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**{**HF, **options}))


def projected() -> Any:
    import transformers

    return transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**HF))


def clipseg() -> Any:
    import transformers

    options: dict[str, Any] = {"vision_config": dict(HF), "text_config": dict(TEXT), "extract_layers": [0, 1, 2]}
    return transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig(**options, reduce_dim=8))


def depth_anything() -> Any:
    import transformers

    stages = {"out_features": ["stage1", "stage2", "stage3"], "reshape_hidden_states": False}
    neck = {"neck_hidden_sizes": [4, 4, 4], "fusion_hidden_size": 4, "reassemble_factors": [4, 2, 1]}
    backbone = transformers.Dinov2Config(**DINOV2, **stages)
    config = transformers.DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=DIM, **neck)
    return transformers.DepthAnythingForDepthEstimation(config)


def class_token(model: Any, x: Tensor) -> Tensor:
    return model(x).last_hidden_state[:, 0]


def mean(model: Any, x: Tensor) -> Tensor:
    return model(x).last_hidden_state.mean(dim=1)


def vision_tower(model: Any, x: Tensor) -> Tensor:
    return model.vision_model(x).pooler_output


def last_stage(model: Any, x: Tensor) -> Tensor:
    return model.backbone(x).feature_maps[-1][:, 0]


TOKENS = {"class_token": False, "readout": "mean_of_norm"}
EQUAL: dict[str, tuple[Callable[[], Any], dict[str, Any], Callable[[Any, Tensor], Tensor]]] = {
    "ViT-MSN": (lambda: one("ViTMSN"), {}, class_token),
    "I-JEPA": (lambda: one("IJepa"), {**TOKENS, "norm_eps": 1e-12}, mean),
    "DPT": (lambda: one("DPT", backbone_out_indices=[0, 1, 2, 2], is_hybrid=False), {"norm_eps": 1e-12}, class_token),
    "Depth Anything": (depth_anything, {"layer_scale": True}, last_stage),
    "CLIP's images, projected": (projected, CLIP, vision_tower),
    "MetaCLIP 2": (lambda: pair("MetaClip2"), CLIP, vision_tower),
    "Chinese CLIP": (lambda: pair("ChineseCLIP"), CLIP, vision_tower),
    "CLIPSeg": (clipseg, CLIP, lambda model, x: vision_tower(model.clip, x)),
}


def pooled(network: VisionTransformer, x: Tensor) -> Tensor:
    return network.pool(network.prefix(x, DEPTH))


@torch.no_grad()
@pytest.mark.parametrize("name", EQUAL)
def test_a_folder_computes_what_its_own_class_computes(name: str, tmp_path: Path) -> None:
    build, options, read = EQUAL[name]
    model, x = randomised(build()), images()
    model.save_pretrained(tmp_path / "hf")
    network: VisionTransformer = network_of(**options)
    assert load_backbone(network, tmp_path / "hf").assumed == ()
    torch.testing.assert_close(pooled(network, x), read(model, x), rtol=1e-5, atol=1e-5)
    save_file(load_file(tmp_path / "hf" / "model.safetensors"), tmp_path / "bare.safetensors")
    if options is CLIP:
        assert_refused(network_of(**CLIP), tmp_path / "bare.safetensors", "tells its activation")
        return
    bare: VisionTransformer = network_of(**options)
    load_backbone(bare, tmp_path / "bare.safetensors")
    torch.testing.assert_close(pooled(bare, x), read(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["MetaClip2", "ChineseCLIP"])
def test_texts_of_other_towers_are_refused(name: str, tmp_path: Path) -> None:
    pair(name).save_pretrained(tmp_path)
    shape = TextSettings(context=77, vocabulary=50, dim=DIM, depth=DEPTH, n_heads=2, embed_dim=8)
    with pytest.raises(WeightsError, match=r"another text tower: .*model_type is"):
        check_text_config(find_weights(tmp_path), shape)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "BEiT": (lambda: one("Beit", use_relative_position_bias=True), "BEiT, BEiT v2, data2vec and EVA, which"),
    "data2vec": (lambda: one("Data2VecVision"), "BEiT, BEiT v2, data2vec and EVA, which"),
    "AIMv2": (lambda: one("Aimv2Vision"), "AIMv2, which normalises by the root"),
    "C-RADIO": (lambda: one("Radio"), "C-RADIO, which has several class tokens"),
    "SAM": (
        lambda: one("SamVision", mlp_dim=4 * DIM, output_channels=8, global_attn_indexes=[0]),
        "SAM, MedSAM and ViTDet, which attend within windows",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_here_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """With its description, and by the names of its tensors alone."""
    build, said = REFUSED[name]
    build().save_pretrained(tmp_path / "hf")
    save_file(load_file(tmp_path / "hf" / "model.safetensors"), tmp_path / "bare.safetensors")
    for source in (tmp_path / "hf", tmp_path / "bare.safetensors"):
        assert_refused(network_of(), source, said, "monai_fedlora.attach")


def timm_block(**names: int) -> dict[str, Tensor]:
    whole = {"patch_embed.proj.weight": torch.zeros(DIM, 3, 8, 8), "cls_token": torch.zeros(1, 1, DIM)}
    whole |= {f"blocks.0.norm{n}.weight": torch.zeros(DIM) for n in (1, 2)}
    return whole | {key: torch.zeros(size, DIM) for key, size in names.items()}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (timm_block(**{"blocks.0.attn.q_proj.weight": DIM, "blocks.0.mlp.fc1_g.weight": 40}), "EVA-02"),
        (timm_block(**{"blocks.0.attn.qkv.weight": 3 * DIM, "blocks.0.attn.q_bias": 1}), "data2vec and EVA"),
        ({f"image_encoder.{key}": value for key, value in timm_block(**{"blocks.0.attn.rel_pos_h": 3}).items()}, "SAM"),
        ({"layers.0.blocks.0.attn.qkv.weight": torch.zeros(3 * DIM, DIM)}, "Swin"),
    ],
    ids=["EVA-02", "EVA", "MedSAM", "Swin"],
)
def test_names_of_their_authors_own_files_show_whose_they_are(
    state: dict[str, Tensor], said: str, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "w.pth")
    assert_refused(network_of(), tmp_path / "w.pth", said, "monai_fedlora.attach")


def test_perception_encoders_are_no_clips_though_they_have_their_names(tmp_path: Path) -> None:
    """Its Core pools by attention, its others have no last norm; all turn queries and keys."""
    state = {key: value for key, value in open_clip().state_dict().items() if key.startswith("visual.")}
    torch.save({**state, "visual.attn_pool.layernorm.weight": torch.zeros(DIM)}, tmp_path / "core.pt")
    network = image_tower(**CLIP)
    assert_refused(network, tmp_path / "core.pt", "Perception Encoder, which turns", "monai_fedlora.attach")
    torch.save({key: value for key, value in state.items() if "ln_post" not in key}, tmp_path / "spatial.pt")
    assert_refused(network, tmp_path / "spatial.pt", "it lacks visual.ln_post.bias, visual.ln_post.weight", "attach")


@torch.no_grad()
def test_a_folder_of_timms_siglip_computes_what_its_authors_code_computes(tmp_path: Path) -> None:
    model: Any = open_siglip()
    tensors_file(model.visual.trunk, tmp_path)
    config = {"architecture": "vit_base_patch16_siglip_224", "model_args": {"num_heads": 2}, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = image_tower(class_token=False, readout="map", activation="gelu_tanh")
    assert load_backbone(network, tmp_path).assumed == ()
    x = images()
    torch.testing.assert_close(network.pool(network.prefix(x, 2)), model.visual.trunk(x), rtol=1e-5, atol=1e-5)
    exact = image_tower(class_token=False, readout="map", activation="gelu")
    assert_refused(exact, tmp_path, "activation is gelu_tanh instead of gelu")
