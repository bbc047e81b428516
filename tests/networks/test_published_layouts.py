"""Files as people publish them, a row for each layout: equal to their authors' classes, or refused with advice.

References are classes of transformers and MONAI. For the names of timm, of DINOv2's own files and of torchvision, whose
libraries are not installed, the keys of these classes are converted here, independently of the package.
"""

from __future__ import annotations

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
    DEPTH,
    DIM,
    DINOV2,
    HEADS,
    HF,
    PATCH,
    SIDE,
    assert_refused,
    images,
    network_of,
    randomised,
)

State = dict[str, Tensor]

# ---- the authors' classes ------------------------------------------------------------------------------


def vit() -> Any:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**HF))


def deit() -> Any:
    from transformers import DeiTConfig, DeiTModel

    return DeiTModel(DeiTConfig(**HF))


def dinov2() -> Any:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**DINOV2))


def registers() -> Any:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**DINOV2))


def gated() -> Any:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**DINOV2, use_swiglu_ffn=True))


SCALED = {"layer_scale": True}
MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "vit": (vit, {}),
    "deit": (deit, {"registers": 1}),
    "dinov2": (dinov2, SCALED),
    "registers": (registers, {**SCALED, "registers": 4}),
    "gated": (gated, {**SCALED, "gated": True, "mlp_ratio": 48 / DIM}),
}


def published(model: Any, folder: Path) -> State:
    """The tensors under the names that transformers writes."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


# ---- conversions, each written from its library's names ------------------------------------------------


def timm(state: State) -> State:
    """Blocks of timm with fused queries, keys and values, and everything else renamed."""
    out: State = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "encoder":
            fused = ("query", "key", "value")
            if parts[-2] in fused:
                if parts[-2] == "query":
                    three = [state[key.replace("query", name)] for name in fused]
                    out[f"blocks.{parts[2]}.attn.qkv.{parts[-1]}"] = torch.cat(three)
                continue
            inner, leaf = ".".join(parts[3:-1]), parts[-1]
            name = {
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
                "attention.output.dense": "attn.proj",
                "intermediate.dense": "mlp.fc1",
                "output.dense": "mlp.fc2",
                "layer_scale1": "ls1",
                "layer_scale2": "ls2",
            }.get(inner, inner)
            out[f"blocks.{parts[2]}.{name}.{'gamma' if leaf == 'lambda1' else leaf}"] = value
    out["cls_token"] = state["embeddings.cls_token"]
    out["pos_embed"] = state["embeddings.position_embeddings"]
    for leaf in ("weight", "bias"):
        out[f"patch_embed.proj.{leaf}"] = state[f"embeddings.patch_embeddings.projection.{leaf}"]
        out[f"norm.{leaf}"] = state[f"layernorm.{leaf}"]
    return out


def no_embed_class(state: State) -> State:
    """Positions of the patches alone, as of timm's models with registers and DeiT III."""
    table = state["pos_embed"]
    return {**state, "cls_token": state["cls_token"] + table[:, :1], "pos_embed": table[:, 1:]}


def renamed(state: State, **names: str) -> State:
    out = {}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old.replace("__", "."), new)
        out[key] = value
    return out


def distilled(state: State) -> State:
    heads = {f"{head}.{leaf}": torch.zeros(2, DIM)[:, :last] for head in ("head", "head_dist") for leaf, last in LEAVES}
    return {**timm(state), "dist_token": state["embeddings.distillation_token"], **heads}


LEAVES = (("weight", DIM), ("bias", 1))


def deit3(state: State) -> State:
    return renamed(no_embed_class(timm(state)), ls1__gamma="gamma_1", ls2__gamma="gamma_2")


def meta(state: State) -> State:
    out = renamed(timm(state), weights_in="w12", weights_out="w3")
    if "embeddings.register_tokens" in state:
        out["register_tokens"] = state["embeddings.register_tokens"]
    return {**out, "mask_token": torch.zeros(1, DIM)}


def chunked(state: State) -> State:
    """Blocks in chunks of two, as of DINOv2's sharded training."""
    out = {}
    for key, value in meta(state).items():
        parts = key.split(".")
        out[".".join(["blocks", str(int(parts[1]) // 2), *parts[1:]]) if parts[0] == "blocks" else key] = value
    return out


def timm_registers(state: State) -> State:
    return {**no_embed_class(timm(state)), "reg_token": state["embeddings.register_tokens"]}


def timm_packed(state: State) -> State:
    return renamed(timm(state), weights_in="fc1", weights_out="fc2")


def timm_split(state: State) -> State:
    out = {}
    for key, value in timm_packed(state).items():
        if ".fc1." in key:
            out[key.replace("fc1", "fc1_g")], out[key.replace("fc1", "fc1_x")] = value.chunk(2)
        else:
            out[key] = value
    return out


def torchvision(state: State, *, old: bool = False) -> State:
    source, out = timm(state), {}
    names = {"norm1": "ln_1", "attn.proj": "self_attention.out_proj", "norm2": "ln_2"}
    names |= {"mlp.fc1": "mlp.linear_1", "mlp.fc2": "mlp.linear_2"} if old else {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}
    for key, value in source.items():
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            inner, _, leaf = rest.rpartition(".")
            theirs = f"self_attention.in_proj_{leaf}" if inner == "attn.qkv" else f"{names[inner]}.{leaf}"
            out[f"encoder.layers.encoder_layer_{number}.{theirs}"] = value
    out |= {"class_token": source["cls_token"], "encoder.pos_embedding": source["pos_embed"]}
    for leaf in ("weight", "bias"):
        out[f"conv_proj.{leaf}"] = source[f"patch_embed.proj.{leaf}"]
        out[f"encoder.ln.{leaf}"] = source[f"norm.{leaf}"]
    return {**out, "heads.head.weight": torch.zeros(7, DIM), "heads.head.bias": torch.zeros(7)}


def retfound_dinov2(state: State) -> dict[str, Any]:
    teacher = {f"backbone.{key}": value for key, value in meta(state).items()}
    return {"teacher": {**teacher, "dino_head.mlp.0.weight": torch.zeros(3, DIM)}, "iteration": 9}


def same(state: State) -> State:
    return state


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{key}": value for key, value in timm(state).items()}


def nested(name: str) -> Callable[[State], dict[str, Any]]:
    state_of_optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return lambda state: {name: timm(state), "optimizer": state_of_optimiser, "epoch": 3}


@dataclass(frozen=True)
class Row:
    model: str
    convert: Callable[[State], Any]
    suffix: str = ".pth"


ROWS = {
    "transformers' registers": Row("registers", same, ".safetensors"),
    "transformers' SwiGLU": Row("gated", same, ".safetensors"),
    "transformers' DeiT": Row("deit", same, ".safetensors"),
    "UNI": Row("dinov2", timm, ".bin"),
    "DeiT": Row("vit", lambda state: {"model": timm(state)}),
    "DeiT distilled": Row("deit", lambda state: {"model": distilled(state)}),
    "DeiT III": Row("dinov2", lambda state: {"model": deit3(state)}),
    "DeiT III of timm": Row("dinov2", lambda state: no_embed_class(timm(state)), ".safetensors"),
    "RETFound of DINOv2": Row("dinov2", retfound_dinov2),
    "DINOv2": Row("dinov2", meta),
    "DINOv2 in chunks": Row("dinov2", chunked),
    "DINOv2 with registers": Row("registers", meta),
    "DINOv2 giant": Row("gated", meta),
    "DINOv2 giant in chunks": Row("gated", chunked),
    "timm with registers": Row("registers", timm_registers, ".safetensors"),
    "timm's packed SwiGLU": Row("gated", timm_packed, ".safetensors"),
    "timm's SwiGLU": Row("gated", timm_split, ".safetensors"),
    "torchvision": Row("vit", torchvision),
    "torchvision before 0.13": Row("vit", lambda state: torchvision(state, old=True)),
    **{
        f"under {prefix}": Row("vit", prefixed(prefix), suffix)
        for prefix, suffix in (
            *(("teacher.backbone.", ".pth"), ("module.backbone.", ".pth"), ("model.", ".safetensors")),
            *(("encoder.", ".pth"), ("net.", ".pth"), ("_orig_mod.", ".safetensors"), ("vit.", ".pth")),
            *(("student.", ".pth"), ("trunk.", ".pth"), ("image_encoder.", ".pth"), ("base_model.model.", ".pth")),
            ("anything.else.", ".safetensors"),
        )
    },
    **{
        f"within {name}": Row("vit", nested(name)) for name in ("model_state_dict", "model_ema", "module", "net", "any")
    },
}


def stored(content: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@torch.no_grad()
def agree(network: VisionTransformer, model: Any, x: Tensor) -> None:
    """The tokens in front of every block, and what is read."""
    out = model(x, output_hidden_states=True)
    for block, expected in enumerate(out.hidden_states[:DEPTH]):
        torch.testing.assert_close(network.prefix(x, block).tokens, expected, rtol=1e-5, atol=1e-5)
    read = network.pool(network.prefix(x, DEPTH))
    torch.testing.assert_close(read, out.last_hidden_state[:, 0], rtol=1e-5, atol=1e-5)


QUICK = ("UNI", "DINOv2 giant in chunks", "torchvision", "timm with registers", "within anything")
"""Rows that together use every kind of conversion; the others are slow, being many."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_a_published_layout_computes_what_its_authors_class_computes(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    build, options = MODELS[row.model]
    model = randomised(build())
    path = stored(row.convert(published(model, tmp_path / "hf")), tmp_path / f"weights{row.suffix}")
    network = network_of(**options)
    info = load_backbone(network, path)
    agree(network, model, images())
    assert info.n_loaded == len(network.state_dict()) - 2


# ---- MONAI's, without a class token --------------------------------------------------------------------


def monai_vit(**options: Any) -> Any:
    from monai.networks.nets import ViT

    sizes = {"img_size": (SIDE, SIDE), "patch_size": (PATCH, PATCH), "hidden_size": DIM, "mlp_dim": 4 * DIM}
    return ViT(**{"in_channels": 3, **sizes, "num_layers": DEPTH, "num_heads": HEADS, "spatial_dims": 2, **options})


def monai_unetr() -> Any:
    from monai.networks.nets import UNETR

    sizes = {"img_size": (SIDE, SIDE), "hidden_size": DIM, "mlp_dim": 4 * DIM, "num_heads": HEADS}
    return UNETR(in_channels=1, out_channels=2, feature_size=4, spatial_dims=2, **sizes)


def monai_auto_encoder() -> Any:
    from monai.networks.nets import ViTAutoEnc

    sizes = {"img_size": (SIDE, SIDE), "patch_size": (16, 16), "hidden_size": DIM, "mlp_dim": 4 * DIM}
    return ViTAutoEnc(in_channels=1, **sizes, num_layers=DEPTH, num_heads=HEADS, spatial_dims=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "inside", "channels", "shape"),
    [
        (monai_vit, same, 3, {}),
        (lambda: monai_vit(in_channels=1), same, 1, {}),
        (lambda: monai_vit(in_channels=1, proj_type="perceptron"), same, 1, {}),
        (monai_unetr, lambda model: model.vit, 1, {"patch": 16, "depth": 12}),
        (monai_auto_encoder, same, 1, {"patch": 16}),
    ],
    ids=["ViT", "one channel", "one channel, perceptron", "UNETR", "ViTAutoEnc"],
)
def test_monais_encoders_without_a_class_token_give_their_tokens(
    build: Callable[[], Any], inside: Callable[[Any], Any], channels: int, shape: dict[str, Any], tmp_path: Path
) -> None:
    """Of one channel: a grey image in three equal ones gives what the file's network makes of one."""
    whole = randomised(build())
    options = {"norm_eps": 1e-5, "qkv_bias": False, "class_token": False, "readout": "mean_of_norm", **shape}
    network = network_of(**options)
    load_backbone(network, stored(whole.state_dict(), tmp_path / "weights.safetensors"))
    network.double()
    x = images()[:, :1].expand(-1, 3, -1, -1).double()
    encoder = inside(whole.double())
    with torch.no_grad():
        tokens = encoder.patch_embedding(x[:, :channels])
        for number, block in enumerate(encoder.blocks):
            torch.testing.assert_close(network.prefix(x, number).tokens, tokens, rtol=1e-5, atol=1e-5)
            tokens = block(tokens)
        pooled = network.pool(network.prefix(x, len(encoder.blocks)))
        torch.testing.assert_close(pooled, encoder.norm(tokens).mean(dim=1), rtol=1e-5, atol=1e-5)


# ---- folders of timm and of transformers ---------------------------------------------------------------

TIMM_CONFIG: dict[str, Any] = {
    "architecture": "vit_large_patch16_224",
    "num_classes": 0,
    "num_features": DIM,
    "model_args": {"init_values": 1, "num_heads": HEADS, "img_size": SIDE},
    "pretrained_cfg": {"input_size": [3, SIDE, SIDE], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def timm_folder(tmp_path: Path, **changes: Any) -> tuple[Path, Any]:
    model = randomised(dinov2())
    folder = tmp_path / "uni"
    folder.mkdir()
    stored(timm(published(model, tmp_path / "hf")), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({**TIMM_CONFIG, **changes}))
    return folder, model


@pytest.mark.parametrize("inside", ["", "pytorch_model.bin"])
def test_a_folder_of_timms_hub_is_read(inside: str, tmp_path: Path) -> None:
    folder, model = timm_folder(tmp_path)
    network = network_of(**SCALED)
    load_backbone(network, folder / inside)
    agree(network, model, images())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_args": {}}, "n_heads is 16 instead of 2"),
        ({"model_args": {"num_heads": 4}}, "n_heads is 4 instead of 2"),
        ({"num_features": 1024}, "dim is 1024 instead of 16"),
        ({"model_args": {"num_heads": HEADS, "reg_tokens": 4}}, "registers is 4 instead of 0"),
        ({"architecture": "vit_base_patch32_clip_quickgelu_224"}, "activation is quick_gelu instead of gelu"),
        ({"model_args": {"num_heads": HEADS, "act_layer": "gelu_tanh"}}, "activation is gelu_tanh instead of gelu"),
        ({"architecture": "swin_tiny_patch4_window7_224"}, "attach"),
        ({"architecture": "vit_large_patch16_rope_ape_224"}, "attach"),
    ],
)
def test_what_timms_description_says_is_compared(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder, _ = timm_folder(tmp_path, **changes)
    for source in (folder, folder / "pytorch_model.bin"):
        assert_refused(network_of(**SCALED), source, "config.json", named)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["registers", "gated", "deit"])
def test_a_folder_of_transformers_is_read_with_its_description(name: str, tmp_path: Path) -> None:
    build, options = MODELS[name]
    model = randomised(build())
    model.save_pretrained(tmp_path / "hf")
    network = network_of(**options)
    load_backbone(network, tmp_path / "hf")
    agree(network, model, images())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "deit", "registers", "gated"])
def test_names_of_the_librarys_own_modules_are_understood_too(name: str, tmp_path: Path) -> None:
    build, options = MODELS[name]
    model = randomised(build())
    network = network_of(**options)
    load_backbone(network, stored(model.state_dict(), tmp_path / "weights.safetensors"))
    agree(network, model, images())


# ---- refusals ------------------------------------------------------------------------------------------


def plain(tmp_path: Path) -> State:
    return timm(published(randomised(vit()), tmp_path / "hf"))


@pytest.mark.parametrize("flat", [True, False])
def test_of_a_student_and_a_teacher_none_is_guessed(tmp_path: Path, flat: bool) -> None:
    """The lines that the message gives make a file that loads."""
    state = plain(tmp_path)
    both: dict[str, Any] = {"student": state, "teacher": {key: value + 1 for key, value in state.items()}}
    if flat:
        both = {f"{name}.{key}": value for name, inside in both.items() for key, value in inside.items()}
    path = stored(both, tmp_path / "dino.pth")
    network = network_of()
    with pytest.raises(WeightsError, match=r"under 'student\.' and 'teacher\.'; which one is meant") as said:
        load_backbone(network, path)
    lines = str(said.value).rpartition("these lines: ")[2]
    exec(lines.replace("'dino", f"'{tmp_path}/dino"), {"torch": torch})
    load_backbone(network, tmp_path / "dino_teacher.pth")
    torch.testing.assert_close(network.norm.weight, state["norm.weight"] + 1)


@pytest.mark.parametrize("inside", ["state_dict", None])
def test_of_two_encoders_behind_a_shared_name_one_is_saved_alone(tmp_path: Path, inside: str | None) -> None:
    state = plain(tmp_path)
    shifted = {"base_encoder": state, "momentum_encoder": {key: value + 1 for key, value in state.items()}}
    flat = {f"module.{name}.{key}": value for name, part in shifted.items() for key, value in part.items()}
    path = stored({inside: flat, "epoch": 3} if inside else flat, tmp_path / "moco.pth")
    network = network_of()
    with pytest.raises(WeightsError, match="such as that of momentum_encoder") as said:
        load_backbone(network, path)
    lines = str(said.value).rpartition("these lines: ")[2]
    exec(lines.replace("'moco", f"'{tmp_path}/moco"), {"torch": torch})
    load_backbone(network, tmp_path / "moco_momentum_encoder.pth")
    torch.testing.assert_close(network.norm.weight, state["norm.weight"] + 1)


def test_a_gate_that_the_network_has_not_is_not_read_by_halves(tmp_path: Path) -> None:
    path = stored(meta(published(randomised(gated()), tmp_path / "hf")), tmp_path / "w.pth")
    assert_refused(network_of(layer_scale=True, mlp_ratio=48 / DIM), path, "gated is True, not False")


def test_two_ways_to_read_positions_are_not_guessed(tmp_path: Path) -> None:
    state = plain(tmp_path) | {"reg_token": torch.zeros(1, 4, DIM), "pos_embed": torch.zeros(1, 9, DIM)}
    network = network_of(registers=4, side=SIDE)
    assert_refused(network, stored(state, tmp_path / "w.pth"), "pos_embed is (1, 9, 16)")


def test_a_network_of_volumes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    sizes = {"img_size": (SIDE,) * 3, "patch_size": (PATCH,) * 3, "spatial_dims": 3}
    path = stored(monai_vit(**sizes).state_dict(), tmp_path / "w.safetensors")
    network = network_of(norm_eps=1e-5, qkv_bias=False, class_token=False, readout="mean_of_norm")
    assert_refused(network, path, "volumes", "monai_fedlora.attach")


@pytest.mark.slow
def test_networks_of_other_kinds_are_refused_with_what_to_do(tmp_path: Path) -> None:
    from monai.networks.nets import SwinUNETR
    from transformers import BeitConfig, BeitModel

    swin = SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), spatial_dims=2
    )
    beit = BeitModel(BeitConfig(**HF))
    for name, model in (("swin", swin), ("beit", beit)):
        path = stored(nn.Module.state_dict(model), tmp_path / f"{name}.pth")
        assert_refused(network_of(), path, "monai_fedlora.attach")
